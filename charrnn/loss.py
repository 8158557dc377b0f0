"""Softmax cross-entropy, in nats, and its gradient. A target below 0 is padding, with loss 0."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids


def forward(logits: Array, ys: Ids) -> tuple[Array, Array]:
    """Return -log p of the targets ``ys`` (n,), in nats, (n,), and the denominators of p, (n,).

    ``logits`` (V, n) become exp(logits - their maximum) in place: p is that over the denominators.
    """
    logits -= logits.max(0)  # without the maximum exp could overflow
    nll: Array = -logits[np.maximum(ys, 0), np.arange(len(ys))]
    np.exp(logits, out=logits)
    sum_exp: Array = np.add.reduce(logits, axis=0)
    nll += np.log(sum_exp)
    nll[ys < 0] = 0
    return nll, sum_exp


def log_softmax(logits: Array) -> Array:
    """Return log p of logits (..., V), in float64."""
    logp = logits.astype(np.float64)
    logp -= logp.max(-1, keepdims=True)  # without the maximum exp could overflow
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    return logp


def backward(exp_logits: Array, sum_exp: Array, ys: Ids, scale: float) -> Array:
    """Return ``scale`` times the gradient of the summed loss with respect to the logits, in place.

    That is p, less 1 at the target. ``exp_logits`` (V, n) and ``sum_exp`` (n,) are from forward.
    """
    target_scale = np.where(ys < 0, 0, scale).astype(exp_logits.dtype)
    exp_logits *= target_scale / sum_exp
    exp_logits[np.maximum(ys, 0), np.arange(len(ys))] -= target_scale
    return exp_logits
