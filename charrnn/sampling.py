"""Drawing text from a model, one character at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.errors import UsageError
from charrnn.stack import Stack
from charrnn.vocabulary import Vocabulary


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
    read = vocabulary.encode(vocabulary.start) if prime is None or not len(prime) else prime
    tape, state = stack.tape(1, 1), stack.zero_state(1)
    for x in read:
        state = stack.forward(np.array([[x]]), state, tape)
    logits = np.repeat(tape[-1]["logits"][0].T, B, axis=0)  # (B, V)
    tape, state = stack.tape(1, B), np.repeat(state, B, axis=-1)
    while True:
        ids = draw(logits, rng.random(len(logits)), temp, top_k, top_p)
        yield ids
        state = stack.forward(ids[None], state, tape)
        logits = tape[-1]["logits"][0].T


def draw(logits: Array, uniforms: Array, temp: float, top_k: int | None = None, top_p: float | None = None) -> Ids:
    """Return an id for each row of logits (B, V), from a uniform number in [0, 1) each, (B,).

    Temperature divides the logits; 0 takes the largest, the lowest id among equals. ``top_k`` keeps that many of
    the likeliest (Fan et al., 2018), ``top_p`` the fewest that hold that share (Holtzman et al., 2020).
    """
    z = logits.astype(np.float64)
    z -= z.max(1, keepdims=True)
    if temp == 0:
        likeliest: Ids = z.argmax(1)
        return likeliest
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the largest to -inf, as it should
        p = np.exp(z / temp)
    if top_k is not None or top_p is not None:
        order = np.argsort(-z, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, 1)
        if top_k is not None:
            ranked[:, top_k:] = 0
        if top_p is not None:
            before = np.cumsum(ranked, axis=1) - ranked
            ranked[before >= top_p * ranked.sum(1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, 1)
    cdf = np.cumsum(p, axis=1)
    cdf /= cdf[:, -1:]  # ends in exactly 1, above every uniform number: no symbol of probability 0 is drawn
    ids: Ids = (cdf > uniforms[:, None]).argmax(1)
    return ids
