"""The layouts of labelled lines: a TAB, fastText, CSV, JSON lines, a file for each class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from charrnn.errors import TextError

FASTTEXT_PREFIX = "__label__"


class Line(NamedTuple):
    """A text and what is to be learned from it; ``problem`` says why it is a bad line."""

    text: str
    target: str
    file: str
    number: int  # of the line, from 1
    problem: str = ""
    row: int = -1  # of the features, if there are any

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.number:,}"


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, without their ends."""
    lines = text.removeprefix("\ufeff").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def read_columns(text: str, file: str) -> Iterator[Line]:
    """Yield lines of a text, a TAB and what is to be learned. Empty lines are left out."""
    for number, line in enumerate(split_lines(text), 1):
        first, tab, second = line.partition("\t")
        if line:
            yield Line(first, second, file, number, "" if tab else "it has no TAB")


def read_captions(text: str, file: str) -> Iterator[Line]:
    """Yield what is to be written about each row of vectors; a TAB ends what is read first."""
    for number, line in enumerate(split_lines(text), 1):
        first, _, second = line.rpartition("\t")
        yield Line(first, second, file, number)


def read_fasttext(text: str, file: str) -> Iterator[Line]:
    """Yield lines of ``__label__x`` and a text."""
    for number, line in enumerate(split_lines(text), 1):
        label, _, rest = line.partition(" ")
        problem = ""
        if not label.startswith(FASTTEXT_PREFIX):
            problem = f"it does not begin with {FASTTEXT_PREFIX}"
        elif rest.startswith(FASTTEXT_PREFIX):
            problem = "it has several labels"
        if line:
            yield Line(rest, label.removeprefix(FASTTEXT_PREFIX), file, number, problem)


def read_class(text: str, file: str) -> Iterator[Line]:
    """Yield the lines of a file that is a class: the label is its name."""
    label = Path(file).name.partition(".")[0]
    for number, line in enumerate(split_lines(text), 1):
        if line:
            yield Line(line, label, file, number)


def read_csv(text: str, file: str, columns: str) -> Iterator[Line]:
    """Yield rows of a table with a head, by the names of two columns. Raises TextError."""
    delimiter = "\t" if ".tsv" in Path(file).suffixes else ","
    table = io.StringIO(text.removeprefix("\ufeff"), newline="")
    reader = csv.DictReader(table, delimiter=delimiter)
    first, second = columns.split(",")
    try:
        missing = [name for name in (first, second) if name not in (reader.fieldnames or [])]
        if missing:
            names = ", ".join(reader.fieldnames or [])
            raise TextError(f"{file}: has no column {missing[0]!r}; its first line names: {names}")
        for row in reader:
            values = row[first], row[second]
            problem = "it has too few columns" if None in values else ""
            yield Line(values[0] or "", values[1] or "", file, reader.line_num, problem)
    except csv.Error as e:
        raise TextError(f"{file}, line {reader.line_num:,}: not CSV ({e})") from None


def read_json(text: str, file: str, columns: str) -> Iterator[Line]:
    """Yield lines of one JSON object each, by the names of two of its keys."""
    names = columns.split(",")
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        values = [row.get(name) if isinstance(row, dict) else None for name in names]
        problem = "it is not a JSON object" if not isinstance(row, dict) else ""
        for name, value in zip(names, values, strict=True):
            if not problem and not isinstance(value, (str, int, float)):
                problem = f"it has no {name!r} that is a text or a number"
        first, second = ("" if value is None else str(value) for value in values)
        yield Line(first, second, file, number, problem)


def read_files(
    texts: list[tuple[str, str]],
    columns: str | None,
    by_file: bool,
    features: tuple[str, int] | None = None,
) -> list[Line]:
    """Return the lines of some files, (name, text) each, whatever their layout. Raises TextError.

    With ``by_file``, several files without any TAB are a class each. ``features`` are the name and
    the number of the rows of vectors that the lines are about.
    """
    found: list[Line] = []
    is_class = by_file and not any("\t" in text for _, text in texts)
    for file, text in texts:
        start = text.removeprefix("\ufeff").lstrip()
        if columns:
            read = read_json if start.startswith("{") else read_csv
            found += read(text, file, columns)
        elif features:
            found += read_captions(text, file)
        elif start.startswith(FASTTEXT_PREFIX):
            found += read_fasttext(text, file)
        else:
            found += read_class(text, file) if is_class else read_columns(text, file)
    if features:
        name, rows = features
        if len(found) != rows:
            names = ", ".join(file for file, _ in texts)
            raise TextError(f"{names}: {len(found):,} lines, but {name} has {rows:,} rows")
        found = [line._replace(row=row) for row, line in enumerate(found)]
    return found
