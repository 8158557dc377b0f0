"""Naive Bayes over the character n-grams of a text, a baseline for labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.loss import log_softmax
from charrnn.text.units import code_points

ORDERS = range(1, 6)
CELLS = 2**23  # of the table of counts, over all labels
MAX_BUCKETS, MIN_BUCKETS = 2**19, 2**12
SMOOTHING = 0.1  # added to every count
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class NaiveBayes:
    """p(label) times the product of p(n-gram | label) over the distinct n-grams of a text.

    n-grams of 1 to 5 characters, the ends of the line included, are hashed into buckets.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> None:
        C = len(names)
        buckets = min(max(CELLS // C, MIN_BUCKETS), MAX_BUCKETS)
        self.bits = np.uint64(64 - (buckets.bit_length() - 1))
        self.counts = np.zeros((1 << (buckets.bit_length() - 1), C), np.float32)
        index = {name: i for i, name in enumerate(names)}
        y = np.array([index[label] for label in labels])
        for text, label in zip(texts, y.tolist(), strict=True):
            self.counts[self.features(text), label] += 1
        used = int(self.counts.any(1).sum())
        totals = self.counts.sum(0) + SMOOTHING * used
        self.log_prior = np.log(np.bincount(y, minlength=C) + SMOOTHING)
        self.log_p = np.log((self.counts + SMOOTHING) / totals)

    def features(self, text: str) -> Ids:
        """Return the buckets of the distinct n-grams of a text."""
        codes = np.concatenate([[0], code_points(text).astype(np.uint64) + 2, [1]])
        codes = codes.astype(np.uint64)
        found, hashed = [], np.zeros(len(codes) + 1, np.uint64)
        for n in ORDERS:
            if n > len(codes):
                break
            hashed = (hashed[:-1] + codes[n - 1 :] + np.uint64(1)) * MULTIPLIER
            hashed ^= hashed >> np.uint64(29)
            found.append((hashed * MULTIPLIER) >> self.bits)
        buckets: Ids = np.unique(np.concatenate(found)).astype(np.intp)
        return buckets

    def log_probs(self, texts: Sequence[str]) -> Array:
        """Return log p of each label for each text, (n, C)."""
        scores = [self.log_prior + self.log_p[self.features(text)].sum(0) for text in texts]
        return log_softmax(np.array(scores))
