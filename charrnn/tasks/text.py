"""Many to many, first read, then write: the targets are a second text, after the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.attentive import Attentive, AttentiveStepper
from charrnn.captioner import Captioner
from charrnn.errors import UsageError
from charrnn.loss import log_softmax
from charrnn.network import Network, Stepper
from charrnn.regions import RegionCaptioner, RegionStepper
from charrnn.scoring import UNKNOWN_COST, target_nll
from charrnn.storage.state import TaskRecord
from charrnn.tasks.base import Measures, Predictor
from charrnn.tasks.layouts import Line
from charrnn.tasks.lines import END, LineTask, known_ids, target_ids
from charrnn.text.units import UNKNOWN, Codes, to_codes

# of the symbols that are written: at most 4 n + 100, or 4 n + 1,000 about a row of vectors
MAX_GROWTH, MIN_LIMIT, MIN_LIMIT_OF_ROW = 4, 100, 1000
MAX_LANES = 256  # texts that are written at a time, those of all beams


class Written(str):
    """A text that a network wrote; ``log_probability`` is its log p in nats, with its end."""

    log_probability = 0.0


class Text(LineTask):
    options = ("beam",)
    error_name = "character error rate"

    def encode(
        self, text: str, target: str | None, record: TaskRecord, unit: str
    ) -> tuple[Codes, NDArray[np.int64]]:
        """Return source, end, target; the targets are the target and an end, one step earlier."""
        source = np.concatenate([to_codes(text, unit), END])
        written = to_codes(target or "", unit)
        codes = np.concatenate([source, written])
        targets = np.concatenate([np.full(len(source) - 1, -1), written, END]).astype(np.int64)
        return codes, targets

    def predict(self, predictor: Predictor, texts: Sequence[str], **options: Any) -> list[Written]:
        """Return the text that the model writes for each text: greedy, or with a beam."""
        beam, written = options.get("beam") or 1, [Written()] * len(texts)
        rows = options.get("rows", [-1] * len(texts))
        sources = [self._source(predictor, *pair) for pair in zip(texts, rows, strict=True)]
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]))  # of similar lengths
        size = max(1, MAX_LANES // beam)
        for start in range(0, len(order), size):
            group = order[start : start + size]
            found = write_texts(predictor, [sources[i] for i in group], beam)
            for i, (ids, logp) in zip(group, found, strict=True):
                written[i] = Written(predictor.vocabulary.decode(ids))
                written[i].log_probability = logp
        return written

    def _source(self, predictor: Predictor, text: str, row: int) -> Ids:
        network, vocabulary, record, _ = predictor
        codes, _ = self.encode(text, None, record, vocabulary.unit)
        ids = known_ids(vocabulary, codes)
        if not isinstance(network, Captioner):
            return ids
        return network.vectors.mark(ids, np.array([len(ids)]), np.array([row]), len(vocabulary))

    def measure(self, predictions: Sequence[Any], lines: Sequence[Line]) -> Measures:
        pairs = [(found, line.target) for found, line in zip(predictions, lines, strict=True)]
        exact = sum(found == target for found, target in pairs) / max(len(pairs), 1)
        characters = sum(len(target) for _, target in pairs)
        errors = sum(edit_distance(found, target) for found, target in pairs)
        f1 = sum(word_f1(found, target) for found, target in pairs) / max(len(pairs), 1)
        error_rate = errors / max(characters, 1)
        return {"exact": exact, "character_error_rate": error_rate, "word_f1": f1}

    def measure_loss(self, predictor: Predictor, lines: Sequence[Line]) -> Measures:
        """Return the loss, in nats per character of the targets (or byte), their ends included.

        A symbol that the model does not know costs as much as in ``scoring``.
        """
        network, v, record, _ = predictor
        vectors = network.vectors if isinstance(network, Captioner) else None
        ids, _, count, _, _, targets, ends, _ = self.make_split(lines, record, v, vectors)
        assert targets is not None
        assert ends is not None
        nll = target_nll(network, ids, targets, ends)
        codes = [self.encode(line.text, line.target, record, v.unit)[1] for line in lines]
        is_unknown = v.ids_of(np.concatenate(codes).clip(0)) < 0
        nll[is_unknown & (targets >= 0)] = UNKNOWN_COST[v.unit]
        n = count if v.unit == "byte" else sum(len(line.target) + 1 for line in lines)
        return {"loss": float(nll.sum() / n)}

    def error(self, prediction: Any, line: Line) -> float:
        return edit_distance(prediction, line.target) / max(len(line.target), 1)

    def measure_baselines(self, train: Sequence[Line], test: Sequence[Line]) -> dict[str, Measures]:
        if train and (train[0].row >= 0 or not any(line.text for line in train)):
            # of each question about a picture; of several pairs, a dict keeps the last one
            pairs = Counter((line.text, line.target) for line in train).most_common()
            common = {text: target for (text, target), _ in reversed(pairs)}
            (anything, _), *_ = Counter(line.target for line in train).most_common(1)
            found = [common.get(line.text, anything) for line in test]
            return {"the most common text": self.measure(found, test)}
        return {"the source unchanged": self.measure([line.text for line in test], test)}

    def columns(self, prediction: Any, **_: Any) -> list[str]:
        return [prediction]

    def row(self, prediction: Any, **_: Any) -> dict[str, Any]:
        return {"written": prediction, "log_probability": prediction.log_probability}


class Alignment(NamedTuple):
    """How much each of m symbols that are written takes from each of n that have been read."""

    read: Codes  # (n,), with an end
    written: Codes  # (m,), with an end
    p: Array  # (m, n), each row sums to 1; or (m, R), of the regions of a picture


def align(predictor: Predictor, text: str, target: str, row: int = -1) -> Alignment:
    """Return the alignment of two texts; with a ``row`` of regions, these are what is read.

    Raises UsageError for a network without attention.
    """
    network, vocabulary, record, _ = predictor
    if not isinstance(network, (Attentive, RegionCaptioner)):
        raise UsageError("the model has no attention: train one with --attention")
    codes, targets = Text().encode(text, target, record, vocabulary.unit)
    xs: Ids = known_ids(vocabulary, codes)
    ys = target_ids(targets, record, vocabulary)
    if isinstance(network, RegionCaptioner):
        xs = network.vectors.mark(xs, np.array([len(xs)]), np.array([row]), len(vocabulary))
    tape = network.new_tape(len(xs), 1)
    network.mark_source(ys[:, None], tape)
    network.forward(xs[:, None], network.zero_state(1), tape)
    is_written = targets >= 0
    p, read = tape.attention.p[0][-is_written.sum() :], codes[: is_written.argmax() + 1]
    return Alignment(read, targets[is_written].astype(codes.dtype), p)


def edit_distance(a: str, b: str) -> int:
    """Return the number of characters to insert, delete or replace (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, c in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, d in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (c != d))
    return row[-1]


def word_f1(found: str, target: str) -> float:
    """Return the F1 of the words of a text, in any order, for those of another."""
    a, b = Counter(found.split()), Counter(target.split())
    return 2 * (a & b).total() / (a.total() + b.total()) if a or b else 1.0


def read_sources(predictor: Predictor, sources: Sequence[Ids], K: int) -> tuple[Stepper, Array]:
    """Read each of N sources; return what continues K texts of each, and log p of their start.

    The stepper has the K lanes of a source next to each other. Log p is (N, V), of the first
    symbol.
    """
    # the lanes that read; those of a captioner with attention look at their regions
    network, B = predictor.network, len(sources)
    lengths = np.array([len(source) for source in sources])
    xs = np.zeros((lengths.max(), B), np.intp)
    for lane, source in enumerate(sources):
        xs[: len(source), lane] = source
    state, lanes = network.zero_state(B), np.repeat(np.arange(B), K)
    step = Stepper(network, state)
    if isinstance(network, RegionCaptioner):
        s = network.read_source(xs.max(0) // network.vocab_size - 1)
        step = RegionStepper(network, state, s)

    # the state at the end of each source, and the top layer's outputs before it
    hs = np.empty((len(xs), *step.h.shape), state.dtype)
    for t, ids in enumerate(xs, 1):
        ends = lengths == t
        step.read(ids)
        hs[t - 1] = step.h
        state[..., ends] = step.state[..., ends]

    # the lanes of the texts
    state = state[..., lanes]
    if isinstance(network, RegionCaptioner):
        step = RegionStepper(network, state, s[lanes])
    elif isinstance(network, Attentive):
        valid = np.arange(len(xs))[:, None] < lengths
        step = AttentiveStepper(network, state, hs[..., lanes], valid[:, lanes])
    else:
        step = Stepper(network, state)
    return step, log_softmax(step.predict().T[::K])


def reads_each(network: Network) -> bool:
    """Return whether a vector enters the network with each symbol of its line."""
    return isinstance(network, Captioner) and network.vectors.each


@np.errstate(all="ignore")  # the weights may have diverged
def write_texts(predictor: Predictor, sources: Sequence[Ids], beam: int) -> list[tuple[Ids, float]]:
    """Return the ids that the network writes after each of N sources, without the end, and log p.

    Log p is in nats, with the end, unless the text was cut off before it. A beam of ``beam`` texts
    is kept for each source, those with the highest probability; with 1 the most likely symbol is
    written at each step.
    """
    network, vocabulary, _, _ = predictor
    N, K, V = len(sources), beam, network.num_outputs
    end, unknown = int(vocabulary.start_id[0]), vocabulary.id(UNKNOWN)
    step, logp = read_sources(predictor, sources, K)
    rows = np.repeat([source[-1] // len(vocabulary) for source in sources], K)
    marks = rows * len(vocabulary) if reads_each(network) else 0 * rows
    least = MIN_LIMIT_OF_ROW if isinstance(network, Captioner) else MIN_LIMIT
    limits = np.array([[MAX_GROWTH * len(source) + least] for source in sources])  # (N, 1)

    # the texts of a source are at first the same: all but one have no probability
    logp = np.repeat(logp[:, None], K, axis=1)  # (N, K, V)
    scores = np.full((N, K), -np.inf)
    scores[:, 0] = 0
    written = np.zeros((N, K, 0), np.intp)
    ended = np.zeros((N, K), bool)
    for n in range(1, limits.max() + 1):
        # an ended text is continued by ends, which cost nothing
        if unknown is not None:
            logp[..., unknown] = -np.inf
        logp[ended] = -np.inf
        logp[ended, end] = 0

        # the best K continuations of the texts of each source
        totals = (scores[..., None] + np.nan_to_num(logp, nan=-np.inf)).reshape(N, K * V)
        best = np.argsort(-totals, axis=1, kind="stable")[:, :K]
        scores = np.take_along_axis(totals, best, 1)
        parents, symbols = np.divmod(best, V)
        written = np.take_along_axis(written, parents[..., None], 1)
        written = np.concatenate([written, symbols[..., None]], axis=2)
        ended = (symbols == end) | (n >= limits)
        if ended[:, 0].all():
            break

        # read them; a source has the same lanes at every step
        lanes = (np.arange(N)[:, None] * K + parents).ravel()
        step.state[:] = step.state[..., lanes]
        logits = step(symbols.ravel() + marks)
        logp = log_softmax(logits.T.reshape(N, K, V))
    ids = [of_source[: int((of_source != end).sum())] for of_source in written[:, 0]]
    return list(zip(ids, scores[:, 0].tolist(), strict=True))
