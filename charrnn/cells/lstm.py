"""Long short-term memory: i, f, o = sigmoid(a), g = tanh(a), c = f c' + i g, h = o tanh(c).

Source: Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000, and no
peepholes. Shapes: Whh (4 H, H) in the order i, f, o, g; ax and dax (T, 4 H, B); hs and dhs (T, H,
B); state (2, H, B), h and c.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import add, dot, multiply, tanh

from charrnn.arrays import Array, sigmoid, sigmoid_derivative, tanh_derivative
from charrnn.cells.base import Cell


class LSTMViews(NamedTuple):
    """A step's values, or their gradients."""

    hprev: Array  # (H, B)
    cprev: Array  # (H, B)
    Whh_h: Array  # (4 H, B); its gradient is da
    a: Array  # (4 H, B), i f o g
    ifo: Array  # (3 H, B)
    i: Array  # (H, B)
    f: Array  # (H, B)
    o: Array  # (H, B)
    g: Array  # (H, B)
    c: Array  # (H, B)
    tanhc: Array  # (H, B)
    h: Array  # (H, B)


class LSTM(Cell[LSTMViews]):
    """i, f, o = sigmoid(a), g = tanh(a), c = f c' + i g, h = o tanh(c)."""

    NUM_BLOCKS = 4
    BLOCK_NAMES = ("i", "f", "o", "g")
    STATE_NAMES = ("h", "c")
    ONE_PRODUCT = True

    def init_bias(self, bh: Array) -> None:
        """Start with an open forget gate: bias 1 (Jozefowicz et al., 2015, section 2.2)."""
        bh.reshape(4, -1)[1] = 1

    def new_views(self, a: Array, states: Array, Whh_h: Array) -> LSTMViews:
        """Name the values; ``a`` becomes i, f, o, g."""
        (h, c), (i, f, o, g) = states, np.split(a, 4, axis=1)
        ifo, tanhc = a[:, : h.shape[1] * 3], np.empty_like(c[1:])
        return LSTMViews(h[:-1], c[:-1], Whh_h, a, ifo, i, f, o, g, c[1:], tanhc, h[1:])

    def new_dviews(self, da: Array, dstates: Array, scratch: Array) -> LSTMViews:
        """Name the gradients; dc is computed from dtanhc at each step."""
        (dhnext, dcnext), (dh, dc) = dstates, scratch
        difo, (di, df, do, dg) = da[:, : dh.shape[1] * 3], np.split(da, 4, axis=1)
        dtanhc = np.empty(dh.shape, da.dtype)
        return LSTMViews(dhnext, dcnext, da, da, difo, di, df, do, dg, dc, dtanhc, dh)

    def step(self, Whh: Array, ax: Array, views: LSTMViews) -> None:
        """Write the gates a = (i, f, o, g), then c, tanh(c) and h."""
        hprev, cprev, Whh_h, a, ifo, i, f, o, g, c, tanhc, h = views
        dot(Whh, hprev, Whh_h)
        add(ax, Whh_h, a)
        sigmoid(ifo)
        tanh(g, g)
        multiply(f, cprev, c)
        multiply(i, g, h)
        c += h  # c = f c' + i g
        tanh(c, tanhc)
        multiply(o, tanhc, h)  # h = o tanh(c)

    def local_derivatives(self, views: LSTMViews, dviews: LSTMViews) -> None:
        """Write the factors of dh and dc that no later step changes."""
        _, cprev, _, _, ifo, i, _, o, g, _, tanhc, _ = views
        _, _, _, _, difo, di, df, do, dg, _, dtanhc, _ = dviews
        sigmoid_derivative(ifo, out=difo)
        di *= g
        df *= cprev
        do *= tanhc
        tanh_derivative(g, out=dg)
        dg *= i
        tanh_derivative(tanhc, out=dtanhc)
        dtanhc *= o

    def backward_step(self, WhhT: Array, dhs: Array, views: LSTMViews, dviews: LSTMViews) -> None:
        """Write da, dhnext and dcnext."""
        dhnext, dcnext, da, _, _, di, df, do, dg, dc, dtanhc, dh = dviews
        add(dhs, dhnext, dh)  # backprop into h
        do *= dh
        multiply(dtanhc, dh, dc)
        dc += dcnext  # into c
        di *= dc
        df *= dc
        dg *= dc
        multiply(dc, views.f, dcnext)
        dot(WhhT, da, dhnext)

    def gate_activations(self, views: LSTMViews) -> dict[str, Array]:
        """Return i, f and o."""
        return {"i": views.i, "f": views.f, "o": views.o}
