from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, split_arguments
from charrnn.cli.common import Count
from charrnn.cli.streams import print_lines, stdout
from charrnn.config import CELL_ALIASES, CELLS, Config
from charrnn.errors import UsageError
from charrnn.storage.output import check_output

if TYPE_CHECKING:
    from charrnn.arrays import Array
    from charrnn.network import Network


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[CHECKPOINT] CORPUS...")
@click.option(
    "--cell",
    "cells",
    type=click.Choice([*CELLS, *CELL_ALIASES]),
    multiple=True,
    help="Untrained cell to measure; can be repeated [all of them].",
)
@click.option(
    "--hidden-size", type=Count(1, 65536), default=128, help="Hidden units of the untrained cells."
)
@click.option("--lags", type=Count(1, 2**20), default=100, help="Largest lag, in steps.")
@common.seed_option(default=0, help="Random seed for the weights of untrained cells.")
@common.file_option("--plot", help="Also plot the result to this file (.png, .svg or .pdf).")
@common.force_option
def gradflow(
    arguments: tuple[str, ...],
    cells: Sequence[str],
    hidden_size: int,
    lags: int,
    seed: int,
    plot: Path | None,
    force: bool,
) -> None:
    """Measure how gradients vanish over time.

    Print, for each lag k, the norm of the gradient of the loss at step T with respect to the
    hidden state at step T - k: for the model in CHECKPOINT, or for untrained cells of equal size,
    one column each.

    \b
      charrnn gradflow corpus.txt
      charrnn gradflow --cell vanilla --cell lstm --hidden-size 64 --lags 50 corpus.txt
      charrnn gradflow checkpoints/play.npz corpus.txt > flow.tsv
    """  # noqa: D301
    checkpoint, corpus = split_arguments(arguments)
    if checkpoint and cells:
        raise UsageError("--cell cannot be combined with CHECKPOINT")
    stdout()
    if plot is not None:
        check_output(plot, force, arguments)
    import numpy as np

    from charrnn.analysis.gradients import encode_corpus, gradient_flow
    from charrnn.network import Network
    from charrnn.text.batches import document_ends
    from charrnn.text.corpus import Corpus
    from charrnn.text.vocabulary import Vocabulary

    columns: dict[str, Array] = {}
    if checkpoint:
        model = ModelFile(checkpoint).load()
        v = model.vocabulary
        ids = common.read_ids(corpus, model)
        separator_id = v.separator_id(model.documents)
        ends = None if separator_id is None else document_ends(ids, separator_id)
        norms = gradient_flow(model.network, ids, v.start_id, lags, ends)
        columns |= split_norms(norms, checkpoint.stem, model.network)
    else:
        text = Corpus("text", paths=corpus)
        v = Vocabulary.from_counts(text.store.codes, text.store.counts)
        ids, _ = encode_corpus(text, v)
        simplest_first = reversed(CELLS)
        for name in dict.fromkeys(Config(cell=cell).cell for cell in cells or simplest_first):
            network = Network(name, len(v), hidden_size, 1, np.float64, np.random.default_rng(seed))
            norms = gradient_flow(network, ids, v.start_id, lags)
            columns |= split_norms(norms, name, network)

    if plot:
        from charrnn.drawing.figures import plot_lines, save_figure

        series = {name: (np.arange(lags + 1), norms) for name, norms in columns.items()}
        save_figure(plot_lines(series, "lag (steps)", "norm of the gradient"), plot)
    print_lines("\t".join(["lag", *columns]))
    for lag, row in enumerate(zip(*columns.values(), strict=True)):
        print_lines("\t".join([str(lag), *(f"{norm:.4g}" for norm in row)]))


def split_norms(norms: Array, name: str, network: Network) -> dict[str, Array]:
    """Return the norms (lags + 1, L, S) of each layer and state, by name: ``play 1 c``."""
    columns = {}
    for layer in range(network.num_layers):
        for s, state in enumerate(network.cell.STATE_NAMES):
            label = f"{name} {layer}" if network.num_layers > 1 else name
            columns[f"{label} {state}" if s > 0 else label] = norms[:, layer, s]
    return columns
