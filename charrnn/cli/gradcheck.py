from __future__ import annotations

import click

from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count, read_ids, seed_option
from charrnn.cli.streams import print_lines, print_message, stdout
from charrnn.config import MAX_COUNT
from charrnn.errors import GradientError, TextError

MAX_STEPS, B = 16, 3  # of the batch: each entry takes two passes over it


@click.command()
@click.option(
    "--entries", type=Count(1, MAX_COUNT), default=50, help="Entries to compare per parameter."
)
@seed_option(default=0, help="Random seed for the entries and the initial state.")
@model_argument("CORPUS...")
def gradcheck(model_file: ModelFile, corpus: list[str], entries: int, seed: int) -> None:
    """Check the gradients of the model in CHECKPOINT on CORPUS.

    Compare them with central differences. For each parameter, print the number of entries
    compared and the largest relative error. The exit code is 6 if any error exceeds 0.0001.

    \b
      charrnn gradcheck checkpoints/play.npz corpus.txt
    """  # noqa: D301
    stdout()
    import numpy as np

    from charrnn.analysis.gradients import TOLERANCE, check_gradients

    # a batch of B sequences, spread over the text, from a random state
    model = model_file.load()
    ids, rng = read_ids(corpus, model), np.random.default_rng(seed)
    if len(ids) < 2:
        raise TextError("the text must contain at least two characters of the model's vocabulary")
    T = min(MAX_STEPS, len(ids) - 1)
    starts = np.linspace(0, len(ids) - 1 - T, B).astype(int)
    symbols = ids[starts + np.arange(T + 1)[:, None]]
    state = rng.uniform(-1, 1, model.network.zero_state(B).shape)

    errors = {}
    checked = check_gradients(model.network, symbols[:-1], symbols[1:], state, rng, entries)
    for name, n, error in checked:
        print_lines(f"{name}\t{n}\t{error:.2g}")
        errors[name] = error
    if wrong := [name for name, error in errors.items() if not error <= TOLERANCE]:
        raise GradientError(f"wrong gradient: {', '.join(wrong)}")
    largest = max(errors.values())
    print_message(f"all gradients are correct: largest relative error {largest:.2g}")
