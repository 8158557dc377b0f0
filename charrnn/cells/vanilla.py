"""The vanilla recurrence, as min-char-rnn has it: h = tanh(Wxh x + Whh h' + bh).

Source: Elman, "Finding structure in time", 1990; Karpathy's min-char-rnn for the letters. Shapes: Whh (H, H),
ax and dax (T, H, B), hs and dhs (T, H, B), state (1, H, B).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Tape, columns, packed

GATES, STATES = 1, ("h",)
STEP = "hprev", "Whh h", "hs"


def bias(bh: Array) -> None:
    """Leave the bias at zero."""


def tape(T: int, H: int, B: int, dtype: DTypeLike, lower: Tape | None = None) -> Tape:
    """Allocate what one window needs: h, with the state before the window in its first row, and da."""
    h = np.empty((T + 1, H, B), dtype)
    kept = {"h": h, "hprev": h[:-1], "hs": h[1:], "a": h[1:]}
    if lower:
        return Tape(T, kept, lower.work, lower.scratch)
    work = {"da": np.empty((T, H, B), dtype), "dax": packed(T, H, B, dtype), "x": packed(T, H, B, dtype)}
    dstate = np.empty((1, H, B), dtype)
    scratch = {"Whh h": np.empty((H, B), dtype), "dh": np.empty((H, B), dtype), "dhnext": dstate[0], "dstate": dstate}
    return Tape(T, kept, work, scratch)


def step(Whh: Array, ax: Array, *views: Array) -> None:
    """Write h."""
    hprev, Whh_h, h = views
    np.dot(Whh, hprev, out=Whh_h)
    np.add(ax, Whh_h, out=h)
    np.tanh(h, out=h)  # h = tanh(Wxh x + Whh h' + bh)


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    h = tape["h"]
    h[0] = state[0]
    for x, views in zip(ax, tape.steps(*STEP), strict=True):
        step(Whh, x, *views)
    return h[1:], h[-1:]


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    hs, da, dax, x = tape["hs"], tape["da"], tape["dax"], tape["x"]
    np.multiply(hs, hs, out=da)  # through tanh, 1 - h h: for all steps at once
    np.subtract(1, da, out=da)
    tape["dstate"][:] = dstate
    for dhs_t, (da_t, dh, dhnext) in zip(dhs[::-1], reversed(tape.steps("da", "dh", "dhnext")), strict=True):
        np.add(dhs_t, dhnext, out=dh)  # backprop into h
        da_t *= dh
        np.dot(Whh.T, da_t, out=dhnext)
    dax[:], x[:] = da, tape["hprev"]
    np.matmul(columns(dax), columns(x).T, out=dWhh)  # all steps, one product
    return dax, tape["dstate"]


def gates(tape: Tape) -> Mapping[str, Array]:
    """Return nothing: there are no gates."""
    return {}
