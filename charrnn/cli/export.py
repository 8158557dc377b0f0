"""``charrnn export``."""

from __future__ import annotations

from pathlib import Path

import click

from charrnn.errors import UsageError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option("--half", is_flag=True, help="Store the weights as float16: half the size.")
@click.option("--last", is_flag=True, help="Take the last weights, not the best.")
@click.option("--force", is_flag=True, help="Overwrite a file that exists.")
def export(run: Path, output: Path, half: bool, last: bool, force: bool) -> None:
    """Write the weights of RUN for passing on.

    The file holds weights, vocabulary and configuration alone.

    \b
      charrnn export checkpoints/play.npz -o verse.npz --half
    """  # noqa: D301
    from charrnn.model import load

    if output.exists() and not force:
        raise UsageError(f"{output} exists already; --force overwrites it")
    load(run, last=last).save(output, half=half)
    click.echo(f"{output} written, {output.stat().st_size:,} bytes", err=True)
