"""Drawing text from a model, one character at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.errors import UsageError
from charrnn.stack import Stack, Stepper
from charrnn.units import END, UNKNOWN, Composer
from charrnn.vocabulary import NEWLINE, Vocabulary

CHUNK = 64  # steps of a prime that are read at a time
UNIFORMS = 256  # random numbers drawn at a time, for every stream


def sample(
    stack: Stack,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    prime: Ids | None = None,
    temp: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_samples: int = 1,
) -> Iterator[Ids]:
    """Yield the ids that are drawn, (num_samples,) at a time, without end.

    ``prime`` is read first, from the zero state; where it is empty, the vocabulary's start symbol is.
    Raises UsageError for a temperature below 0, a top_k below 1, a top_p outside (0, 1] or no samples.
    """
    if not (temp >= 0 and np.isfinite(temp)):
        raise UsageError(f"the temperature is {temp}, and must be a number from 0 up")
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k is {top_k}, and must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p is {top_p}, and must be above 0 and at most 1")
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}, and must be at least 1")
    return _draws(stack, vocabulary, rng, prime, temp, top_k, top_p, num_samples)


def _draws(
    stack: Stack,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    prime: Ids | None,
    temp: float,
    top_k: int | None,
    top_p: float | None,
    B: int,
) -> Iterator[Ids]:
    read = vocabulary.start_id if prime is None or not len(prime) else prime
    never = vocabulary.id(UNKNOWN)
    state = stack.zero_state(1)
    tape = stack.tape(CHUNK, 1)
    for i in range(0, len(read) - 1, CHUNK):
        part = read[i : min(i + CHUNK, len(read) - 1), None]
        state = stack.forward(part, state, [each.cut(0, len(part)) for each in tape])
    step = Stepper(stack, np.repeat(state, B, axis=-1))
    ids: Ids = np.repeat(read[-1], B)
    while True:
        for uniforms in rng.random((UNIFORMS, B)):
            logits = step(ids)
            if never is not None:
                logits[never] = -np.inf
            ids = draw(logits.T, uniforms, temp, top_k, top_p)
            yield ids


def border(vocabulary: Vocabulary, by: str | None) -> int | None:
    """Return the id that ends a document of a model by ``line`` or ``file``."""
    return None if by is None else vocabulary.id(NEWLINE if by == "line" else END)


def texts(
    draws: Iterator[Ids],
    vocabulary: Vocabulary,
    num_samples: int,
    length: int,
    until: str | None = None,
    border: int | None = None,
) -> Iterator[tuple[str, ...]]:
    """Turn ids that are drawn into text: yield what has become certain of each of ``num_samples``.

    A text ends after ``length`` characters, when ``until`` has been written, or when ``border`` has been drawn.
    """
    composer = Composer()
    letters = vocabulary.unit == "jamo"
    single = ["" if letters else composer.feed(code) for code in vocabulary.codes.tolist()]
    if until is None and border is None and not letters:
        yield from (tuple([single[i] for i in ids.tolist()]) for ids in islice(draws, length))
        return
    composers = [Composer() for _ in range(num_samples)]
    tails, left = [""] * num_samples, [length] * num_samples
    for ids in draws if length else ():
        pieces = [""] * num_samples
        for k, i in enumerate(ids.tolist()):
            if not left[k]:
                continue
            piece = composers[k].feed(int(vocabulary.codes[i])) if letters else single[i]
            for character in piece:
                pieces[k] += character
                tails[k] = (tails[k] + character)[-len(until) :] if until else ""
                left[k] = 0 if until and tails[k] == until else left[k] - 1
                if not left[k]:
                    break
            if i == border:
                left[k] = 0
        yield tuple(pieces)
        if not any(left):
            return


@np.errstate(over="ignore")  # a tiny temperature sends all but the largest to -inf, as it should
def draw(logits: Array, uniforms: Array, temp: float, top_k: int | None = None, top_p: float | None = None) -> Ids:
    """Return an id for each row of logits (B, V), from a uniform number in [0, 1) each, (B,).

    Temperature divides the logits; 0 takes the largest, the lowest id among equals. ``top_k`` keeps that many of
    the likeliest (Fan et al., 2018), ``top_p`` the fewest that hold that share (Holtzman et al., 2020).
    """
    p = (logits[0] if len(logits) == 1 else logits).astype(np.float64)
    p -= np.maximum.reduce(p, axis=-1, keepdims=True)
    if temp == 0:
        likeliest: Ids = np.atleast_1d(p.argmax(-1))
        return likeliest
    if top_k is not None or top_p is not None:
        order = np.argsort(-p, axis=-1, kind="stable")  # by the logits: a high temperature makes all alike
    p /= temp
    np.exp(p, out=p)
    if top_k is not None or top_p is not None:
        ranked = np.take_along_axis(p, order, -1)
        if top_k is not None:
            ranked[..., top_k:] = 0
        if top_p is not None:
            before = np.cumsum(ranked, axis=-1) - ranked
            ranked[before >= top_p * ranked.sum(-1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, -1)
    np.add.accumulate(p, axis=-1, out=p)
    p /= p[..., -1:]  # ends in exactly 1, above every uniform number: no symbol of probability 0 is drawn
    if p.ndim == 1:
        return p.searchsorted(uniforms, side="right")
    ids: Ids = (p > uniforms[:, None]).argmax(1)
    return ids
