from __future__ import annotations

from pathlib import Path

import click

from charrnn.cli.choice import find_checkpoint
from charrnn.cli.common import force_option, read_splits, write_output
from charrnn.cli.streams import stdout
from charrnn.errors import CharrnnError, CheckpointError
from charrnn.storage.checkpoint import read_state
from charrnn.storage.output import check_output


@click.command()
@click.argument("checkpoint")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="HTML file to write; - is standard output [CHECKPOINT.html in the current folder].",
)
@force_option
def report(checkpoint: str, output: str | None, force: bool) -> None:
    """Write a self-contained HTML report about the run in CHECKPOINT.

    It contains the loss curves, the baselines, samples from training and at four temperatures,
    per-character surprisal, gate saturation, and what is needed to reproduce the run.

    \b
      charrnn report checkpoints/play.npz -o play.html --force
    """  # noqa: D301
    run = find_checkpoint(checkpoint)
    if read_state(run).kind != "run":
        raise CheckpointError(f"{run}: an exported model; a report needs a training checkpoint")
    out = stdout().buffer if output == "-" else None
    path = Path(output or f"{run.stem}.html")
    if out is None:
        check_output(path, force, [run])
    from charrnn.drawing.report import render_report
    from charrnn.model import load
    from charrnn.tasks.base import require_language_model

    model = load(run)
    require_language_model(model.config, str(run))
    text: str | bytes = ""
    missing = ""  # the reason if there is no text
    try:
        text = read_splits(model.state, run).val.text(model.vocabulary)
    except CharrnnError as e:
        missing = str(e)
    data = render_report(model, text, missing).encode("utf-8", "backslashreplace")
    if out is not None:
        out.write(data)
    else:
        write_output(path, data)
