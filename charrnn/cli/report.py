"""``charrnn report``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from charrnn.cli.eval import own, trained
from charrnn.errors import CharrnnError, CheckpointError, SaveError, UsageError, one_line, unsaved


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", help="The page to write; - is standard output [RUN.html].")
@click.option("--force", is_flag=True, help="Overwrite a file that exists.")
def report(run: Path, output: str | None, force: bool) -> None:
    """Tell of RUN on one HTML page.

    The page holds all it needs: the curve, the baseline, samples from noise to words and at four temperatures, what
    surprises the model, its gates, and how to make the run again.

    \b
      charrnn report checkpoints/play.npz -o play.html --force
    """  # noqa: D301
    path = Path(output or f"{run.stem}.html")
    if output == "-":
        if sys.stdout is None:  # the shell's >&-
            raise SaveError("standard output is closed")
    elif path.exists() and not force:
        raise UsageError(f"{path} exists already; --force overwrites it")
    from charrnn.model import load
    from charrnn.report import page

    model = load(run)
    text: str | bytes = ""
    missing = ""
    if model.header["kind"] != "run":
        raise CheckpointError(f"{run}: weights alone, without the run that a report tells of")
    try:
        text = own(trained(run, model), model, "val")
    except CharrnnError as e:
        missing = str(e)
    data = page(model, text, missing).encode("utf-8", "backslashreplace")
    if output == "-":
        sys.stdout.buffer.write(data)
    else:
        try:
            path.write_bytes(data)
        except OSError as e:
            raise unsaved(path, e) from None
    click.echo(one_line(f"{'standard output' if output == '-' else path}: written, {len(data):,} bytes"), err=True)
