"""Softmax cross-entropy, in nats, and its gradient. A target below zero is padding: it costs nothing."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids


def forward(logits: Array, ys: Ids) -> tuple[Array, Array]:
    """Return -log p of the targets ``ys`` (n,), in nats, (n,), and the sums that turn what is left into p.

    ``logits`` (V, n) become exp(logits - their maximum) in place: p is that divided by the sums (n,).
    """
    logits -= logits.max(0)  # the maximum out first: exp cannot overflow
    nats: Array = -logits[np.maximum(ys, 0), np.arange(len(ys))]
    np.exp(logits, out=logits)
    total: Array = np.add.reduce(logits, axis=0)
    nats += np.log(total)
    nats[ys < 0] = 0
    return nats, total


def backward(e: Array, total: Array, ys: Ids, scale: float) -> Array:
    """Return ``scale`` times the gradient of the summed loss by the logits: p less 1 at the target, in place.

    ``e`` (V, n) and ``total`` (n,) are what forward left.
    """
    each = np.where(ys < 0, 0, scale).astype(e.dtype)
    e *= each / total
    e[np.maximum(ys, 0), np.arange(len(ys))] -= each
    return e
