"""Naive Bayes over the character n-grams of a text: a baseline for labels, and a part of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.loss import log_softmax
from charrnn.storage.ngrams import decompress
from charrnn.text.units import code_points

ORDERS = range(1, 6)
CELLS = 2**23  # of the table of counts, over all labels
MAX_BUCKETS, MIN_BUCKETS = 2**19, 2**12
SMOOTHING = 0.1  # added to every count
NEWTON_STEPS, RIDGE = 30, 1e-6
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Counts = NDArray[np.uint32]


class NaiveBayes:
    """p(label) times the product of p(n-gram | label) over the distinct n-grams of a text.

    n-grams of 1 to 5 characters, the ends of the line included, are hashed into buckets. ``counts``
    (1 + buckets, C) are the number of lines of each of the C labels, and those with each n-gram.
    """

    def __init__(self, counts: Counts) -> None:
        lines, table = counts[0] + SMOOTHING, counts[1:].astype(np.float32)
        self.num_buckets = len(table)
        totals = table.sum(0) + SMOOTHING * table.any(1).sum()
        self.log_prior = np.log(lines / lines.sum())
        self.log_p = np.log((table + SMOOTHING) / totals)

    def log_probs(self, texts: Sequence[str]) -> Array:
        """Return log p of each label for each text, (n, C)."""
        found = [ngram_buckets(text, self.num_buckets) for text in texts]
        scores = [self.log_prior + self.log_p[buckets].sum(0) for buckets in found]
        return log_softmax(np.array(scores).reshape(-1, len(self.log_prior)))


def count_ngrams(texts: Sequence[str], labels: Sequence[int], C: int) -> Counts:
    """Return the counts of some texts, each with one of C labels."""
    counts = np.zeros((1 + num_buckets(C), C), np.uint32)
    for text, label in zip(texts, labels, strict=True):
        counts[0, label] += 1
        counts[1 + ngram_buckets(text, len(counts) - 1), label] += 1
    return counts


def num_buckets(C: int) -> int:
    """Return the number of buckets, a power of two; 0 if there are too many labels."""
    buckets: int = 1 << (min(CELLS // max(C, 1), MAX_BUCKETS) | 1).bit_length() - 1
    return buckets if buckets >= MIN_BUCKETS else 0


def ngram_buckets(text: str, num_buckets: int) -> Ids:
    """Return the buckets of the distinct n-grams of a text."""
    codes = np.concatenate([[0], code_points(text).astype(np.uint64) + np.uint64(2), [1]])
    codes = codes.astype(np.uint64)
    found, hashed = [], np.zeros(len(codes) + 1, np.uint64)
    for n in ORDERS:
        if n > len(codes):
            break
        hashed = (hashed[:-1] + codes[n - 1 :] + np.uint64(1)) * MULTIPLIER
        hashed ^= hashed >> np.uint64(29)
        found.append((hashed * MULTIPLIER) >> np.uint64(65 - num_buckets.bit_length()))
    return np.unique(np.concatenate(found)).astype(np.intp)


def pack_counts(counts: Counts) -> NDArray[np.uint8]:
    """Return the counts as a checkpoint has them: compressed by zlib."""
    return np.frombuffer(zlib.compress(counts.astype("<u4").tobytes()), np.uint8)


def unpack_counts(data: NDArray[np.uint8], C: int) -> Counts:
    """Return the counts of a checkpoint. Raises InvalidCheckpoint."""
    raw = decompress(data, 4 * C * (1 + num_buckets(C)))
    return np.frombuffer(raw, "<u4").reshape(-1, C).astype(np.uint32)


def fit_scale(logp: Array, ys: Ids) -> float:
    """Return the factor of log p (n, C) with the lowest loss of the labels (n,): it is convex."""
    scale, rows = 1.0, np.arange(len(ys))
    for _ in range(NEWTON_STEPS):
        p = np.exp(log_softmax(scale * logp))
        mean = (p * logp).sum(1)
        slope = float((mean - logp[rows, ys]).mean())
        curvature = float(((p * logp * logp).sum(1) - mean * mean).mean())
        scale = min(max(scale - slope / (curvature + RIDGE), scale / 2), scale * 2)
    return scale
