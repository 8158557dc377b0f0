"""Long short-term memory: i, f, o = sigmoid(a), g = tanh(a), c = f c' + i g, h = o tanh(c).

Source: Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000, and no peepholes. Shapes:
Whh (4 H, H) in the order i, f, o, g; ax and dax (T, 4 H, B); hs and dhs (T, H, B); state (2, H, B), h and c.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Tape, columns, sigmoid

GATES, STATES = 4, 2


def bias(bh: Array) -> None:
    """Set the forget gate's bias to 1, so that it remembers at first (Jozefowicz et al., 2015, section 2.2)."""
    H = len(bh) // 4
    bh[H : 2 * H] = 1


def tape(T: int, H: int, B: int, dtype: DTypeLike) -> Tape:
    """Allocate what one window keeps: h and c, with the state before it in their first rows, the gates, da."""
    return Tape(
        T,
        {
            "h": np.empty((T + 1, H, B), dtype),
            "c": np.empty((T + 1, H, B), dtype),
            "tanhc": np.empty((T, H, B), dtype),
            "a": np.empty((T, 4 * H, B), dtype),  # i f o g, after the nonlinearity
            "da": np.empty((T, 4 * H, B), dtype),  # before it
        },
    )


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    hs, hprev, cs, cprev = tape["h"][1:], tape["h"][:-1], tape["c"][1:], tape["c"][:-1]
    tanhc, a = tape["tanhc"], tape["a"]
    H = hs.shape[1]
    hprev[0], cprev[0] = state
    for t in range(len(ax)):
        ifo, (i, f, o, g) = a[t, : 3 * H], a[t].reshape(4, H, -1)
        np.add(ax[t], Whh @ hprev[t], out=a[t])
        sigmoid(ifo)
        np.tanh(g, out=g)
        np.add(f * cprev[t], i * g, out=cs[t])
        np.tanh(cs[t], out=tanhc[t])
        np.multiply(o, tanhc[t], out=hs[t])
    return hs, np.stack([hs[-1], cs[-1]])


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    hprev, cprev, tanhc, a, da = tape["h"][:-1], tape["c"][:-1], tape["tanhc"], tape["a"], tape["da"]
    H = hprev.shape[1]
    dhnext, dcnext = dstate
    for t in reversed(range(len(dhs))):
        i, f, o, g = a[t].reshape(4, H, -1)
        di, df, do, dg = da[t].reshape(4, H, -1)
        dh = dhs[t] + dhnext  # backprop into h
        dc = dh * o * (1 - tanhc[t] * tanhc[t]) + dcnext  # through tanh, into c
        np.multiply(dh * tanhc[t], o * (1 - o), out=do)  # through the sigmoids
        np.multiply(dc * cprev[t], f * (1 - f), out=df)
        np.multiply(dc * g, i * (1 - i), out=di)
        np.multiply(dc * i, 1 - g * g, out=dg)  # through tanh
        dcnext = dc * f
        dhnext = Whh.T @ da[t]
    np.matmul(columns(da), columns(hprev).T, out=dWhh)  # all steps, one product
    return da, np.stack([dhnext, dcnext])
