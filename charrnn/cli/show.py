"""``charrnn show``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from charrnn.cli.checkpoints import newest, parted
from charrnn.cli.threads import set_threads
from charrnn.errors import SaveError, UsageError, one_line, unsaved


@click.command()
@click.argument("paths", nargs=-1, metavar="[CHECKPOINT] FILE")
@click.option("-n", "--length", type=click.IntRange(1), default=5000, show_default=True, help="Characters, at most.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page instead, which needs no other file.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; without them a line of marks stands under each line. auto: on a terminal that has any.",
)
def show(paths: tuple[str, ...], length: int, html: Path | None, color: str) -> None:
    """Show how much each character of FILE surprises CHECKPOINT; - is standard input.

    Bits are -log2 of the probability that the model gave to the character, from those before it. Without a checkpoint
    (a name that ends in .npz) the newest run in ./checkpoints is taken, or else the example.

    \b
      charrnn show draft.txt
      charrnn show checkpoints/play.npz draft.txt --html surprise.html
      head -5 kernel.c | charrnn show - --color always | less -R
    """  # noqa: D301
    checkpoint, files = parted(paths)
    path = checkpoint or newest()
    if len(files) != 1:
        raise UsageError(f"give one FILE to show, not {len(files)}; - is standard input")
    if sys.stdout is None and html is None:  # the shell's >&-
        raise SaveError("standard output is closed")
    set_threads(1)

    from charrnn import shades, surprise
    from charrnn.corpus import read_text
    from charrnn.model import load

    model = load(path)
    text = read_text(files[0], model.unit, model.encoding)
    name = "standard input" if files[0] == "-" else files[0]
    if html is not None:
        page = shades.page(surprise.fragment(model, text, length), f"{name}, as {path} reads it")
        try:
            html.write_text(page, encoding="utf-8", newline="\n")
        except OSError as e:
            raise unsaved(html, e) from None
        click.echo(f"{html} written, {html.stat().st_size:,} bytes", err=True)
        return
    r = surprise.reading(model, text[:length])
    bits = colours(color)
    click.echo(f"charrnn: {path}; {one_line(name)}: {surprise.shown(text, length, r.bits)}", err=True)
    click.echo(shades.legend(shades.SURPRISE, bits), err=True, color=True)
    width = shutil.get_terminal_size().columns
    for line in shades.terminal(r.characters, r.bits.tolist(), shades.SURPRISE, bits, width):
        sys.stdout.buffer.write(line.encode())


def colours(color: str) -> int:
    """Return the bits of the colours that standard output can show: 24, 8, 4 or none."""
    term = os.environ.get("TERM", "dumb")
    if color == "never" or (
        color == "auto" and (os.environ.get("NO_COLOR") or term == "dumb" or not sys.stdout.isatty())
    ):
        return 0
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return 24
    return 8 if "256color" in term else 4
