from __future__ import annotations

import codecs
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count
from charrnn.cli.streams import format_columns, print_lines, stdout
from charrnn.errors import TextError, UsageError

if TYPE_CHECKING:
    from charrnn.model import Model

GROUP_LINES = 1024  # predicted together, if as many are there


@click.command()
@click.option(
    "--top",
    type=Count(1),
    help="Print the N most likely labels, each with its probability.",
)
@click.option(
    "--beam",
    type=Count(1, 1000),
    help="Search for the most likely text with a beam of N texts [1: greedy].",
)
@common.json_option(help="Print one JSON object per line; docs/tasks.md lists the keys.")
@model_argument("[FILE]...", last=True)
def predict(
    model_file: ModelFile, files: list[str], top: int | None, beam: int | None, as_json: bool
) -> None:
    """Predict the label, the tags or the text of each line of FILE.

    With a model of --features, FILE is a .npy file of vectors, and a text is written for each row.
    What a line has after a TAB is never shown to the model. Without FILE, or with -, read standard
    input and answer lines as they arrive. A label is printed with its probability.

    \b
      charrnn predict checkpoints/names.npz names.tsv
      echo Tanaka | charrnn predict checkpoints/names.npz --top 3
    """  # noqa: D301
    stdout()
    model = model_file.load(any_task=True)
    if not files:
        if model.state.features:
            raise UsageError("the model reads features: give a .npy file of vectors")
        common.check_stdin_once(["-"])
    options = {name: n for name, n in (("top", top), ("beam", beam)) if n is not None}
    check_task_options(model, options)
    if model.state.features:
        for file in files:
            for row in predict_rows(model, file, as_json, options):
                print_lines(row)
        return
    for file in common.expand_folders(files or ["-"], model):
        for lines in line_groups(file, model.encoding):
            for row in predict_lines(model, lines, as_json, options):
                print_lines(row)
            stdout().flush()


def predict_rows(model: Model, file: str, as_json: bool, options: dict[str, int]) -> Iterator[str]:
    """Yield what the model writes about each row of a file of vectors, as it is printed."""
    from charrnn.tasks.lines import load_line_task

    task, n = load_line_task(model.config), model.use_features(file)
    for start in range(0, n, GROUP_LINES):
        rows = range(start, min(start + GROUP_LINES, n))
        texts = [""] * len(rows)
        for row, found in zip(rows, model.predict(texts, rows=rows, **options), strict=True):
            fields = {"row": row, **task.row(found, **options)}
            yield common.format_json(fields) if as_json else format_columns(task.columns(found))


def check_task_options(model: Model, options: dict[str, int]) -> None:
    """Raise UsageError for a language model, and for an option that its task does not read."""
    from charrnn.tasks.lines import load_line_task

    task, name = load_line_task(model.config), model.config.predict
    for option in options:
        if option not in task.options:
            raise UsageError(f"--{option} is not for a model that predicts {name}")


def line_groups(file: str, encoding: str) -> Iterator[list[str]]:
    """Yield the lines of a file, as many at a time as have arrived. Raises TextError."""
    from charrnn.text.files import read_chunks

    chunks = read_arriving() if file == "-" else read_chunks(file)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    pending = ""
    for data in itertools.chain(chunks, [b""]):
        lines = (pending + decoder.decode(data, final=not data)).split("\n")
        pending = lines.pop()
        if not data and pending:
            lines, pending = [*lines, pending], ""
        for start in range(0, len(lines), GROUP_LINES):
            yield [line.removesuffix("\r") for line in lines[start : start + GROUP_LINES]]


def read_arriving() -> Iterator[bytes]:
    """Yield what has arrived on standard input. Raises TextError."""
    if sys.stdin is None:  # after the shell's <&-
        raise TextError("standard input is closed")
    buffer: Any = sys.stdin.buffer
    while data := buffer.read1(1 << 16):
        yield data


def predict_lines(
    model: Model, lines: list[str], as_json: bool, options: dict[str, int]
) -> Iterator[str]:
    """Yield the prediction for each line, as it is printed."""
    from charrnn.tasks.lines import load_line_task

    task = load_line_task(model.config)
    texts = [task.input_of(line) for line in lines]
    for text, prediction in zip(texts, model.predict(texts, **options), strict=True):
        if as_json:
            yield common.format_json({"text": text, **task.row(prediction, **options)})
        else:
            yield format_columns(task.columns(prediction, **options))
