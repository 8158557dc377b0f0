"""``charrnn gradflow``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.common import split_arguments
from charrnn.config import Config
from charrnn.errors import UsageError

if TYPE_CHECKING:
    from charrnn.arrays import Array, Ids
    from charrnn.model import Model

CELLS = "vanilla", "gru", "lstm"


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[CHECKPOINT] CORPUS...")
@click.option(
    "--cell",
    "cells",
    type=click.Choice([*CELLS, "rnn"]),
    multiple=True,
    help="New cells to show; may be given several times [all three].",
)
@click.option("--hidden-size", type=click.IntRange(1, 65536), default=128, show_default=True, help="Their units.")
@click.option("--lags", type=click.IntRange(1), default=100, show_default=True, help="Steps to go back.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the new cells' weights.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw a picture too; its end says of what kind."
)
def gradflow(
    arguments: tuple[str, ...], cells: Sequence[str], hidden_size: int, lags: int, seed: int, plot: Path | None
) -> None:
    """Show how gradients vanish on their way back.

    Prints a table: the norm of the gradient of the loss at step T by the hidden state at step T - k, for each lag k,
    of CHECKPOINT, or of new cells of one size side by side.

    \b
      charrnn gradflow corpus.txt
      charrnn gradflow --cell vanilla --cell lstm --hidden-size 64 --lags 50 corpus.txt
      charrnn gradflow checkpoints/play.npz corpus.txt > flow.tsv
    """  # noqa: D301
    checkpoint, corpus = split_arguments(arguments)
    if checkpoint and cells:
        raise UsageError("a checkpoint has its own cell, and --cell is for new ones: give one of them")
    import numpy as np

    from charrnn.corpus import read as read_corpus
    from charrnn.gradients import encode_corpus, gradient_flow
    from charrnn.model import load
    from charrnn.neurons import ends_of_documents
    from charrnn.stack import Stack
    from charrnn.vocabulary import Vocabulary

    table: dict[str, Array] = {}

    def add(name: str, states: Sequence[str], norms: Array) -> None:
        for l in range(norms.shape[1]):
            for s, state in enumerate(states):
                layer, which = f" {l}" * (norms.shape[1] > 1), f" {state}" * (s > 0)
                table[name + layer + which] = norms[:, l, s]

    if checkpoint:
        model = load(checkpoint)
        ids, v = read(corpus, model), model.vocabulary
        norms = gradient_flow(model.stack, ids, v.start_id, lags, ends_of_documents(ids, v, model.by))
        add(checkpoint.stem, model.stack.cell.STATE_NAMES, norms)
    else:
        text = read_corpus(corpus)
        v = Vocabulary.counted(text.store.codes, text.store.counts)
        ids, _ = encode_corpus(text, v)
        for name in dict.fromkeys(Config(cell=cell).cell for cell in cells or CELLS):
            stack = Stack(name, len(v), hidden_size, 1, np.float64, np.random.default_rng(seed))
            add(name, stack.cell.STATE_NAMES, gradient_flow(stack, ids, v.start_id, lags))
    if plot:
        from charrnn.figures import plot_lines, save_figure

        series = {name: (np.arange(lags + 1), norms) for name, norms in table.items()}
        save_figure(plot_lines(series, "lag (steps)", "norm of the gradient", log_y=True), plot)
    click.echo("\t".join(["lag", *table]))
    for lag, row in enumerate(zip(*table.values(), strict=True)):
        click.echo("\t".join([str(lag), *(f"{norm:.4g}" for norm in row)]))


def read(paths: Sequence[str], model: Model) -> Ids:
    """Read a text for a model; tell how many of its symbols are left out, since the model does not know them."""
    from charrnn import corpus
    from charrnn.gradients import encode_corpus

    text = corpus.read(paths, unit=model.unit, by=model.by, encoding=model.encoding)
    ids, unknown = encode_corpus(text, model.vocabulary)
    if unknown:
        click.echo(f"charrnn: left out {unknown:,} symbols that the model does not know", err=True)
    return ids
