"""Count models, to tell what a loss is worth."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

LADDER = ("uniform", "unigram", "bigram", "trigram")


def ladder(train: Ids, val: Ids, context: Ids, V: int) -> dict[str, float]:
    """Return the loss on ``val``, in nats per character, of a uniform guess and of 1-, 2- and 3-grams.

    They are counted on ``train``; ``context`` is what stands before ``val``. Each order is interpolated with the
    one below it by Witten and Bell's rule (1991, method C):
    p(c | h) = (count(h c) + kinds(h) p(c | h')) / (count(h) + kinds(h)), down to 1 / V.
    """
    p = np.full(len(val), 1 / V)
    losses = [math.log(V)]
    for n in range(1, len(LADDER)):
        grams, counts = np.unique(_grams(train, n, V), return_counts=True)
        contexts, starts = np.unique(grams // V, return_index=True)
        totals, kinds = np.add.reduceat(counts, starts), np.diff([*starts, len(grams)])
        seen = _grams(np.concatenate([context[-n + 1 :] if n > 1 else context[:0], val]), n, V)
        missing = len(val) - len(seen)  # at the start of a text that nothing precedes
        count = _lookup(grams, counts, seen)
        total, kind = _lookup(contexts, totals, seen // V), _lookup(contexts, kinds, seen // V)
        known = total > 0
        lower = p[missing:]
        p[missing:] = np.where(known, (count + kind * lower) / np.maximum(total + kind, 1), lower)
        losses.append(float(-np.log(p).mean()))
    return dict(zip(LADDER, losses, strict=True))


def _grams(ids: Ids, n: int, V: int) -> NDArray[np.int64]:
    """Return a number for each run of n symbols, whose last symbol is its remainder by V."""
    key = np.zeros(max(len(ids) - n + 1, 0), np.int64)
    for i in range(n):
        key = key * V + ids[i : i + len(key)]
    return key


def _lookup(keys: NDArray[np.int64], values: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the value of each wanted key, 0 where there is none; ``keys`` are sorted."""
    if not len(keys):
        return np.zeros_like(wanted)
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
