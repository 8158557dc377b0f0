"""The gated recurrent unit: z, r = sigmoid(a), n = tanh(Wxn x + Whn (r h') + bn), h = (1 - z) h' + z n.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, eq. 5 to 8 (with z and
1 - z exchanged, as in the lectures). The reset stands before the product. Shapes: Whh (3 H, H) in the order
z, r, n; ax and dax (T, 3 H, B); hs and dhs (T, H, B); state (1, H, B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Tape, columns, sigmoid

GATES, STATES = 3, 1


def bias(bh: Array) -> None:
    """Leave the bias at zero."""


def tape(T: int, H: int, B: int, dtype: DTypeLike) -> Tape:
    """Allocate what one window keeps: h, with the state before the window in its first row, the gates, da."""
    return Tape(
        T,
        {
            "h": np.empty((T + 1, H, B), dtype),
            "rh": np.empty((T, H, B), dtype),  # r h'
            "a": np.empty((T, 3 * H, B), dtype),  # z r n, after the nonlinearity
            "da": np.empty((T, 3 * H, B), dtype),  # before it
        },
    )


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    hs, hprev, rh, a = tape["h"][1:], tape["h"][:-1], tape["rh"], tape["a"]
    H = hs.shape[1]
    Whzr, Whn = Whh[: 2 * H], Whh[2 * H :]
    hprev[0] = state[0]
    for t in range(len(ax)):
        zr, z, r, n = a[t, : 2 * H], a[t, :H], a[t, H : 2 * H], a[t, 2 * H :]
        np.add(ax[t, : 2 * H], Whzr @ hprev[t], out=zr)
        sigmoid(zr)
        np.multiply(r, hprev[t], out=rh[t])
        np.tanh(ax[t, 2 * H :] + Whn @ rh[t], out=n)
        np.add(hprev[t], z * (n - hprev[t]), out=hs[t])  # (1 - z) h' + z n
    return hs, hs[-1:].copy()


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    hprev, rh, a, da = tape["h"][:-1], tape["rh"], tape["a"], tape["da"]
    H = hprev.shape[1]
    Whzr, Whn = Whh[: 2 * H], Whh[2 * H :]
    dhnext = dstate[0]
    for t in reversed(range(len(dhs))):
        z, r, n = a[t, :H], a[t, H : 2 * H], a[t, 2 * H :]
        dzr, dz, dr, dn = da[t, : 2 * H], da[t, :H], da[t, H : 2 * H], da[t, 2 * H :]
        dh = dhs[t] + dhnext  # backprop into h
        np.multiply(dh * z, 1 - n * n, out=dn)  # through tanh
        np.multiply(dh * (n - hprev[t]), z * (1 - z), out=dz)  # through sigmoid
        drh = Whn.T @ dn
        np.multiply(drh * hprev[t], r * (1 - r), out=dr)
        dhnext = dh * (1 - z) + drh * r + Whzr.T @ dzr
    np.matmul(columns(da[:, : 2 * H]), columns(hprev).T, out=dWhh[: 2 * H])  # all steps, one product
    np.matmul(columns(da[:, 2 * H :]), columns(rh).T, out=dWhh[2 * H :])
    return da, dhnext[None]
