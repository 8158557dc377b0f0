"""The lines of a text, each with what is to be learned from it, as a corpus."""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids
from charrnn.config import Config
from charrnn.errors import TextError, UsageError
from charrnn.formatting import escape_control, format_count
from charrnn.sequences import STEP, open_sequences, standardize_sequences
from charrnn.storage.state import FeaturesRecord, TaskRecord
from charrnn.tasks.layouts import Line, read_files
from charrnn.text import files
from charrnn.text.corpus import Corpus
from charrnn.text.units import Codes
from charrnn.vectors import Vectors, file_record, open_vectors, standardize

MAX_LINE_CHARACTERS = 4000  # a batch holds whole lines
SHOWN_BAD_LINES = 3
SPLIT_STREAM = 101  # of the random numbers of a seed


def new_record(outputs: list[str], per: str = "") -> TaskRecord:
    return TaskRecord(outputs=outputs, per=per, counts_bytes=0, weights=[])


class LineReader(ABC):
    """How a task reads its lines."""

    by_file = False  # a file may be a class

    def collect(self, lines: Sequence[Line]) -> TaskRecord:
        """Return the names of the outputs. Raises TextError."""
        return new_record([])

    def find_problem(self, line: Line, record: TaskRecord) -> str:
        """Return why a line cannot be learned from, or nothing."""
        return ""

    def stratum(self, line: Line) -> str:
        """Return the group of a line; every split has lines of each group in proportion."""
        return ""

    @abstractmethod
    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        """Return the codes that are read and their targets, (n,) each, below 0 for none.

        Targets are outputs, or codes if the record names none. With ``target`` None, they are not
        known, and 0 where the model is to predict.
        """


class Lines(Corpus):
    """The lines of some files, in the order of their splits.

    ``lines`` are those for training, for validation from ``split_offsets[0]`` on, and for testing
    from ``split_offsets[1]`` on. ``targets`` has one for each symbol of ``store``; ``ends`` are the
    ends of the lines in it. Raises TextError, for a bad line with its number.
    """

    def __init__(
        self,
        task: LineReader,
        name: str,
        config: Config,
        *texts: str | bytes,
        features: Path | NDArray[Any] | None = None,
        **options: Any,
    ) -> None:
        """Read the lines; ``features`` has a row of vectors for each, or a sequence of them."""
        if features is not None:
            check_reads_features(config)
        elif config.feature_input != "first":
            raise UsageError("--feature-input needs --features")
        self.task, self.config, self.features = task, config, features
        self.vectors: Vectors | None = None  # standardized by the training lines
        self._texts: list[tuple[str, str]] = []
        options["encoding"] = options.get("encoding", config.encoding)
        super().__init__(name, *texts, unit=config.unit, **options)

    def _add(self, chunks: Iterable[bytes], name: str, path: str | None = None) -> None:
        data = b"".join(chunks)
        self._hash.update(data)
        self._hash.update(b"\0%d" % len(data))
        self._texts.append((name, files.decode_bytes(data, name, self.encoding)))
        self._record_file(name, path, len(data), zlib.crc32(data))

    def _finish(self) -> None:
        """Find the bad lines, draw the splits, and store the symbols."""
        task, config = self.task, self.config
        by_file = task.by_file and len(self._texts) > 1
        rows, ends = self._open_features()
        about = None
        if rows is not None:
            about = self._features_name, len(rows if ends is None else ends)
        lines = read_files(self._texts, config.columns, by_file, about)
        if ends is not None:
            lines = add_sequences(lines, np.diff(ends, prepend=0))
        self._texts = []
        readable = [line for line in lines if not line.problem]
        if not readable:
            leave_out_bad(lines, config, self.notes)
        self.record = task.collect(readable)
        good = leave_out_bad(find_problems(lines, task, self.record), config, self.notes)
        if not good:
            raise TextError(f"{self.name}: has no line to learn from")
        self.record = task.collect(good)
        self.lines, self.split_offsets = draw_splits(good, task, config)
        pairs = [task.encode(line.text, line.target, self.record, self.unit) for line in self.lines]
        for codes, _ in pairs:
            self.store.append(codes)
        self.targets = np.concatenate([targets for _, targets in pairs])
        self.ends = np.cumsum([len(codes) for codes, _ in pairs])
        if rows is not None:
            train = np.array([line.row for line in self.lines[: self.split_offsets[0]]])
            path = str(self.features) if isinstance(self.features, Path) else None
            each = config.feature_input == "each"
            self.vectors = (
                standardize(rows, np.unique(train), path, each=each)
                if ends is None
                else standardize_sequences(rows, ends, train, path)
            )

    @property
    def _features_name(self) -> str:
        return str(self.features) if isinstance(self.features, Path) else "features"

    def _open_features(self) -> tuple[NDArray[Any] | None, Ids | None]:
        """Return the rows of vectors, or vectors and the ends of sequences, if there are any."""
        if self.features is None:
            return None, None
        if self.config.predict != "text":
            return open_sequences(self.features)
        rows = open_vectors(self.features)
        if rows.ndim == 2 and self.config.attention:
            reason = "--attention looks at regions: an array of (rows, regions, size)"
            raise TextError(f"{self._features_name}: has one vector in each row; {reason}")
        return rows, None

    def record_features(self) -> FeaturesRecord | None:
        """Return the features as a checkpoint records them."""
        if not self.vectors:
            return None
        _, *shape = self.vectors.rows.shape
        file = file_record(self.features) if isinstance(self.features, Path) else (None, 0, 0)
        return FeaturesRecord(file=file, rows=self.vectors.num_rows, shape=shape)

    def training_end(self, val_fraction: float, test_fraction: float) -> int:
        return int(self.ends[self.split_offsets[0 if val_fraction else 1] - 1])


def check_reads_features(config: Config) -> None:
    """Raise UsageError for a model that cannot read vectors."""
    if config.generative:
        reason = "what is learned there is to write the text of a label"
        raise UsageError(f"--generative does not read --features: {reason}")
    if config.unit == "word":
        raise UsageError("--unit word does not read --features: a sequence of vectors has no words")


def add_sequences(lines: Sequence[Line], lengths: Ids) -> list[Line]:
    """Return lines about sequences of vectors with the texts as which these are read."""
    found = []
    for line in lines:
        problem = "it has a text beside its vectors" if line.text else ""
        text = STEP * int(lengths[line.row])
        found.append(line._replace(text=text, problem=line.problem or problem))
    return found


def find_problems(lines: Sequence[Line], task: LineReader, record: TaskRecord) -> list[Line]:
    """Return the lines, the bad ones with their problem."""

    def problem_of(line: Line) -> str:
        longest, noun = max(len(line.text), len(line.target)), "characters"
        if line.is_sequence:
            longest, noun = len(line.text), "vectors"
        if line.problem:
            return line.problem
        if longest > MAX_LINE_CHARACTERS:
            return f"it has {longest:,} {noun}, more than {MAX_LINE_CHARACTERS:,}"
        if re.search("[\ud800-\udfff]", line.text + line.target):
            return "it has a lone surrogate, which is not a valid character"
        return task.find_problem(line, record)

    return [line._replace(problem=problem_of(line)) for line in lines]


def leave_out_bad(lines: Sequence[Line], config: Config, notes: list[str]) -> list[Line]:
    """Return the good lines, and note how many are bad.

    Raises TextError if there are bad ones and the options do not say to skip them.
    """
    bad = [line for line in lines if line.problem]
    shown = "; ".join(f"{line.place}: {line.problem}" for line in bad[:SHOWN_BAD_LINES])
    count = f"{format_count(len(bad), 'bad line')} of {len(lines):,}"
    if bad and not config.skip_bad:
        raise TextError(escape_control(f"{shown} ({count}); --skip-bad leaves such lines out"))
    if bad:
        notes.append(f"left out {count}: {shown}{'; ...' * (len(bad) > SHOWN_BAD_LINES)}")
    return [line for line in lines if not line.problem]


def draw_splits(
    lines: Sequence[Line], task: LineReader, config: Config
) -> tuple[list[Line], tuple[int, int]]:
    """Return lines in the order of their splits, and where validation and test begin.

    The lines are drawn at regular distances from a random order, sorted by ``task.stratum``. Those
    about the same row of vectors are drawn together: a picture is only in one split.
    """
    about: dict[int, list[Line]] = {}
    for i, line in enumerate(lines):
        about.setdefault(line.row if line.row >= 0 else -1 - i, []).append(line)
    groups = [*about.values()]
    rng = np.random.default_rng([config.seed, SPLIT_STREAM])
    shuffled = rng.permutation(len(groups)).tolist()
    order = sorted(shuffled, key=lambda i: task.stratum(groups[i][0]))
    part = np.zeros(len(groups), int)
    start = rng.random()
    for number, fraction in ((1, config.val_fraction), (2, config.test_fraction)):
        # every 1 / fraction-th of those that are left
        rest = [i for i in order if part[i] == 0]
        share = fraction * len(groups) / max(len(rest), 1)
        marks = np.floor(start + share * np.arange(len(rest) + 1))
        part[np.array(rest, int)[np.diff(marks) > 0]] = number
    parts: list[list[Line]] = [[], [], []]
    for group, p in zip(groups, part, strict=True):
        parts[p] += group
    if not parts[0]:
        raise TextError("no lines left for training; lower --val-fraction or --test-fraction")
    a, b = len(parts[0]), len(parts[0]) + len(parts[1])
    return [*parts[0], *parts[1], *parts[2]], (a, b)
