"""``charrnn eval`` of a model that predicts a label, tags or a text for each line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.cli import common
from charrnn.cli.streams import format_columns, print_lines, print_message
from charrnn.errors import CharrnnError, UsageError
from charrnn.formatting import format_count, format_measures

if TYPE_CHECKING:
    from charrnn.model import Model
    from charrnn.tasks.layouts import Line
    from charrnn.tasks.line_corpus import Lines
    from charrnn.tasks.lines import LineTask, Mistake


def evaluate_lines(
    path: Path,
    model: Model,
    files: list[str],
    split: str | None,
    wrong: int,
    as_json: bool,
    options: dict[str, Any],
    features: str | None,
) -> None:
    """Print what the model reaches on each file, or on a split of its run, and simple methods.

    The ``wrong`` lines that are most wrong follow.
    """
    from charrnn.tasks.lines import load_line_task, texts_and_rows

    check_features(model, features, files)
    task, corpus = load_line_task(model.config), run_lines(model, path, split)
    train = corpus.lines[: corpus.split_offsets[0]] if corpus else []
    for name, lines in read_parts(path, model, corpus, files, split, features):
        started = time.perf_counter()
        parts = task.predict_parts(model.predictor, *texts_and_rows(lines), **options)
        rate = len(lines) / max(time.perf_counter() - started, 1e-9)
        measured = {part: task.measure(found, lines) for part, found in parts.items()}
        predictions, measures = parts["model"], measured.pop("model")
        measures |= task.measure_loss(model.predictor, lines)
        others = {**(task.measure_baselines(train, lines) if train else {}), **measured}
        mistakes = task.find_mistakes(predictions, lines, wrong)
        if as_json:
            row = {"file": name, "lines": len(lines), **measures, "lines_per_second": rate}
            row |= {"others": others, **task.detail_row(predictions, lines)}
            if wrong:
                row["wrong"] = [mistake_row(task, mistake) for mistake in mistakes]
            print_lines(common.format_json(row))
            continue
        count = format_count(len(lines), "line")
        print_lines(f"{name}: {format_measures(measures)}; {count}, {rate:,.0f} per second")
        for method, of_method in others.items():
            print_lines(f"{name}: {method}: {format_measures(of_method)}")
        print_lines(*map(format_columns, task.details(predictions, lines)))
        if wrong:
            print_lines(*map(format_columns, mistake_table(task, mistakes)))


def mistake_row(task: LineTask, mistake: Mistake) -> dict[str, Any]:
    """Return a line that is wrong as a JSON object."""
    line, predicted, error = mistake
    read: dict[str, Any] = {} if line.is_sequence else {"text": line.text}
    read |= {"row": line.row} if line.row >= 0 else {}
    row = {"target": line.target, "predicted": predicted, "file": line.file, "line": line.number}
    return {**read, **row, task.error_name.replace(" ", "_"): error}


def mistake_table(task: LineTask, mistakes: Sequence[Mistake]) -> list[list[str]]:
    """Return lines that are wrong as the rows of a table, after the names of its columns."""
    rows = [[f"{m.error:.4g}", read_of(m.line), m.line.target, m.predicted] for m in mistakes]
    return [[task.error_name, "text", "right", "predicted"], *rows]


def read_of(line: Line) -> str:
    """Return what was read of a line, for the user: the row of its vectors, and its text."""
    row = [f"row {line.row}"] if line.row >= 0 else []
    return " ".join([*row, *([] if line.is_sequence or not line.text else [line.text])])


def check_features(model: Model, features: str | None, files: list[str]) -> None:
    """Raise UsageError unless features are given if the model reads them in some files."""
    if features and not (model.state.features and files):
        reason = "a split has its own" if model.state.features else "the model reads none"
        raise UsageError(f"--features: {reason}")
    if files and model.state.features and not features:
        raise UsageError("the model reads features: give those of FILE with --features")


def run_lines(model: Model, path: Path, split: str | None) -> Lines | None:
    """Return the lines of the run, or None if its text cannot be read again.

    Raises CheckpointError or TextError if a split of it is to be evaluated.
    """
    from charrnn.tasks.line_corpus import Lines
    from charrnn.training.splits import text_of

    try:
        corpus, _ = text_of(model.state, path)
    except CharrnnError as e:
        if split:
            raise
        print_message(f"charrnn: no baselines: {e}")
        return None
    assert isinstance(corpus, Lines)
    return corpus


def read_parts(
    path: Path,
    model: Model,
    corpus: Lines | None,
    files: list[str],
    split: str | None,
    features: str | None,
) -> Iterator[tuple[str, list[Line]]]:
    """Yield the name and the lines of the split, or of each file. Raises TextError, UsageError."""
    from charrnn.tasks.lines import read_labelled_file

    about = (features, model.use_features(features)) if features else None
    for file in common.expand_folders(files, model):
        task, vectors = model.state.task, model.network.vectors
        yield file, read_labelled_file(file, model.config, task, about, vectors)
    if split and corpus:
        if corpus.features:
            model.use_features(corpus.features)
        a, b = corpus.split_offsets
        lines = corpus.lines[a:b] if split == "val" else corpus.lines[b:]
        if not lines:
            raise UsageError(f"{path}: the run has no {split} split of its lines")
        yield f"{split} split", lines


def parse_options(mix: bool | None, adapt: bool, beam: int | None) -> dict[str, Any]:
    """Return the options of the predictions. Raises UsageError for those of language models."""
    for name, value in (("--mix", mix), ("--adapt", adapt)):
        if value:
            raise UsageError(f"{name} is for language models, which predict the next symbol")
    return {} if beam is None else {"beam": beam}
