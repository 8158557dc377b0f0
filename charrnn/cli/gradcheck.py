"""``charrnn gradcheck``."""

from __future__ import annotations

import click

from charrnn.cli.checkpoints import newest, parted
from charrnn.cli.gradflow import read
from charrnn.cli.threads import set_threads
from charrnn.errors import GradientError, TextError

T, B = 16, 3  # a window of the text: every entry takes two passes over it


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[CHECKPOINT] CORPUS...")
@click.option("--entries", type=click.IntRange(1), default=50, show_default=True, help="Compared of each parameter.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the entries and the state.")
def gradcheck(arguments: tuple[str, ...], entries: int, seed: int) -> None:
    """Check the gradients of CHECKPOINT on CORPUS.

    Against central differences. Prints each parameter, how many entries were compared and the worst relative error.
    Exit code 6 if one is above 0.0001. Without a checkpoint the newest run in ./checkpoints is taken, or else the
    example.

    \b
      charrnn gradcheck checkpoints/play.npz corpus.txt
    """  # noqa: D301
    set_threads(1)
    import numpy as np

    from charrnn.gradients import TOLERANCE, check_gradients
    from charrnn.model import load

    checkpoint, corpus = parted(arguments)
    model = load(checkpoint or newest())
    ids, rng = read(corpus, model), np.random.default_rng(seed)
    if len(ids) < 2:
        raise TextError("fewer than two characters of the text are known to the model: there is nothing to foresee")
    steps = min(T, len(ids) - 1)
    starts = np.linspace(0, len(ids) - 1 - steps, B).astype(int)
    both = ids[starts + np.arange(steps + 1)[:, None]]
    state = rng.uniform(-1, 1, model.stack.zero_state(B).shape)
    worst = {}
    for name, n, error in check_gradients(model.stack, both[:-1], both[1:], state, rng, entries):
        click.echo(f"{name}\t{n}\t{error:.2g}")
        worst[name] = error
    wrong = [name for name, error in worst.items() if not error <= TOLERANCE]
    if wrong:
        raise GradientError(f"the gradient is wrong of: {', '.join(wrong)}")
    click.echo(f"every gradient is right: the worst relative error is {max(worst.values()):.2g}", err=True)
