"""Labels by the likelihood of a text: one language model, given the label, and Bayes' rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.config import Config
from charrnn.loss import log_softmax
from charrnn.scoring import target_nll
from charrnn.storage.state import TaskRecord
from charrnn.tasks.base import Predictor
from charrnn.tasks.label import Label
from charrnn.tasks.layouts import Line
from charrnn.tasks.line_corpus import Lines
from charrnn.tasks.lines import END, Encoded
from charrnn.tasks.naive_bayes import SMOOTHING
from charrnn.tasks.split import Splits
from charrnn.text.corpus import Corpus, EncodedSlice
from charrnn.text.units import Codes, to_codes
from charrnn.text.vocabulary import Vocabulary

GROUP_PAIRS = 2**11  # of a text and a label, whose likelihoods are computed together


class Generative(Label):
    """Predict the label y with the highest p(y) p(text | y) (Yogatama et al., 2017).

    The network reads the label, as the first symbol, and then the text; the targets are the text
    and its end. p(y) is the share of the label among the training lines.
    """

    def collect(self, lines: Sequence[Line]) -> TaskRecord:
        return {**super().collect(lines), "shares": []}

    def record_of(self, corpus: Corpus) -> TaskRecord:
        assert isinstance(corpus, Lines)
        record, train = corpus.record, corpus.lines[: corpus.split_offsets[0]]
        counts = Counter(line.target for line in train)
        n = np.array([counts[label] + SMOOTHING for label in record["outputs"]])
        return {**record, "shares": (n / n.sum()).tolist()}

    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        """Return an end, in the place of the label, and the text; the targets of a known label."""
        codes = to_codes(text, unit)
        targets = np.concatenate([codes, END]).astype(np.int64)
        if target not in record["outputs"]:
            targets[:] = -1
        return np.concatenate([END, codes]), targets

    def encode_lines(
        self, texts: Iterable[tuple[str, str | None]], record: TaskRecord, vocabulary: Vocabulary
    ) -> Encoded:
        pairs = list(texts)
        ids, targets, ends = super().encode_lines(pairs, record, vocabulary)
        labels = label_ids([label for _, label in pairs], record, vocabulary)
        put_labels(ids, 0, starts_of(ends), labels)
        return Encoded(ids, targets, ends)

    def make_splits(
        self, corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
    ) -> Splits:
        splits = super().make_splits(corpus, val, config, vocabulary)
        assert isinstance(corpus, Lines)
        assert splits.document_ends is not None
        starts = starts_of(splits.document_ends)
        names = [line.target for line in corpus.lines[: len(starts)]]
        labels = label_ids(names, corpus.record, vocabulary)
        return splits._replace(
            train=LabelledSlice(**vars(splits.train), starts=starts, labels=labels)
        )

    def log_probs(
        self, predictor: Predictor, texts: Sequence[str], rows: Sequence[int] = ()
    ) -> Array:
        """Return log p of every label for each text, (n, C), by Bayes' rule."""
        labels = predictor.record["outputs"]
        log_prior, n = np.log(predictor.record["shares"]), max(1, GROUP_PAIRS // len(labels))
        groups = [self._likelihoods(predictor, texts[i : i + n]) for i in range(0, len(texts), n)]
        return log_softmax(log_prior + np.concatenate([np.zeros((0, len(labels))), *groups]))

    def _likelihoods(self, predictor: Predictor, texts: Sequence[str]) -> Array:
        """Return log p of each text given each label, (n, C): all of them are read in parallel."""
        network, vocabulary, record, _ = predictor
        pairs = [(text, label) for text in texts for label in record["outputs"]]
        ids, targets, ends = self.encode_lines(pairs, record, vocabulary)

        # the probability of an unknown symbol is left out
        is_end = np.zeros(len(targets), bool)
        is_end[ends - 1] = True
        targets[(targets == vocabulary.start_id) & ~is_end] = -1
        nll = target_nll(network, ids, targets, ends)
        return -np.add.reduceat(nll, starts_of(ends)).reshape(len(texts), -1)


@dataclass
class LabelledSlice(EncodedSlice):
    """The symbols of n lines as ids; at the start of each line is the id of its label."""

    starts: Ids  # (n,)
    labels: Ids  # (n,)

    def __getitem__(self, at: slice) -> NDArray[np.intp]:
        ids = super().__getitem__(at)
        put_labels(ids, at.indices(len(self))[0], self.starts, self.labels)
        return ids


def starts_of(ends: Ids) -> Ids:
    return np.append(0, ends[:-1])


def label_ids(names: Sequence[str | None], record: TaskRecord, vocabulary: Vocabulary) -> Ids:
    """Return the ids of labels, which come after the symbols; an end for an unknown label."""
    ids = {label: len(vocabulary) + i for i, label in enumerate(record["outputs"])}
    unknown = int(vocabulary.start_id[0])
    return np.array([ids.get(name or "", unknown) for name in names], np.intp)


def put_labels(ids: Ids, offset: int, starts: Ids, labels: Ids) -> None:
    """Write the labels to those of the ``starts`` that are among ``ids``, from ``offset`` on."""
    first, last = np.searchsorted(starts, [offset, offset + len(ids)])
    ids[starts[first:last] - offset] = labels[first:last]
