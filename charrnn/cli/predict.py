from __future__ import annotations

import codecs
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count
from charrnn.cli.streams import format_columns, print_lines, stdout
from charrnn.errors import TextError, UsageError
from charrnn.formatting import escape_control

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
@click.option(
    "--features",
    metavar="FILE",
    help="With a model of --features: a .npy file of vectors that the lines of FILE ask about.",
)
@common.json_option(help="Print one JSON object per line; docs/tasks.md lists the keys.")
@model_argument("[FILE]...", last=True)
def predict(
    model_file: ModelFile,
    files: list[str],
    top: int | None,
    beam: int | None,
    features: str | None,
    as_json: bool,
) -> None:
    """Predict the label, the tags or the text of each line of FILE.

    With a model of --features, FILE is a file of vectors: each row, or each sequence, is answered;
    or --features names it, and FILE has questions: line i is about row i, or each line begins with
    the index of its row and a TAB. What a line has after a (further) TAB is never shown to the
    model. Without FILE, or with -, read standard input and answer lines as they arrive. A label is
    printed with its probability.

    \b
      charrnn predict checkpoints/names.npz names.tsv
      echo Tanaka | charrnn predict checkpoints/names.npz --top 3
    """  # noqa: D301
    stdout()
    model = model_file.load(any_task=True)
    if features is not None and not model.state.features:
        raise UsageError("--features: the model reads none")
    if model.state.features and features is None and (not files or "-" in files):
        hint = "a file of vectors, or with --features the one that lines ask about"
        raise UsageError(f"the model reads features: give {hint}")
    if not files:
        common.check_stdin_once(["-"])
    options = {name: n for name, n in (("top", top), ("beam", beam)) if n is not None}
    check_task_options(model, options)
    for file in common.expand_folders(files or ["-"], model):
        for lines, rows in read_groups(model, file, features):
            for row in predict_lines(model, lines, rows, as_json, options):
                print_lines(row)
            stdout().flush()


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
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # it leaves out the mark at the start of a file
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


def read_groups(
    model: Model, file: str, features: str | None
) -> Iterator[tuple[list[str], Sequence[int] | None]]:
    """Yield groups of lines, and the rows that they are about, or None. Raises TextError.

    With ``features`` the lines are about their rows, otherwise empty ones are about those of FILE.
    """
    if not model.state.features:
        yield from ((lines, None) for lines in line_groups(file, model.encoding))
        return
    n = model.use_features(file if features is None else features)
    if features is not None:
        yield from read_questions(line_groups(file, model.encoding), file, (features, n))
        return
    for start in range(0, n, GROUP_LINES):
        rows = range(start, min(start + GROUP_LINES, n))
        yield [""] * len(rows), rows


def read_questions(
    groups: Iterable[list[str]], file: str, features: tuple[str, int]
) -> Iterator[tuple[list[str], list[int]]]:
    """Yield groups of lines without their indexes, and the row of each line. Raises TextError.

    ``features`` are as in ``read_files``.
    """
    from charrnn.tasks.layouts import Line, has_index, split_index
    from charrnn.text.files import display_name

    number, has_indexes = 0, False
    for lines in groups:
        texts, rows = [], []
        for line in lines:
            has_indexes = has_indexes or (number == 0 and has_index(line))
            about = line if has_indexes else f"{number}\t{line}"
            number += 1
            row, text, problem = split_index(about, *features)
            if problem:
                place = Line("", "", display_name(file), number).place
                raise TextError(escape_control(f"{place}: {problem}"))
            texts.append(text)
            rows.append(row)
        yield texts, rows


def predict_lines(
    model: Model,
    lines: list[str],
    rows: Sequence[int] | None,
    as_json: bool,
    options: dict[str, Any],
) -> Iterator[str]:
    """Yield the prediction for each line, as it is printed."""
    from charrnn.tasks.lines import load_line_task

    task = load_line_task(model.config)
    texts = [task.input_of(line) for line in lines]
    found = model.predict(texts, rows=rows, **options)
    for i, (text, prediction) in enumerate(zip(texts, found, strict=True)):
        if as_json:
            about = {} if rows is None else {"row": rows[i]}
            read = {"text": text} if text or not about else {}
            yield common.format_json({**about, **read, **task.row(prediction, **options)})
        else:
            yield format_columns(task.columns(prediction, **options))
