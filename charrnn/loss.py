"""Softmax cross-entropy, in nats, and its gradient. A target below zero is padding: it costs nothing."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids


def forward(logits: Array, ys: Ids) -> Array:
    """Return -log p of the targets ``ys`` (T, B), in nats, (T, B); ``logits`` (T, V, B) become p in place."""
    logits -= logits.max(1, keepdims=True)  # the maximum out first: exp cannot overflow
    nats = -np.take_along_axis(logits, ys[:, None].clip(min=0), 1)[:, 0]
    np.exp(logits, out=logits)
    total = logits.sum(1, keepdims=True)
    logits /= total
    nats += np.log(total[:, 0])
    nats[ys < 0] = 0
    return nats


def backward(p: Array, ys: Ids, scale: float) -> Array:
    """Return ``scale`` times the gradient of the summed loss by the logits: p less 1 at the target, in place."""
    at = ys[:, None].clip(min=0)
    np.put_along_axis(p, at, np.take_along_axis(p, at, 1) - 1, 1)
    p *= scale * (ys >= 0).astype(p.dtype)[:, None]
    return p
