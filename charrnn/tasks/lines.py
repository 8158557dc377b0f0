"""The base of the tasks that learn something from each line of a text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.config import Config
from charrnn.errors import TextError, UsageError
from charrnn.scoring import target_log_probs
from charrnn.sequences import Sequences
from charrnn.storage.checkpoint import output_names
from charrnn.storage.state import FeaturesRecord, TaskRecord
from charrnn.tasks.base import Measures, Predictor, Task, load_task
from charrnn.tasks.layouts import FASTTEXT_PREFIX, Line, read_files
from charrnn.tasks.line_corpus import (
    LineReader,
    Lines,
    add_sequences,
    find_problems,
    leave_out_bad,
)
from charrnn.tasks.split import Split, Splits
from charrnn.text import files
from charrnn.text.corpus import Corpus, EncodedSlice, SymbolStore
from charrnn.text.units import END_OF_DOCUMENT, Codes
from charrnn.text.vocabulary import Vocabulary
from charrnn.vectors import MarkedSlice, Vectors

END = np.array([END_OF_DOCUMENT], np.uint32)


def load_line_task(config: Config) -> LineTask:
    """Return the task of a run. Raises UsageError if it does not read lines."""
    task = load_task(config)
    if not isinstance(task, LineTask):
        raise UsageError("a language model predicts no labels, tags or texts: use charrnn sample")
    return task


class Encoded(NamedTuple):
    """Some lines, one after the other: their symbols, n in all, and the targets."""

    ids: Ids  # (n,)
    targets: Ids  # (n,), below 0 where there is none
    ends: Ids  # of the lines


class Mistake(NamedTuple):
    """A line whose prediction is wrong, and how wrong, as ``LineTask.error`` measures it."""

    line: Line
    predicted: str
    error: float


class LineTask(LineReader, Task):
    """A task that reads lines: a text, and what is to be learned from it."""

    error_name = "error"  # what ``error`` measures
    options: tuple[str, ...] = ()  # of ``predict``, beyond the lines

    # --- what a task defines ---

    @abstractmethod
    def predict(self, predictor: Predictor, texts: Sequence[str], **options: Any) -> list[Any]:
        """Return what the model predicts for each text."""

    @abstractmethod
    def measure(self, predictions: Sequence[Any], lines: Sequence[Line]) -> Measures:
        """Return how good predictions are."""

    @abstractmethod
    def columns(self, prediction: Any, **options: Any) -> list[str]:
        """Return a prediction as the columns of a table."""

    @abstractmethod
    def row(self, prediction: Any, **options: Any) -> dict[str, Any]:
        """Return a prediction as a JSON object."""

    def measure_loss(self, predictor: Predictor, lines: Sequence[Line]) -> Measures:
        """Return the loss of some lines, if it is not among the measures."""
        return {}

    def details(self, predictions: Sequence[Any], lines: Sequence[Line]) -> list[list[str]]:
        """Return further rows for the user on how good predictions are."""
        return []

    def detail_row(self, predictions: Sequence[Any], lines: Sequence[Line]) -> dict[str, Any]:
        """Return the same as a part of a JSON object."""
        return {}

    def error(self, prediction: Any, line: Line) -> float:
        """Return how wrong a prediction is; 0 if it is right."""
        return 0.0

    def measure_baselines(self, train: Sequence[Line], test: Sequence[Line]) -> dict[str, Measures]:
        """Return what simple methods reach on some lines once they have read others."""
        return {}

    def input_of(self, line: str) -> str:
        """Return what the model may see of a line."""
        text, tab, _ = line.partition("\t")
        if self.by_file and not tab and text.startswith(FASTTEXT_PREFIX):
            text = text.partition(" ")[2]
        return text

    # --- what they share ---

    def read(self, name: str, config: Config, *texts: str | bytes, **files: Any) -> Lines:
        return Lines(self, name, config, *texts, **files)

    def measure_corpus_baselines(self, corpus: Corpus) -> dict[str, Measures]:
        """Return what simple methods reach on the test split, or else the validation split."""
        assert isinstance(corpus, Lines)
        a, b = corpus.split_offsets
        test = corpus.lines[b:] or corpus.lines[a:]
        return self.measure_baselines(corpus.lines[:a], test) if test else {}

    def record_of(self, corpus: Corpus) -> TaskRecord:
        assert isinstance(corpus, Lines)
        return corpus.record

    def record_features(self, corpus: Corpus) -> FeaturesRecord | None:
        assert isinstance(corpus, Lines)
        return corpus.record_features()

    def encode_lines(
        self, texts: Iterable[tuple[str, str | None]], record: TaskRecord, vocabulary: Vocabulary
    ) -> Encoded:
        """Return texts with their targets; an unknown symbol is read as the end of a line."""
        pairs = []
        for text, target in texts:
            pair = self.encode(text, target, record, vocabulary.unit)
            pairs.append(join_words(text, *pair, vocabulary) if vocabulary.unit == "word" else pair)
        codes, targets = (np.concatenate([np.empty(0, int), *p]) for p in zip(*pairs, strict=True))
        ids, ends = known_ids(vocabulary, codes), np.cumsum([len(codes) for codes, _ in pairs])
        return Encoded(ids, target_ids(targets, record, vocabulary), ends)

    def log_probs(
        self, predictor: Predictor, texts: Sequence[str], rows: Sequence[int] = ()
    ) -> Array:
        """Return log p of every output where the model is to predict, (m, O)."""
        network, v, record, _ = predictor
        pairs = [(text, None) for text in texts]
        ids, targets, ends = self.encode_lines(pairs, record, v)
        if network.vectors and len(texts):
            ids = network.vectors.mark(ids, ends, np.array(rows), len(v))
        return target_log_probs(network, ids, targets, ends)

    def find_mistakes(
        self, predictions: Sequence[Any], lines: Sequence[Line], n: int
    ) -> list[Mistake]:
        """Return the n predictions that are most wrong, the worst first."""
        pairs = list(zip(predictions, lines, strict=True))
        found = [Mistake(line, self.columns(p)[0], self.error(p, line)) for p, line in pairs]
        wrong = [mistake for mistake in found if mistake.error > 0]
        return sorted(wrong, key=lambda mistake: -mistake.error)[:n]

    def make_splits(
        self, corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
    ) -> Splits:
        """Return the splits that the corpus has drawn."""
        assert isinstance(corpus, Lines)
        record, (a, b) = corpus.record, corpus.split_offsets
        val_lines = corpus.lines[a:b]
        if isinstance(val, Lines):  # then those drawn for validation are for training, too
            val_lines, a = val.lines, b
        ends = corpus.ends[:a]
        if vocabulary.unit == "word":  # the corpus has characters
            train_lines = [(line.text, line.target) for line in corpus.lines[:a]]
            ids, targets, ends = self.encode_lines(train_lines, record, vocabulary)
            store = SymbolStore()
            store.append(ids.astype(np.uint32))
            store.finalize()
            train = EncodedSlice(store, store.codes.astype(np.intp), 0, len(ids))
        else:
            end, table = int(ends[-1]), known_ids(vocabulary, corpus.store.codes)
            train = EncodedSlice(corpus.store, table, 0, end)
            targets = target_ids(corpus.targets[:end], record, vocabulary)
        if vectors := corpus.vectors:
            rows, V = np.array([line.row for line in corpus.lines[:a]]), len(vocabulary)
            train = MarkedSlice(train.store, train.ids, 0, train.stop, vectors, ends, rows, V)
        val_split, test_split = (
            self.make_split(part, record, vocabulary, corpus.vectors)
            for part in (val_lines, corpus.lines[b:])
        )
        count = int((targets >= 0).sum())
        return Splits(train, count, ends, val_split, test_split, targets)

    def make_split(
        self,
        lines: Sequence[Line],
        record: TaskRecord,
        vocabulary: Vocabulary,
        vectors: Vectors | None = None,
    ) -> Split:
        if not lines:
            none = np.empty(0, np.intp)
            return Split(none, none, 0, None, 0, none, none, ())
        pairs = [(line.text, line.target) for line in lines]
        ids, targets, ends = self.encode_lines(pairs, record, vocabulary)
        if vectors:
            rows = np.array([line.row for line in lines])
            ids = vectors.mark(ids, ends, rows, len(vocabulary))
        count = int((targets >= 0).sum())
        return Split(ids, ids[:0], count, None, 0, targets, ends, tuple(lines))

    def measure_split(self, predictor: Predictor, split: Split) -> dict[str, Measures]:
        if not split.lines:
            return {}
        parts = self.predict_parts(predictor, *texts_and_rows(split.lines))
        return {name: self.measure(part, split.lines) for name, part in parts.items()}

    def predict_parts(
        self, predictor: Predictor, texts: Sequence[str], rows: Sequence[int] = (), **options: Any
    ) -> dict[str, list[Any]]:
        """Return the predictions of the model, and those of the network alone if it is mixed.

        ``rows`` are those of the vectors, if the network reads any.
        """
        options |= {"rows": rows} if rows else {}
        parts = {"model": self.predict(predictor, texts, **options)}
        if predictor.record["weights"]:
            alone = predictor._replace(record={**predictor.record, "weights": []})
            parts = {"network alone": self.predict(alone, texts, **options), **parts}
        return parts


def join_words(
    text: str, codes: Codes, targets: NDArray[np.int64], vocabulary: Vocabulary
) -> tuple[Codes, NDArray[np.int64]]:
    """Return the symbols of words, and their targets, for a text as characters and an end.

    The target of a word, a number, blanks or a mark is that of its last character. It is at the
    last symbol.
    """
    encoded = vocabulary.read(text)
    is_last = np.diff(encoded.piece, append=-1) != 0
    of_words = np.where(is_last, targets[encoded.last_character], -1)
    return np.append(encoded.codes, codes[-1]), np.append(of_words, targets[-1])


def texts_and_rows(lines: Sequence[Line]) -> tuple[list[str], list[int]]:
    """Return what is read of some lines; there are no rows if they are about no vectors."""
    return [line.text for line in lines], [line.row for line in lines if line.row >= 0]


def known_ids(vocabulary: Vocabulary, codes: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Return the ids of codes; an unknown symbol is read as the end of a line."""
    ids = vocabulary.ids_of(codes.astype(np.uint32))
    return np.where(ids < 0, vocabulary.start_id, ids)


def target_ids(targets: Ids, record: TaskRecord, vocabulary: Vocabulary) -> Ids:
    """Return targets as outputs: they are, or they are codes."""
    if output_names(record):
        return targets.astype(np.intp)
    return np.where(targets < 0, -1, known_ids(vocabulary, targets.clip(0)))


def read_labelled_file(
    file: str,
    config: Config,
    record: TaskRecord | None,
    features: tuple[str, int] | None = None,
    vectors: Vectors | None = None,
) -> list[Line]:
    """Return the lines of a file for a model with these options. Raises TextError.

    ``features`` are as in ``read_files``, ``vectors`` what they name.
    """
    task, name = load_line_task(config), files.display_name(file)
    assert record
    text = files.decode_bytes(files.read_file(file), file, config.encoding)
    is_class = task.by_file and Path(file).name.partition(".")[0] in record["outputs"]
    notes: list[str] = []
    lines = read_files([(name, text)], config.columns, is_class, features)
    if isinstance(vectors, Sequences):
        lines = add_sequences(lines, vectors.lengths)
    good = leave_out_bad(find_problems(lines, task, record), config, notes)
    if not good:
        raise TextError(f"{name}: has no line to evaluate")
    return good
