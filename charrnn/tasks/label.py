"""Many to one: the label of a line is the target of its last step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array
from charrnn.errors import CheckpointError, TextError
from charrnn.loss import log_softmax
from charrnn.storage.header import InvalidCheckpoint
from charrnn.storage.state import TaskRecord
from charrnn.tasks import naive_bayes
from charrnn.tasks.base import Measures, Predictor
from charrnn.tasks.layouts import Line
from charrnn.tasks.line_corpus import Lines, new_record
from charrnn.tasks.lines import END, LineTask
from charrnn.tasks.naive_bayes import NaiveBayes
from charrnn.tasks.split import Split
from charrnn.text.corpus import Corpus
from charrnn.text.units import Codes, to_codes

RATIOS = [0.02 * i for i in range(51)]  # of the weight of naive Bayes to that of the network


class LabelPrediction(NamedTuple):
    """The labels of a line, and log p of each, (C,)."""

    labels: list[str]
    logp: Array

    @property
    def best(self) -> str:
        return self.labels[int(self.logp.argmax())]

    def most_likely(self, n: int) -> list[tuple[str, float]]:
        """Return the n most likely labels with their probabilities."""
        order = np.argsort(-self.logp, kind="stable")[:n].tolist()
        return [(self.labels[i], math.exp(self.logp[i])) for i in order]


class Label(LineTask):
    by_file = True
    options = ("top",)
    error_name = "loss"
    loaded: tuple[Any, NaiveBayes] | None = None  # packed and unpacked

    def collect(self, lines: Sequence[Line]) -> TaskRecord:
        labels = sorted({line.target for line in lines} - {""})
        if len(labels) < 2:
            found = f"is only one label, {labels[0]!r}" if labels else "are no labels"
            raise TextError(f"there {found}; at least two are needed")
        return new_record(labels)

    def find_problem(self, line: Line, record: TaskRecord) -> str:
        return "" if line.target else "its label is empty"

    def stratum(self, line: Line) -> str:
        return line.target

    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        codes = np.concatenate([to_codes(text, unit), END])
        targets = np.full(len(codes), -1)
        names = record["outputs"]
        if target is None or target in names:  # another one has no output, and so no target
            targets[-1] = 0 if target is None else names.index(target)
        return codes, targets

    def predict(
        self, predictor: Predictor, texts: Sequence[str], **options: Any
    ) -> list[LabelPrediction]:
        logp = self.log_probs(predictor, texts, options.get("rows", ()))
        record = predictor.record
        if record["weights"]:
            a, b = record["weights"]
            logp = log_softmax(a * logp + b * self.load_bayes(predictor).log_probs(texts))
        return [LabelPrediction(record["outputs"], row) for row in logp]

    def measure(self, predictions: Sequence[Any], lines: Sequence[Line]) -> Measures:
        truth = [line.target for line in lines]
        found = [p.best for p in predictions]
        known = [
            -p.logp[p.labels.index(label)]
            for p, label in zip(predictions, truth, strict=True)
            if label in p.labels
        ]
        log_loss = {"log_loss": float(np.mean(known))} if known else {}
        return {**measure_labels(found, truth), **log_loss}

    def error(self, prediction: Any, line: Line) -> float:
        """Return -log p of the right label, in nats; infinite if the model does not know it."""
        if prediction.best == line.target:
            return 0.0
        known = line.target in prediction.labels
        return -float(prediction.logp[prediction.labels.index(line.target)]) if known else math.inf

    def measure_baselines(self, train: Sequence[Line], test: Sequence[Line]) -> dict[str, Measures]:
        truth = [line.target for line in test]
        labels = sorted({line.target for line in train})
        most_common, _ = Counter(line.target for line in train).most_common(1)[0]
        found = {"majority": measure_labels([most_common] * len(test), truth)}
        if naive_bayes.num_buckets(len(labels)) and not train[0].is_sequence:
            bayes = NaiveBayes(count_lines(train, labels))
            logp = bayes.log_probs([line.text for line in test])
            found["naive Bayes"] = self.measure([LabelPrediction(labels, p) for p in logp], test)
        return found

    def count(self, corpus: Corpus) -> NDArray[np.uint8]:
        assert isinstance(corpus, Lines)
        labels = corpus.record["outputs"]
        if corpus.vectors or not naive_bayes.num_buckets(len(labels)):
            return super().count(corpus)
        train = corpus.lines[: corpus.split_offsets[0]]
        return naive_bayes.pack_counts(count_lines(train, labels))

    def fit_weights(self, predictor: Predictor, split: Split) -> list[float]:
        """Return the weights of log p of the network and of naive Bayes, before it is normalized.

        Their ratio has the highest accuracy plus macro F1: naive Bayes is too sure of itself for
        the log loss, which would leave most of its knowledge of rare labels unused.
        """
        labels = predictor.record["outputs"]
        lines = [line for line in split.lines if line.target in labels]
        if not lines or not len(predictor.counts):
            return []
        texts, ys = [line.text for line in lines], [labels.index(line.target) for line in lines]
        network, bayes = (
            self.log_probs(predictor, texts),
            self.load_bayes(predictor).log_probs(texts),
        )

        # the ratio with the best labels; the mean over its neighbors is less due to chance
        truth, scores = [line.target for line in lines], []
        for ratio in RATIOS:
            found = [labels[i] for i in (network + ratio * bayes).argmax(1).tolist()]
            scores.append(sum(measure_labels(found, truth).values()))
        smooth = np.convolve(np.pad(scores, 2, "edge"), np.ones(5), "valid")
        ratio = RATIOS[int(smooth.argmax())]

        # the scale with the best probabilities
        scale = naive_bayes.fit_scale(network + ratio * bayes, np.array(ys))
        return [scale, scale * ratio]

    def load_bayes(self, predictor: Predictor) -> NaiveBayes:
        """Return naive Bayes of the training split, which is kept. Raises CheckpointError."""
        if self.loaded is None or self.loaded[0] is not predictor.counts:
            try:
                counts = naive_bayes.unpack_counts(
                    predictor.counts, len(predictor.record["outputs"])
                )
            except InvalidCheckpoint as e:
                raise CheckpointError(f"the checkpoint is {e}") from None
            self.loaded = predictor.counts, NaiveBayes(counts)
        return self.loaded[1]

    def columns(self, prediction: Any, **options: Any) -> list[str]:
        pairs = prediction.most_likely(options.get("top") or 1)
        return [column for label, p in pairs for column in (label, f"{p:.4f}")]

    def row(self, prediction: Any, **options: Any) -> dict[str, Any]:
        (label, p), *_ = pairs = prediction.most_likely(options.get("top") or 1)
        more = {"labels": dict(pairs)} if options.get("top") else {}
        return {"label": label, "probability": p, **more}

    def detail_row(self, predictions: Sequence[Any], lines: Sequence[Line]) -> dict[str, Any]:
        counts = confusion([p.best for p in predictions], [line.target for line in lines])
        rows: dict[str, dict[str, int]] = {}
        for (true, found), n in sorted(counts.items()):
            rows.setdefault(true, {})[found] = n
        return {"confusion": rows}

    def details(self, predictions: Sequence[Any], lines: Sequence[Line]) -> list[list[str]]:
        """Return the confusion matrix: a row for each true label, a column for each predicted."""
        counts = confusion([p.best for p in predictions], [line.target for line in lines])
        names = sorted({label for pair in counts for label in pair})
        rows = [[true, *(str(counts[true, found]) for found in names)] for true in names]
        return [["true \\ predicted", *names], *rows]


def count_lines(lines: Sequence[Line], labels: list[str]) -> naive_bayes.Counts:
    ys = [labels.index(line.target) for line in lines]
    return naive_bayes.count_ngrams([line.text for line in lines], ys, len(labels))


def confusion(found: Sequence[str], truth: Sequence[str]) -> Counter[tuple[str, str]]:
    """Return how often each label (first) was predicted as each (second)."""
    return Counter(zip(truth, found, strict=True))


def measure_labels(found: Sequence[str], truth: Sequence[str]) -> Measures:
    """Return the accuracy, and the mean of the labels' F1, each counting the same."""
    counts = confusion(found, truth)
    true, predicted = Counter(truth), Counter(found)
    f1 = [2 * counts[label, label] / (true[label] + predicted[label]) for label in true | predicted]
    right = sum(counts[label, label] for label in true)
    return {"accuracy": right / len(truth), "macro_f1": sum(f1) / len(f1)}
