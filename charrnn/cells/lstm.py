"""Long short-term memory: i, f, o = sigmoid(a), g = tanh(a), c = f c' + i g, h = o tanh(c).

Source: Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000, and no peepholes. Shapes:
Whh (4 H, H) in the order i, f, o, g; ax and dax (T, 4 H, B); hs and dhs (T, H, B); state (2, H, B), h and c.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import HALF, Array, Tape, columns, packed

GATES, STATES = 4, ("h", "c")
STEP = "hprev", "cprev", "Whh h", "a", "ifo", "i", "f", "o", "g", "cs", "tanhc", "hs"


def bias(bh: Array) -> None:
    """Set the forget gate's bias to 1, so that it remembers at first (Jozefowicz et al., 2015, section 2.2)."""
    H = len(bh) // 4
    bh[H : 2 * H] = 1


def tape(T: int, H: int, B: int, dtype: DTypeLike, lower: Tape | None = None) -> Tape:
    """Allocate what one window needs: h and c, with the state before it in their first rows, the gates, da."""
    h: Array = np.empty((T + 1, H, B), dtype)
    c = np.empty_like(h)
    a = np.empty((T, 4 * H, B), dtype)  # i f o g, after the nonlinearity
    kept = {"h": h, "hprev": h[:-1], "hs": h[1:], "c": c, "cprev": c[:-1], "cs": c[1:]}
    kept |= {"tanhc": np.empty((T, H, B), dtype), "a": a, "ifo": a[:, : 3 * H]}
    kept |= zip("ifog", np.split(a, 4, axis=1), strict=True)
    if lower:
        return Tape(T, kept, lower.work, lower.scratch)
    da = np.empty((T, 4 * H, B), dtype)  # before the nonlinearity
    work = {"da": da, "difo": da[:, : 3 * H], "dc": np.empty((T, H, B), dtype)}
    work |= zip(("di", "df", "do", "dg"), np.split(da, 4, axis=1), strict=True)
    work |= {"dax": packed(T, 4 * H, B, dtype), "x": packed(T, H, B, dtype)}
    dstate = np.empty((2, H, B), dtype)
    scratch: dict[str, Array] = {"Whh h": np.empty((4 * H, B), dtype), "dh": np.empty((H, B), dtype)}
    scratch |= {"dhnext": dstate[0], "dcnext": dstate[1], "dstate": dstate, "last": np.empty((2, H, B), dtype)}
    return Tape(T, kept, work, scratch)


def step(Whh: Array, ax: Array, *views: Array) -> None:
    """Write the gates a = (i, f, o, g), then c, tanh(c) and h."""
    hprev, cprev, Whh_h, a, ifo, i, f, o, g, c, tanhc, h = views
    np.dot(Whh, hprev, out=Whh_h)
    np.add(ax, Whh_h, out=a)
    ifo *= HALF
    np.tanh(a, out=a)  # all four at once, since sigmoid(a) = (1 + tanh(a / 2)) / 2
    ifo *= HALF
    ifo += HALF
    np.multiply(f, cprev, out=c)
    np.multiply(i, g, out=h)
    c += h  # c = f c' + i g
    np.tanh(c, out=tanhc)
    np.multiply(o, tanhc, out=h)  # h = o tanh(c)


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    h, c, last = tape["h"], tape["c"], tape["last"]
    h[0], c[0] = state
    for x, views in zip(ax, tape.steps(*STEP), strict=True):
        step(Whh, x, *views)
    last[0], last[1] = h[-1], c[-1]
    return h[1:], last


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    _slopes(tape)
    tape["dstate"][:] = dstate
    steps = tape.steps("dh", "dhnext", "dcnext", "dc", "do", "di", "df", "dg", "f", "da")
    for dhs_t, (dh, dhnext, dcnext, dc, do, di, df, dg, f, da) in zip(dhs[::-1], reversed(steps), strict=True):
        np.add(dhs_t, dhnext, out=dh)  # backprop into h
        do *= dh
        dc *= dh
        dc += dcnext  # into c
        di *= dc
        df *= dc
        dg *= dc
        np.multiply(dc, f, out=dcnext)
        np.dot(Whh.T, da, out=dhnext)
    dax, x = tape["dax"], tape["x"]
    dax[:], x[:] = tape["da"], tape["hprev"]
    np.matmul(columns(dax), columns(x).T, out=dWhh)  # all steps, one product
    return dax, tape["dstate"]


def gates(tape: Tape) -> Mapping[str, Array]:
    """Return the gates of the window, (T, H, B) each."""
    return {name: tape[name] for name in "ifo"}


def _slopes(tape: Tape) -> None:
    """Write to da and dc what backward multiplies by dh and dc: that waits for no later step, so all go at once."""
    ifo, i, o, g, tanhc = (tape[name] for name in ("ifo", "i", "o", "g", "tanhc"))
    difo, di, df, do, dg, dc = (tape[name] for name in ("difo", "di", "df", "do", "dg", "dc"))
    np.subtract(1, ifo, out=difo)
    difo *= ifo  # through the sigmoids: i (1 - i)
    di *= g
    df *= tape["cprev"]
    do *= tanhc
    np.multiply(g, g, out=dg)
    np.subtract(1, dg, out=dg)  # through tanh: 1 - g g
    dg *= i
    np.multiply(tanhc, tanhc, out=dc)
    np.subtract(1, dc, out=dc)
    dc *= o
