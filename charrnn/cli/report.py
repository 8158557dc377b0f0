from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.choice import find_checkpoint
from charrnn.cli.common import force_option, read_splits, write_output
from charrnn.cli.streams import stdout
from charrnn.errors import CharrnnError, CheckpointError
from charrnn.storage.checkpoint import read_state
from charrnn.storage.output import check_output

if TYPE_CHECKING:
    from charrnn.drawing.lines_report import Predictions
    from charrnn.model import Model
    from charrnn.tasks.layouts import Line

MAX_LINES, SHOWN_MISTAKES = 5000, 20


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
    per-character surprisal, gate saturation, and what is needed to reproduce the run. Of a model of
    labels, tags or texts it has the measures, the confusion matrix, and what is most wrong.

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
    from charrnn.model import load

    model = load(run)
    page = render_line_model(model, run) if model.state.task else render_text(model, run)
    data = page.encode("utf-8", "backslashreplace")
    if out is not None:
        out.write(data)
    else:
        write_output(path, data)


def render_text(model: Model, path: Path) -> str:
    """Return the report of a language model."""
    from charrnn.drawing.report import render_report

    text: str | bytes = ""
    missing = ""  # the reason if there is no text
    try:
        text = read_splits(model.state, path).val.text(model.vocabulary)
    except CharrnnError as e:
        missing = str(e)
    return render_report(model, text, missing)


def render_line_model(model: Model, path: Path) -> str:
    """Return the report of a model of labels, tags or texts."""
    from charrnn.drawing.lines_report import render_lines_report
    from charrnn.storage.state import State
    from charrnn.training.splits import find_features

    assert isinstance(model.state, State)
    found, missing = None, "the run has no test or validation split"
    try:
        splits = read_splits(model.state, path)
    except CharrnnError as e:
        missing = str(e)
    else:
        if features := find_features(model.state, path):
            model.use_features(features)
        split, name = (splits.test, "test") if splits.test.lines else (splits.val, "validation")
        if split.lines:
            found = predict_split(model, split.lines, f"{name} split")
    return render_lines_report(model.state, found, missing)


def predict_split(model: Model, lines: Sequence[Line], name: str) -> Predictions:
    from charrnn.cli.eval_lines import mistake_table
    from charrnn.drawing.lines_report import Predictions
    from charrnn.tasks.lines import load_line_task, texts_and_rows

    task = load_line_task(model.config)
    if len(lines) > MAX_LINES:
        name, lines = f"first {MAX_LINES:,} lines of the {name}", lines[:MAX_LINES]
    texts, rows = texts_and_rows(lines)
    predictions = model.predict(texts, rows=rows or None)
    mistakes = mistake_table(task, task.find_mistakes(predictions, lines, SHOWN_MISTAKES))
    return Predictions(name, task.details(predictions, lines), mistakes)
