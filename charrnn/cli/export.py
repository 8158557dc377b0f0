from __future__ import annotations

from pathlib import Path

import click

from charrnn.cli.common import file_option, flag, force_option, last_option
from charrnn.cli.streams import print_message
from charrnn.formatting import format_count
from charrnn.storage.output import check_output


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@file_option("-o", "--output", required=True, help="File to write.")
@flag("--half", help="Store the weights as float16, which halves the file size.")
@last_option
@force_option
def export(checkpoint: Path, output: Path, half: bool, last: bool, force: bool) -> None:
    """Export the model in CHECKPOINT, without its training state.

    The file contains only the weights, the vocabulary and the configuration.

    \b
      charrnn export checkpoints/play.npz -o verse.npz --half
    """  # noqa: D301
    from charrnn.model import load

    check_output(output, force, [checkpoint])
    load(checkpoint, last=last).save(output, half=half)
    print_message(f"saved {output}, {format_count(output.stat().st_size, 'byte')}")
