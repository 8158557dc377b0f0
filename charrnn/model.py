"""A trained model: load one, sample from it, score a text with it."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import sampling, scoring
from charrnn.adaptive import AdaptiveNetwork, AdaptiveRule
from charrnn.arrays import Array, Ids
from charrnn.bidirectional import make_network
from charrnn.blas import limit_threads, with_threads
from charrnn.config import Config
from charrnn.counts import Counts
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import loss_unit
from charrnn.mixture import LearningMixture, Mixture
from charrnn.network import Network
from charrnn.scoring import LineScores
from charrnn.sequences import STEP, Sequences, without_sequences
from charrnn.storage import checkpoint, ngrams
from charrnn.storage.header import InvalidCheckpoint
from charrnn.storage.output import check_output
from charrnn.storage.state import (
    Adaptation,
    Baselines,
    Evaluation,
    Mixing,
    ModelState,
    State,
)
from charrnn.tasks.base import Predictor, require_language_model
from charrnn.tasks.lines import load_line_task
from charrnn.tasks.split import Split
from charrnn.text import units
from charrnn.text.masks import mask_text
from charrnn.text.vocabulary import NEWLINE, EncodedText, Vocabulary
from charrnn.training.mixing import rms_gradient
from charrnn.vectors import without_rows
from charrnn.workers import Workers, available_cores

DEFAULT_SAMPLE_LENGTH = 2000
UNKNOWN_IN_PRIME, UNKNOWN_IN_TEXT = ("error", "skip"), ("cost", "error")


class Model:
    """A trained model: ``sample`` generates text, ``nll`` measures how well it predicts a text.

    ``network`` has the weights, ``vocabulary`` the symbols, ``state`` the header of its file.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        state: ModelState,
        arrays: Path | dict[str, Array] | None = None,
    ) -> None:
        """``arrays`` are the others of its file, or the file, which is read when one is needed."""
        self.network, self.vocabulary, self.state = network, vocabulary, state
        self._arrays = {} if arrays is None else arrays
        self.unit, self.documents = state.config.unit, state.config.documents
        self.encoding, self.mask = state.config.encoding, state.config.mask
        self._workers = Workers(available_cores())  # none starts before a long text is scored

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle or copy the model, without its workers."""
        return Model, (self.network, self.vocabulary, self.state, self._arrays)

    @property
    def config(self) -> Config:
        """The options of its run."""
        return self.state.config

    @property
    def history(self) -> list[Evaluation]:
        """The evaluations of its run, losses in nats per character; none if it was exported."""
        return self.state.history if isinstance(self.state, State) else []

    @property
    def baselines(self) -> Baselines:
        """For ``val`` and ``test`` the losses of n-grams and of a uniform guess, by name."""
        none = Baselines(val={}, test={})
        return self.state.baselines if isinstance(self.state, State) else none

    def _array(self, name: str) -> Array:
        """Return another array of its file. Raises CheckpointError."""
        if isinstance(self._arrays, dict):
            if name not in self._arrays:
                raise CheckpointError(f"{self._name}: has no {name!r}")
            return self._arrays[name]
        state, arrays = checkpoint.read_checkpoint(self._arrays, [name])
        if state.sha256 != self.state.sha256:
            raise CheckpointError(f"{self._arrays}: has changed since it was loaded")
        return arrays[name]

    @functools.cached_property
    def counts(self) -> Counts:
        """The n-grams of its training text. Raises CheckpointError if it was exported without."""
        if self.state.counts is None:
            raise CheckpointError(f"{self._name}: has no counts of n-grams to mix with")
        data = self._array(checkpoint.COUNTS).astype(np.uint8)
        try:
            return ngrams.unpack(self.state.counts, data, len(self.vocabulary))
        except InvalidCheckpoint as e:
            raise CheckpointError(f"{self._name}: {e}") from None

    def learning_mixture(self, *, adapt: bool = False) -> LearningMixture:
        """Return its n-grams, which learn, and their gate. Raises CheckpointError.

        With ``adapt`` the gate is for an adaptive network.
        """
        gate = self._adaptation()["gate"] if adapt else self._mixing()["learning"]
        return LearningMixture(Mixture(self.counts, np.array(gate)))

    def adaptive_network(self) -> AdaptiveNetwork:
        """Return a copy of the network that adapts to what it reads. Raises CheckpointError."""
        return AdaptiveNetwork(self.network, self._adaptive_rule())

    def _adaptive_rule(self) -> AdaptiveRule:
        adaptation, rms = self._adaptation(), rms_gradient(self._array("optimizer_state"))
        assert rms is not None
        return AdaptiveRule(rms, adaptation["learning_rate"], adaptation["decay"])

    @property
    def static_mixture(self) -> Mixture:
        """Its n-grams and the gate for counts that do not learn. Raises CheckpointError."""
        return Mixture(self.counts, np.array(self._mixing()["static"]))

    @property
    def _name(self) -> str:
        return "the model" if isinstance(self._arrays, dict) else str(self._arrays)

    def _mixing(self) -> Mixing:
        if self.state.mixing is None:
            reason = "the gate and the rates are fitted at the end of a run with a validation split"
            raise CheckpointError(f"{self._name}: can neither mix nor adapt: {reason}")
        return self.state.mixing

    def _adaptation(self) -> Adaptation:
        adaptation = self._mixing()["adaptation"]
        if adaptation is None or not isinstance(self.state, State):
            kind = "an exported model" if self.state.kind == "model" else "a run with sgd"
            reason = f"{kind} has no second moments of the gradient"
            raise CheckpointError(f"{self._name}: cannot adapt: {reason}")
        return adaptation

    @np.errstate(all="ignore")
    @limit_threads()
    def predict(
        self, texts: Sequence[str], *, rows: Sequence[int] | Ids | None = None, **options: Any
    ) -> list[Any]:
        """Return what a model of labels, tags or texts predicts for each text.

        A label is a ``LabelPrediction``, tags are a list of them, a text is a ``str`` with its
        ``log_probability`` in nats. ``beam`` is the number of texts that are compared. ``rows`` are
        the indexes of the vectors that the texts are about, after ``use_features``; the texts about
        sequences of vectors are empty.

        Raises UsageError for a language model, and for other rows than the model reads.
        """
        task = load_line_task(self.config)
        if rows is not None or self.state.features:
            rows = options["rows"] = self._check_rows(rows, len(texts))
        if rows is not None and isinstance(self.network.vectors, Sequences):
            if any(text.strip(STEP) for text in texts):
                raise UsageError("a sequence of vectors has no text beside it")
            texts = self.network.vectors.texts(rows)
        return task.predict(self.predictor, texts, **options) if texts else []

    def _check_rows(self, rows: Sequence[int] | Ids | None, n: int) -> list[int]:
        """Return the rows that n texts are about. Raises UsageError."""
        if not self.network.vectors:
            raise UsageError(f"rows: {self._name} reads no features")
        rows = [] if rows is None else rows
        if len(rows) != n:
            raise UsageError(f"{n:,} texts about features, but {len(rows):,} rows")
        known = self.network.vectors.num_rows
        for row in rows:
            if not 0 <= operator.index(row) < known:
                hint = "" if known else "; call use_features first"
                raise UsageError(f"invalid row: {row}; there are {known:,}, from 0 on{hint}")
        return [*map(operator.index, rows)]

    def use_features(self, features: NDArray[Any] | str | Path) -> int:
        """Let the network read the rows, or sequences, of an array or a file; return their number.

        Raises TextError for what the model cannot read, UsageError if it reads no vectors.
        """
        if not self.network.vectors:
            raise UsageError(f"{self._name}: reads no features")
        source = features if isinstance(features, np.ndarray) else Path(features)
        self.network.vectors = self.network.vectors.replace(source)
        return self.network.vectors.num_rows

    @functools.cached_property
    def predictor(self) -> Predictor:
        """What predicts labels, tags or texts. Raises CheckpointError."""
        record = self.state.task
        assert record
        none: Array = np.empty(0)
        counts = self._array(checkpoint.COUNTS) if record["counts_bytes"] else none
        return Predictor(self.network, self.vocabulary, record, counts.astype(np.uint8))

    @limit_threads()
    def split_nll(self, split: Split, *, mix: bool, adapt: bool) -> dict[str, Array]:
        """Return -log p of each symbol of a split in nats, (n,) each.

        The names are ``network``, with ``adapt`` also ``adapted``, and with ``mix`` ``counts``,
        which learn as they read, and ``mixed``. Raises CheckpointError.
        """
        require_language_model(self.config, self._name)
        scores = split.scores(self.network, self._workers)
        nlls = {"network": scores[0]}
        if adapt:
            scores = split.scores(self.network, self._workers, self._adaptive_rule())
            nlls["adapted"] = scores[0]
        if mix:
            learner = self.learning_mixture(adapt=adapt)
            nlls["counts"], nlls["mixed"] = learner.predict_text(split.ids, split.context, scores)
        return nlls

    def __repr__(self) -> str:
        c, state, best = self.config, self.state, self.state.best
        parts = [f"{c.cell} {c.num_layers}x{c.hidden_size}", f"{state.parameters:,} parameters"]
        parts.append(f"step {state.step:,}")
        if best["val_loss"] is not None:
            parts.append(
                f"validation {best['val_loss']:.4f} nats per {loss_unit(c.unit, c.predict)}"
            )
        if isinstance(state, State):
            parts.append(f"trained on {state.corpus['name']}")
        return f"<charrnn.Model: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Return the head of its report, for a notebook."""
        if not isinstance(self.state, State):
            return f"<p>{escape(repr(self))}</p>"
        from charrnn.drawing.report import head_html  # late: other uses of a model start faster

        return head_html(self.state)

    def sample(
        self, length: int = DEFAULT_SAMPLE_LENGTH, *, seed: int | None = None, **options: Any
    ) -> Iterator[str]:
        r"""Generate a text; yield its characters as they are sampled.

        ``length`` is the maximum number of characters, without the prime; a model of lines or files
        ends a text with the line or file. With a model of bytes each character is the byte with the
        same number: ``text.encode("latin-1")``. The same ``seed`` gives the same text; without
        one it is random. ``options`` are passed to ``sample_batch``.

        Raises UsageError for an option outside its range, UnknownCharacterError for an unknown
        character in the prime.
        """
        batch = self.sample_batch(1, length, seed=seed, **options)
        return (text for (text,) in batch if text)

    def sample_batch(
        self,
        num_samples: int,
        length: int = DEFAULT_SAMPLE_LENGTH,
        *,
        seed: int | Sequence[int] | None = None,
        prime: str | bytes = "",
        unknown: str = "error",
        temp: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        until: str | bytes | None = None,
        mix: bool = False,
        workers: int = 1,
    ) -> Iterator[tuple[str, ...]]:
        """Generate several texts in one batch; yield the new characters of each, "" once it ended.

        ``prime`` is read first and not yielded; a model of bytes takes bytes too, here and for
        ``until``. ``unknown="skip"`` skips unknown characters in it. ``temp`` divides the logits (0
        always picks the most likely symbol); ``top_k`` and ``top_p`` keep only the most likely
        ones. A text ends after ``length`` characters, or once ``until`` has been generated. With
        ``mix`` the network is mixed with the n-grams of its training text.
        ``workers`` processes share 32 texts or more; of fewer, each matrix product has so many
        threads.
        """
        require_language_model(self.config, self._name)
        if length < 0:
            raise UsageError(f"length must be at least 0, not {length}")
        if until is not None and not until:
            raise UsageError("the stop string must not be empty")
        _check_unknown(unknown, UNKNOWN_IN_PRIME)
        v = self.vocabulary
        if until is not None:
            until = units.to_text(units.to_codes(mask_text(until, self.mask), v.unit).tolist())
        id_stream = sampling.generate_ids(
            self.network,
            v,
            np.random.default_rng(seed),
            prime=v.encode(mask_text(prime, self.mask), unknown=unknown),
            temp=temp,
            top_k=top_k,
            top_p=top_p,
            num_samples=num_samples,
            workers=workers,
            mixture=self.static_mixture if mix else None,
        )
        separator_id = v.separator_id(self.documents)
        pieces = sampling.decode_stream(id_stream, v, num_samples, length, until, separator_id)
        threads = workers if sampling.num_processes(num_samples, workers) == 1 else 1
        return with_threads(pieces, threads)

    def nll(
        self, text: str | bytes, *, unknown: str = "cost", mix: bool = False, adapt: bool = False
    ) -> Array:
        """Return -log p of each character given those before it, in nats, (n,) float64.

        A model of bytes gives a value per byte, one with a mask a value per character of the masked
        text; one of words divides the loss of a word equally among its characters. The first
        character follows the start symbol, an unprinted newline; with a model of lines so does the
        first of every line. Otherwise a text of 2,000 symbols or more is read in parallel lanes,
        each warmed up by the 200 symbols before it. An unknown character has the loss of a uniform
        guess among all 1,114,112 code points or 256 bytes, and is not read;
        ``unknown="error"`` raises UnknownCharacterError.

        With ``mix`` the network is mixed with the n-grams of its training text, which learn as they
        read; with ``adapt`` a copy of the network keeps training while it reads (see
        ``AdaptiveNetwork``). Raises UsageError for another ``unknown``, and CheckpointError
        for a model that cannot mix or adapt.
        """
        name = "mixed" if mix else "adapted" if adapt else "network"
        return self.text_nll(text, unknown=unknown, mix=mix, adapt=adapt)[name]

    @np.errstate(all="ignore")
    def text_nll(
        self, text: str | bytes, *, unknown: str, mix: bool, adapt: bool
    ) -> dict[str, Array]:
        """Return the results of ``nll`` by the names of ``split_nll``."""
        _check_unknown(unknown, UNKNOWN_IN_TEXT)
        v = self.vocabulary
        text = mask_text(text, self.mask)
        encoded = v.read(text)
        if unknown == "error" and encoded.is_unknown.any():
            v.encode(text)  # raises
        n = len(encoded.for_characters(encoded.is_unknown))
        ids, separator_id = encoded.ids[encoded.is_known], v.separator_id(self.documents)
        split = Split(ids, v.start_id, n, separator_id, int(v.start_id[0]))
        nlls: dict[str, Array] = {}
        for name, symbol_nll in self.split_nll(split, mix=mix, adapt=adapt).items():
            nlls[name] = self._character_nll(symbol_nll, encoded)
        return nlls

    def _character_nll(self, symbol_nll: Array, encoded: EncodedText) -> Array:
        """Return -log p of each character: the sum over its symbols, unless it is unknown.

        ``symbol_nll`` is that of the known symbols. A word's is divided among its characters.
        """
        _, _, piece, is_unknown, _ = encoded
        sums = np.bincount(piece[encoded.is_known], symbol_nll, len(is_unknown))
        nll: Array = sums.astype(np.float64)
        nll[is_unknown] = scoring.UNKNOWN_COST[self.vocabulary.unit]
        return encoded.divide(nll)

    def nll_lines(self, text: str | bytes) -> Array:
        """Return the mean of -log p over the characters of each line, in nats, (n,) float64.

        A line includes its newline. The hidden state is reset at the start of every line, with any
        model; the lines are read in parallel. An unknown character has the loss of
        ``unknown="cost"`` in ``nll``.
        """
        return self.score_lines(text).nll

    @np.errstate(all="ignore")
    @limit_threads()
    def score_lines(
        self,
        text: str | bytes,
        *,
        learner: LearningMixture | None = None,
        adaptive: AdaptiveNetwork | None = None,
    ) -> LineScores:
        """Return how odd each line is, as ``LineScores``; a line is read as in ``nll_lines``.

        With ``learner``, the model's ``learning_mixture()``, the network is mixed with n-grams,
        which learn from each line once it has been scored. With ``adaptive``, the model's
        ``adaptive_network()``, the lines are read one after the other, and the network learns from
        each. Both keep what they have learned for the next call.
        """
        require_language_model(self.config, self._name)
        v = self.vocabulary
        encoded = v.read(mask_text(text, self.mask))
        ids, ends_line = encoded.ids, encoded.codes == NEWLINE
        line = np.cumsum(ends_line) - ends_line
        n = int(line[-1]) + 1 if len(line) else 0

        # the known symbols of each line are a document, unless there are none
        kept = encoded.is_known
        ends = np.cumsum(np.bincount(line[kept], minlength=n))
        ends = np.unique(ends[ends > 0])
        symbol_nll: Array = np.empty(0)
        if len(ends):
            start_id = int(v.start_id[0])
            texts = ids[kept], ends, start_id
            if adaptive:
                scores = adaptive.score(ids[kept], ids[:0], ends, start_id)
            else:
                scores = scoring.document_scores(self.network, *texts, self._workers)
            symbol_nll = learner.predict_documents(*texts, scores) if learner else scores[0]

        nll, lines = self._character_nll(symbol_nll, encoded), line[encoded.starts_piece]
        return scoring.line_scores(nll, encoded.for_characters(lines), n)

    @np.errstate(all="ignore")
    def save(
        self, path: str | Path, *, half: bool = False, counts: bool = True, force: bool = False
    ) -> None:
        """Export the model, without training state; with ``half`` its weights become float16.

        With ``counts`` its n-grams are exported too, if it has any.

        Raises UsageError for a file that exists, unless ``force`` is given, SaveError, and
        NotFiniteError for a weight beyond the range of float16.
        """
        check_output(Path(path), force, option="force=True")
        weights = self.network.params.vector
        if half:
            weights = weights.astype(np.float16)  # infinite ones are not saved
        names = [f.name for f in dataclasses.fields(ModelState) if f.name != "kind"]
        state = ModelState(**{name: getattr(self.state, name) for name in names})
        arrays = {"best_weights": weights}
        if self.network.vectors:
            arrays[checkpoint.FEATURES] = self.network.vectors.moments
        if not counts:
            state.counts = state.mixing = None
            if state.task:
                state.task = {**state.task, "counts_bytes": 0, "weights": []}
        elif checkpoint.count_bytes(state):
            arrays[checkpoint.COUNTS] = self._array(checkpoint.COUNTS)
        if state.features:
            state.features = {**state.features, "file": (None, 0, 0)}
        if state.mixing:
            state.mixing = {**state.mixing, "adaptation": None}
        checkpoint.write_checkpoint(Path(path), state, arrays)


@np.errstate(all="ignore")
def load(path: str | Path, *, last: bool = False) -> Model:
    """Load the best weights of a checkpoint, or its ``last`` ones, or an exported model.

    Raises CheckpointError for a file that is missing, damaged, too new, or not a checkpoint.
    Loading never runs code from the file.
    """
    path = Path(path)
    state, name = checkpoint.read_state(path), "best_weights"
    if last and not isinstance(state, State):
        hint = "--last needs a training checkpoint"
        raise CheckpointError(f"{path}: an exported model contains only one set of weights; {hint}")
    if isinstance(state, State) and (last or state.best["val_loss"] is None):
        # the last weights or their average, with the losses that were measured for them
        name = "average_weights" if state.num_averaged else "last_weights"
        losses = [row["val_loss"] for row in state.history if row["step"] == state.step]
        state.best = {"step": state.step, "val_loss": losses[0] if losses else None}
        if last:
            state.test_loss = None
    features = [checkpoint.FEATURES] if state.features else []
    _, arrays = checkpoint.read_checkpoint(path, [name, *features])

    config, vocabulary = state.config, Vocabulary.from_header(state.vocabulary, state.config.unit)
    vectors = None
    if state.features:
        each, moments = config.feature_input == "each", arrays[checkpoint.FEATURES]
        vectors = without_rows(tuple(state.features["shape"]), moments, each=each)
        if config.predict != "text":
            vectors = without_sequences(moments)
    sizes = checkpoint.network_sizes(len(vocabulary), state.task)
    network = make_network(config, *sizes, vectors=vectors)
    network.params.vector[:] = arrays[name]
    return Model(network, vocabulary, state, path)


def _check_unknown(unknown: str, choices: Sequence[str]) -> None:
    if unknown not in choices:
        raise UsageError(f"invalid unknown: {unknown!r}; must be one of {', '.join(choices)}")
