from __future__ import annotations

import os
from pathlib import Path

import click

from charrnn.cli.choice import find_checkpoint
from charrnn.cli.common import file_option, flag, force_option, last_option, write_output
from charrnn.cli.streams import print_message
from charrnn.errors import UsageError
from charrnn.formatting import format_count
from charrnn.storage.output import check_output


@click.command()
@click.argument("checkpoint")
@file_option("-o", "--output", help="Model file to write (.npz).")
@file_option("--html", help="Write a self-contained HTML page that runs the model in a browser.")
@flag(
    "--half",
    help="Store the weights of the model file as float16, which halves its size; a page always "
    "does.",
)
@flag("--no-counts", help="Leave out the n-grams of the training text, which --mix needs.")
@last_option
@force_option
def export(
    checkpoint: str,
    output: Path | None,
    html: Path | None,
    half: bool,
    no_counts: bool,
    last: bool,
    force: bool,
) -> None:
    """Export the model in CHECKPOINT, without its training state.

    A model file contains only the weights, the vocabulary, the configuration and the n-grams of the
    training text. A page contains the first three and writes text with them, offline.

    \b
      charrnn export checkpoints/play.npz -o verse.npz --half
      charrnn export checkpoints/play.npz --html verse.html
    """  # noqa: D301
    path = find_checkpoint(checkpoint)
    check_outputs(output, html, force, path)
    from charrnn.drawing.player import render_player
    from charrnn.model import load
    from charrnn.tasks.base import require_language_model

    # the page first: if the model cannot run in one, nothing is written
    model = load(path, last=last)
    if html is not None:
        require_language_model(model.config, str(path))
    page = render_player(model, path.stem).encode() if html is not None else b""
    if output is not None:
        model.save(output, half=half, counts=not no_counts, force=True)
        print_message(f"saved {output}, {format_count(output.stat().st_size, 'byte')}")
    if html is not None:
        write_output(html, page)


def check_outputs(output: Path | None, html: Path | None, force: bool, checkpoint: Path) -> None:
    """Raise UsageError unless a file can be written to each path, and there is one."""
    if output is None and html is None:
        raise UsageError("name a file to write: -o FILE for a model, --html FILE for a page")
    if output is not None and output.suffix.lower() in (".html", ".htm"):
        raise UsageError(f"-o writes a model file; for a page, use --html {output}")
    paths = [path for path in (output, html) if path is not None]
    if len({*map(os.path.realpath, paths)}) < len(paths):
        raise UsageError(f"-o and --html name the same file, {output}")
    for path in paths:
        check_output(path, force, [checkpoint])
