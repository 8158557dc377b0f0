"""The Python API: train a model on a text, load one, draw from it, score a text with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import checkpoint, sampling, scoring
from charrnn.arrays import Array
from charrnn.config import Config
from charrnn.corpus import Corpus
from charrnn.errors import CheckpointError, UsageError
from charrnn.stack import Stack
from charrnn.training import Run, fit
from charrnn.vocabulary import Vocabulary

LENGTH = 2000


class Model:
    """A trained model: ``sample`` draws text from it, ``score`` tells how well it foresees one.

    ``stack`` holds the weights, ``vocabulary`` the characters, ``header`` what its file tells (the README lists
    the keys).
    """

    def __init__(self, stack: Stack, vocabulary: Vocabulary, header: checkpoint.Header) -> None:
        """Put the parts together."""
        self.stack, self.vocabulary, self.header = stack, vocabulary, header

    def sample(self, length: int = LENGTH, *, seed: int | None = None, **options: Any) -> Iterator[str]:
        r"""Draw a text; yield it character by character as it is drawn.

        ``length`` is the number of characters at most, not counting the prime. The same ``seed`` gives the same
        text; without one it is another each time. ``options`` are those of ``samples``.

        Raises UsageError for an option outside its range, UnknownCharacterError for a character of the prime
        that the model does not know.
        """
        return (text for (text,) in self.samples(1, length, seed=seed, **options))

    def samples(
        self,
        num_samples: int,
        length: int = LENGTH,
        *,
        seed: int | None = None,
        prime: str = "",
        unknown: str = "error",
        temp: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        until: str | None = None,
    ) -> Iterator[tuple[str, ...]]:
        """Draw several texts as one batch; yield the next character of each, empty for those that have ended.

        ``prime`` is read first and not yielded; ``unknown="skip"`` leaves out characters of it that the model
        does not know. ``temp`` divides the logits (0 takes the likeliest), ``top_k`` and ``top_p`` keep only the
        likeliest characters. A text ends after ``length`` characters, or when ``until`` has been drawn.
        """
        if length < 0:
            raise UsageError(f"the length is {length}, and must be at least 0")
        if until == "":
            raise UsageError("the string to stop at is empty")
        draws = sampling.sample(
            self.stack,
            self.vocabulary,
            np.random.default_rng(seed),
            prime=self.vocabulary.encode(prime, unknown=unknown),
            temp=temp,
            top_k=top_k,
            top_p=top_p,
            num_samples=num_samples,
        )
        return self._texts(itertools.islice(draws, length), num_samples, until)

    def _texts(self, draws: Iterator[Any], num_samples: int, until: str | None) -> Iterator[tuple[str, ...]]:
        tails = [""] * num_samples
        ended = [False] * num_samples
        for ids in draws:
            texts = self.vocabulary.decode(ids)
            yield tuple("" if end else text for end, text in zip(ended, texts, strict=True))
            if until:
                tails = [(tail + text)[-len(until) :] for tail, text in zip(tails, texts, strict=True)]
                ended = [end or tail == until for end, tail in zip(ended, tails, strict=True)]
                if all(ended):
                    return

    def score(self, text: str, *, unknown: str = "error") -> Array:
        """Return -log p of each character given those before it, in nats, (n,) float64.

        The first character follows an unprinted newline (the vocabulary's start symbol). A text of 2,000 characters
        or more is read in several lanes at once, each warmed up by the 200 characters before it. With
        ``unknown="skip"`` characters that the model does not know are left out; otherwise they raise
        UnknownCharacterError.
        """
        v = self.vocabulary
        return scoring.score(self.stack, v.encode(text, unknown=unknown), v.encode(v.start))

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write weights, vocabulary and configuration alone, as float16 with ``half``. Raises SaveError."""
        weights = self.stack.p.vector
        keys = ("charrnn", "config", "vocabulary", "parameters", "step", "epoch", "best", "test_loss")
        header = {"kind": "model", **{key: self.header[key] for key in keys}}
        checkpoint.save(Path(path), header, {"best": weights.astype(np.float16) if half else weights})


def train(
    text: str, *, val: str | None = None, output: str | Path | None = None, threads: int = 1, **options: Any
) -> Model:
    """Train on a text and return the model with the best weights.

    ``options`` are the fields of ``charrnn.Config``, the same as the options of ``charrnn train``:
    ``cell``, ``hidden_size``, ``num_layers``, ``max_steps`` and so on. ``val`` is a validation text of its own;
    otherwise a part of ``text`` serves. With ``output`` the run is kept in that file. ``threads`` share the lanes out;
    they need a linear algebra library that has one itself (OPENBLAS_NUM_THREADS=1 before NumPy is imported, say).

    Raises UsageError for an option outside its range, TextError for a text that is too short, NotFiniteError
    when the loss is no longer finite, SaveError.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}, and must be at least 1")
    run = Run(Corpus("text", text), Config(**options), val=None if val is None else Corpus("val", val))
    run.threads = threads
    for _ in fit(run, None if output is None else Path(output)):
        pass
    run.stack.p.vector[:] = run.best
    return Model(run.stack, run.vocabulary, run.header())


def load(path: str | Path, *, last: bool = False) -> Model:
    """Load a model from a run's file, or from an exported one: the best weights, or the ``last``.

    Raises CheckpointError for a file that is missing, damaged, of a newer version, or not a checkpoint. Loading
    never runs code from the file.
    """
    path = Path(path)
    header, arrays = checkpoint.load(path)
    if last and "last" not in arrays:
        raise CheckpointError(f"{path}: holds the best weights alone, not the last ones")
    try:
        config = Config(**header["config"])
        vocabulary = Vocabulary(header["vocabulary"]["symbols"], header["vocabulary"]["start"])
        shape = config.cell, len(vocabulary), config.hidden_size, config.num_layers
        stack = Stack(*shape, np.dtype(config.dtype))
        if last:  # what the header tells of the best weights does not hold for these
            row = next((row for row in header["history"] if row["step"] == header["step"]), {"val_loss": None})
            header |= {"best": {"step": header["step"], "val_loss": row["val_loss"]}, "test_loss": None}
        weights = arrays["last" if last else "best"]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise CheckpointError(f"{path}: damaged: {e!r} in its header") from None
    if weights.shape != stack.p.vector.shape or weights.dtype.kind != "f":
        raise CheckpointError(
            f"{path}: damaged: {weights.dtype} weights of shape {weights.shape}, not {stack.p.vector.shape}"
        )
    stack.p.vector[:] = weights
    return Model(stack, vocabulary, header)
