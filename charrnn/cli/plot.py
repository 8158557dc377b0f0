"""``charrnn plot``."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
from pathlib import Path

import click

from charrnn.cli.common import default_checkpoint
from charrnn.errors import SaveError, UsageError


@click.command()
@click.argument("run", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The picture to write: .png, .svg or .pdf.")
@click.option("--terminal", is_flag=True, help="Draw on standard output instead, without matplotlib.")
@click.option(
    "--x",
    type=click.Choice(["steps", "epochs", "characters", "seconds"]),
    default="steps",
    show_default=True,
    help="What the losses stand over.",
)
@click.option("--bits", is_flag=True, help="Losses in bits, not nats.")
def plot(run: tuple[Path, ...], output: Path | None, terminal: bool, x: str, bits: bool) -> None:
    """Draw the losses of each RUN.

    Training and validation loss, where the best weights are, and the best of the count models. Without a RUN the
    newest in ./checkpoints is taken.

    \b
      charrnn plot --terminal checkpoints/play.npz
      charrnn plot checkpoints/play.npz -o curve.png
    """  # noqa: D301
    if terminal == (output is not None):
        raise UsageError("-o FILE writes a picture, --terminal draws on standard output: give one of them")
    from charrnn import plots

    headers = plots.read(run or [default_checkpoint()])
    if output is not None:
        plots.write(plots.curves(headers, x, bits), output)
        click.echo(f"{output} written", err=True)
        return
    if sys.stdout is None:  # the shell's >&-
        raise SaveError("standard output is closed")
    unicode = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size((80, 24)).columns
    text = plots.terminal(headers, x, bits, width=width, unicode=unicode, colour=colour)
    click.echo(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding), nl=False)
