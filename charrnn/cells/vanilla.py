"""The vanilla recurrence, as min-char-rnn has it: h = tanh(Wxh x + Whh h' + bh).

Source: Elman, "Finding structure in time", 1990; Karpathy's min-char-rnn for the letters. Shapes: Whh (H, H),
ax and dax (T, H, B), hs and dhs (T, H, B), state (1, H, B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Tape, columns

GATES, STATES = 1, 1


def bias(bh: Array) -> None:
    """Leave the bias at zero."""


def tape(T: int, H: int, B: int, dtype: DTypeLike) -> Tape:
    """Allocate what one window keeps: h, with the state before the window in its first row, and da."""
    return Tape(T, {"h": np.empty((T + 1, H, B), dtype), "da": np.empty((T, H, B), dtype)})


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    hs, hprev = tape["h"][1:], tape["h"][:-1]
    hprev[0] = state[0]
    for t in range(len(ax)):
        np.tanh(ax[t] + Whh @ hprev[t], out=hs[t])
    return hs, hs[-1:].copy()


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    hs, hprev, da = tape["h"][1:], tape["h"][:-1], tape["da"]
    dhnext = dstate[0]
    for t in reversed(range(len(dhs))):
        dh = dhs[t] + dhnext  # backprop into h
        np.multiply(1 - hs[t] * hs[t], dh, out=da[t])  # through tanh
        dhnext = Whh.T @ da[t]
    np.matmul(columns(da), columns(hprev).T, out=dWhh)  # all steps, one product
    return da, dhnext[None]
