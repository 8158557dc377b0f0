"""Update rules, clipping and schedules, all on flat vectors.

An update changes in place the parameters ``p`` (n,) and the optimizer state (k, n), zero at first,
given the number of the step, from 1, and the gradient ``d`` (n,), which it overwrites.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from charrnn.arrays import Array

BLOCK_SIZE = 1 << 15  # elements that are updated at a time


def adam(p: Array, d: Array, lr: float, step: int, opt_state: Array) -> None:
    """Adam: Kingma and Ba, 2015, algorithm 1, as at the end of section 2; beta .9, .999."""
    m, v = opt_state
    alpha = lr * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    d *= 0.1
    m *= 0.9
    m += d  # m = .9 m + .1 d
    d *= d
    d *= 0.1
    v *= 0.999
    v += d  # v = .999 v + .001 d d
    np.sqrt(v, out=d)
    d += 1e-8
    np.divide(m, d, out=d)
    d *= alpha
    p -= d  # p = p - alpha m / (sqrt(v) + 1e-8)


def rmsprop(p: Array, d: Array, lr: float, step: int, opt_state: Array) -> None:
    """RMSprop: Tieleman and Hinton, 2012, lecture 6.5; decay .95, as in char-rnn."""
    v = opt_state[0]
    v *= 0.95
    v += 0.05 * d * d
    d *= lr
    d /= np.sqrt(v + 1e-8)
    p -= d


def adagrad(p: Array, d: Array, lr: float, step: int, opt_state: Array) -> None:
    """Adagrad: Duchi et al., 2011, figure 1, diagonal form; as in min-char-rnn."""
    m = opt_state[0]
    m += d * d
    d *= lr
    d /= np.sqrt(m + 1e-8)
    p -= d


def sgd(p: Array, d: Array, lr: float, step: int, opt_state: Array) -> None:
    """Stochastic gradient descent: Robbins and Monro, 1951."""
    d *= lr
    p -= d


class Optimizer(NamedTuple):
    update_fn: Callable[[Array, Array, float, int, Array], None]
    num_moments: int  # kept for each parameter

    def update(self, p: Array, d: Array, lr: float, step: int, opt_state: Array) -> None:
        """Apply the rule block by block: each stays in the cache for all its operations."""
        for i in range(0, len(p), BLOCK_SIZE):
            block = slice(i, i + BLOCK_SIZE)
            self.update_fn(p[block], d[block], lr, step, opt_state[:, block])


OPTIMIZERS = {
    "adam": Optimizer(adam, 2),
    "rmsprop": Optimizer(rmsprop, 1),
    "adagrad": Optimizer(adagrad, 1),
    "sgd": Optimizer(sgd, 0),
}


def decay(p: Array, lr: float, weight_decay: float) -> None:
    """Decay the parameters in place, before an update.

    Loshchilov and Hutter, 2019, algorithm 2: decoupled from the gradient.
    """
    if weight_decay:
        p *= 1 - lr * weight_decay


def clip(d: Array, norm: float, value: float) -> float:
    """Clip the gradient in place, each element at ``value``, then the norm at ``norm``; 0: do not.

    Return the norm before. Pascanu et al., 2013, algorithm 1; the elements as in min-char-rnn.
    """
    norm_before = math.sqrt(d @ d)
    if value:
        np.clip(d, -value, value, out=d)
    if norm and (norm_after := math.sqrt(d @ d)) > norm:
        d *= norm / norm_after
    return norm_before


SCHEDULES: dict[str, Callable[[float], float]] = {
    # Loshchilov and Hutter, 2017, eq. 5, without restarts
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "linear": lambda x: 1 - x,
    "constant": lambda x: 1.0,
}
