"""Drawing text from a model, one character at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.errors import UsageError
from charrnn.stack import Stack, Stepper
from charrnn.vocabulary import Vocabulary

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
    read = vocabulary.encode(vocabulary.start) if prime is None or not len(prime) else prime
    state = stack.zero_state(1)
    tape = stack.tape(CHUNK, 1)
    for i in range(0, len(read) - 1, CHUNK):
        part = read[i : min(i + CHUNK, len(read) - 1), None]
        state = stack.forward(part, state, [each.cut(0, len(part)) for each in tape])
    step = Stepper(stack, np.repeat(state, B, axis=-1))
    ids: Ids = np.repeat(read[-1], B)
    while True:
        for uniforms in rng.random((UNIFORMS, B)):
            ids = draw(step(ids).T, uniforms, temp, top_k, top_p)
            yield ids


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
