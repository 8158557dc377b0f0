"""The Python API: train a model on a text, load one, draw from it, score a text with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import checkpoint, sampling, scoring, units
from charrnn.arrays import Array
from charrnn.config import INHERITED, Config
from charrnn.corpus import Corpus
from charrnn.errors import CheckpointError, UsageError
from charrnn.header import MOST_THREADS, Header
from charrnn.lock import lock
from charrnn.stack import Stack, num_parameters
from charrnn.training import Origin, Run, fit
from charrnn.vocabulary import NEWLINE, Vocabulary

LENGTH = 2000


class Model:
    """A trained model: ``sample`` draws text from it, ``score`` tells how well it foresees one.

    ``stack`` holds the weights, ``vocabulary`` the characters, ``header`` what its file tells (the README lists
    the keys).
    """

    def __init__(self, stack: Stack, vocabulary: Vocabulary, header: Header) -> None:
        """Put the parts together; ``unit``, ``by`` and ``encoding`` are those of ``Config``."""
        self.stack, self.vocabulary, self.header = stack, vocabulary, header
        config = Config(**header["config"])
        self.unit, self.by, self.encoding = config.unit, config.documents, config.encoding

    def origin(self, file: str) -> Origin:
        """Return what a run begins with that takes its weights from this model's file."""
        return Origin(self.stack, self.vocabulary, file, self.header.get("sha256"))

    def sample(self, length: int = LENGTH, *, seed: int | None = None, **options: Any) -> Iterator[str]:
        r"""Draw a text; yield it character by character as it is drawn.

        ``length`` is the number of characters at most, not counting the prime. A model by line or file ends a text
        where a line or a file would end. Of a model of bytes each character stands for the byte of its number:
        ``text.encode("latin-1")``. The same ``seed`` gives the same text; without one it is another each time.
        ``options`` are those of ``samples``.

        Raises UsageError for an option outside its range, UnknownCharacterError for a character of the prime
        that the model does not know.
        """
        return (text for (text,) in self.samples(1, length, seed=seed, **options) if text)

    def samples(
        self,
        num_samples: int,
        length: int = LENGTH,
        *,
        seed: int | None = None,
        prime: str | bytes = "",
        unknown: str = "error",
        temp: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        until: str | bytes | None = None,
    ) -> Iterator[tuple[str, ...]]:
        """Draw several texts as one batch; yield what has been drawn of each, empty for those that have ended.

        ``prime`` is read first and not yielded (a model of bytes takes bytes too, here and for ``until``);
        ``unknown="skip"`` leaves out characters of it that the model does not know. ``temp`` divides the logits (0
        takes the likeliest), ``top_k`` and ``top_p`` keep only the likeliest characters. A text ends after ``length``
        characters, or when ``until`` has been drawn.
        """
        if length < 0:
            raise UsageError(f"the length is {length}, and must be at least 0")
        if until is not None and not until:
            raise UsageError("the string to stop at is empty")
        v = self.vocabulary
        if until is not None:
            until = units.to_text(units.to_codes(until, v.unit).tolist())
        draws = sampling.generate_ids(
            self.stack,
            v,
            np.random.default_rng(seed),
            prime=v.encode(prime, unknown=unknown),
            temp=temp,
            top_k=top_k,
            top_p=top_p,
            num_samples=num_samples,
        )
        return sampling.decode_stream(draws, v, num_samples, length, until, v.separator_id(self.by))

    def score(self, text: str | bytes, *, unknown: str = "error", adapt: float | None = None) -> Array:
        """Return -log p of each character (of bytes: each byte) given those before it, in nats, (n,) float64.

        The first character follows an unprinted newline (the vocabulary's start symbol); so does that of every line,
        of a model by line. Otherwise a text of 2,000 characters or more is read in several lanes at once, each warmed
        up by the 200 characters before it. ``unknown`` says what becomes of characters that the model does not know:
        ``"error"`` raises UnknownCharacterError, ``"skip"`` leaves them out, ``"cost"`` makes each as unlikely as one
        of all there are (1,114,112 characters, 256 bytes), and the model does not read it.

        With ``adapt``, a learning rate, a copy of the model goes on learning as it reads (see ``scoring.dynamic_nll``).
        """
        v = self.vocabulary
        ids, character, bad = v.lookup(units.to_codes(text, v.unit))
        if unknown == "error" and bad.any():
            v.encode(text)
        kept = ~bad[character]
        how = ids[kept], v.start_id, v.separator_id(self.by), int(v.start_id[0])
        nats = scoring.symbol_nll(self.stack, *how, dynamic_lr=adapt)
        of_each: Array = np.bincount(character[kept], nats, len(bad)).astype(np.float64)
        of_each[bad] = scoring.UNKNOWN_COST[v.unit]
        return of_each[~bad] if unknown == "skip" else of_each

    def score_lines(self, text: str | bytes, *, threads: int = 1) -> Array:
        """Return the mean of -log p over the characters of each line, in nats, (n,) float64.

        A line's end is a part of it. Every line begins afresh, whatever the model was trained by; they are read side by
        side, by so many threads. Characters that the model does not know cost what they do in ``score``.
        """
        v = self.vocabulary
        codes = units.to_codes(text, v.unit)
        ids, character, bad = v.lookup(codes)
        ended = codes == NEWLINE
        line = np.cumsum(ended) - ended
        n = int(line[-1]) + 1 if len(line) else 0
        kept = ~bad[character]
        ends = np.cumsum(np.bincount(line[kept], minlength=n))
        ends = np.unique(ends[ends > 0])  # a line of which nothing is known is no document
        nats: Array = np.empty(0)
        if len(ends):
            nats = scoring.document_nll(self.stack, ids[kept], ends, int(v.start_id[0]), threads)
        begins = units.starts_character(codes)
        unknown = np.bincount(line[begins], bad, n) * scoring.UNKNOWN_COST[v.unit]
        means: Array = (np.bincount(line[kept], nats, n) + unknown) / np.bincount(line[begins], minlength=n)
        return means

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write weights, vocabulary and configuration alone, as float16 with ``half``.

        Raises SaveError, and NotFiniteError for a weight that float16 cannot hold.
        """
        weights = self.stack.p.vector
        if half:
            with np.errstate(over="ignore"):  # what float16 cannot hold is found, and refused
                weights = weights.astype(np.float16)
        keys = ("versions", "config", "vocabulary", "parameters", "step", "epoch", "best", "test_loss")
        header = {"kind": "model", **{key: self.header[key] for key in keys}}
        checkpoint.save(Path(path), header, {"best_weights": weights})


def train(
    text: str | bytes | Sequence[str | bytes],
    *,
    val: str | bytes | None = None,
    output: str | Path | None = None,
    init_from: str | Path | None = None,
    threads: int = 1,
    **options: Any,
) -> Model:
    """Train on a text, or on several, joined, and return the model with the best weights.

    ``options`` are the fields of ``charrnn.Config``, the same as the options of ``charrnn train``: ``cell``,
    ``hidden_size``, ``num_layers``, ``max_steps`` and so on. ``val`` is a validation text of its own; otherwise a
    part of ``text`` serves. With ``output`` the run is kept in that file. ``init_from`` is a run's file, or an
    exported one, that the weights are taken from, and with them the cell, its sizes and the unit. ``threads`` share
    the lanes out; they need a linear algebra library that has one itself (OPENBLAS_NUM_THREADS=1 before NumPy is
    imported, say).

    Raises UsageError for an option outside its range, TextError for a text that is too short, NotFiniteError
    when the loss is not finite again and again, CheckpointError, SaveError.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {threads}, and must be from 1 to {MOST_THREADS}")
    path = None if output is None else Path(output)
    with contextlib.nullcontext() if path is None else lock(path, "charrnn.train"):
        begin = None if init_from is None else load(init_from)
        config = Config(**(options if begin is None else inherited(begin, options)))
        how: dict[str, Any] = {"unit": config.unit, "documents": config.documents, "encoding": config.encoding}
        documents = [text] if isinstance(text, (str, bytes)) else text
        corpus = Corpus("text", *documents, **how)
        run = Run(
            corpus,
            config,
            val=None if val is None else Corpus("val", val, **how),
            origin=begin.origin(str(init_from)) if begin else None,
        )
        run.threads = threads
        for _ in fit(run, path):
            pass
    run.stack.p.vector[:] = run.best
    return Model(run.stack, run.vocabulary, run.header())


def inherited(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those that the weights of ``model`` decide. Raises UsageError if one is another."""
    config = Config(**model.header["config"])
    for name in INHERITED:
        value = getattr(config, name)
        if options.get(name, value) not in (value, {"vanilla": "rnn"}.get(value)):
            raise UsageError(f"{name} is {value} in the model that this one begins from, and cannot be {options[name]}")
    return {**options, **{name: getattr(config, name) for name in INHERITED}}


def load(path: str | Path, *, last: bool = False) -> Model:
    """Load a model from a run's file, or from an exported one: the best weights, or the ``last``.

    Raises CheckpointError for a file that is missing, damaged, of a newer version, or not a checkpoint. Loading
    never runs code from the file.
    """
    path = Path(path)
    header = checkpoint.read_header(path)
    if header["kind"] == "run" and (last or header["best"]["val_loss"] is None):
        # none has been measured, or what the header tells of the best weights does not hold for these
        name, row = (
            "last_weights",
            next((row for row in header["history"] if row["step"] == header["step"]), {"val_loss": None}),
        )
        told = {"best": {"step": header["step"], "val_loss": row["val_loss"]}}
        header |= {**told, "test_loss": None} if last else told
    elif last:
        raise CheckpointError(f"{path}: holds the best weights alone, not the last ones")
    else:
        name = "best_weights"
    weights = checkpoint.load(path, [name])[1][name]
    config = Config(**header["config"])
    vocabulary = Vocabulary.from_header(header["vocabulary"], config.unit)
    shape = config.cell, len(vocabulary), config.hidden_size, config.num_layers
    if weights.shape != (num_parameters(*shape),):  # before anything of that size is made
        raise CheckpointError(f"{path}: damaged: {weights.shape} weights, not {num_parameters(*shape):,}")
    stack = Stack(*shape, np.dtype(config.dtype))
    stack.p.vector[:] = weights
    return Model(stack, vocabulary, header)
