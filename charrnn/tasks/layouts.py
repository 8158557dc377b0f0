"""The layouts of labelled lines: a TAB, fastText, CSV, JSON lines, a file for each class."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from charrnn.errors import TextError

FASTTEXT_PREFIX = "__label__"
INDEX = re.compile("([0-9]+)\t")
MAX_INDEX_DIGITS = 18  # int() refuses thousands


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

    @property
    def is_sequence(self) -> bool:
        """Whether the text stands for a sequence of vectors; see ``sequences``."""
        return self.row >= 0 and self.text != "" and not self.text.strip("\n")


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


def read_captions(text: str, file: str, features: tuple[str, int] | None) -> Iterator[Line]:
    """Yield what is to be written about rows of vectors; a TAB ends what is read first.

    With ``features``, as in ``read_files``, each line begins with the index of its row.
    """
    for number, line in enumerate(split_lines(text), 1):
        row, rest, problem = split_index(line, *features) if features else (-1, line, "")
        first, tab, second = rest.partition("\t")
        first, second = (first, second) if tab else ("", first)
        yield Line(first, second, file, number, problem, row)


def has_index(text: str) -> bool:
    """Return whether the first line of a text begins with the index of a row of vectors."""
    return INDEX.match(text.removeprefix("\ufeff")) is not None


def split_index(line: str, name: str, rows: int) -> tuple[int, str, str]:
    """Return the index of a line, what follows it, and why the index is bad, if it is."""
    found = INDEX.match(line)
    if not found:
        return -1, line, "it does not begin with the index of a row and a TAB"
    digits, rest = found[1].lstrip("0") or "0", line[found.end() :]
    if len(digits) > MAX_INDEX_DIGITS or int(digits) >= rows:
        shown = digits[:MAX_INDEX_DIGITS] + "..." * (len(digits) > MAX_INDEX_DIGITS)
        return -1, rest, f"there is no row {shown}: {name} has rows 0 to {rows - 1:,}"
    return int(digits), rest, ""


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
    the number of the rows of vectors that the lines are about: line i is about row i, or if the
    first line begins with an index, each line is about the row of its index.
    """
    found: list[Line] = []
    is_class = by_file and not any("\t" in text for _, text in texts)
    has_indexes = bool(features) and not columns and has_index(texts[0][1])
    for file, text in texts:
        start = text.removeprefix("\ufeff").lstrip()
        if columns:
            read = read_json if start.startswith("{") else read_csv
            found += read(text, file, columns)
        elif features:
            found += read_captions(text, file, features if has_indexes else None)
        elif start.startswith(FASTTEXT_PREFIX):
            found += read_fasttext(text, file)
        else:
            found += read_class(text, file) if is_class else read_columns(text, file)
    if features and not has_indexes:
        name, rows = features
        if len(found) != rows:
            names = ", ".join(file for file, _ in texts)
            raise TextError(f"{names}: {len(found):,} lines, but {name} has {rows:,} rows")
        found = [line._replace(row=row) for row, line in enumerate(found)]
    return found
