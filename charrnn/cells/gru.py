"""The gated recurrent unit: z, r = sigmoid(a), n = tanh(Wxn x + Whn (r h') + bn), h = (1 - z) h' + z n.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, eq. 5 to 8 (with z and
1 - z exchanged, as in the lectures). The reset stands before the product. Shapes: Whh (3 H, H) in the order
z, r, n; ax and dax (T, 3 H, B); hs and dhs (T, H, B); state (1, H, B).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Tape, columns, packed, sigmoid

GATES, STATES = 3, ("h",)
STEP = "hprev", "Whzr h", "Whn rh", "zr", "z", "r", "n", "rh", "n-h", "hs"


def bias(bh: Array) -> None:
    """Leave the bias at zero."""


def tape(T: int, H: int, B: int, dtype: DTypeLike, lower: Tape | None = None) -> Tape:
    """Allocate what one window needs: h, with the state before the window in its first row, the gates, da."""
    h = np.empty((T + 1, H, B), dtype)
    a = np.empty((T, 3 * H, B), dtype)  # z r n, after the nonlinearity
    rh, n_h = np.empty((2, T, H, B), dtype)  # r h' and n - h'
    kept = {"h": h, "hprev": h[:-1], "hs": h[1:], "rh": rh, "n-h": n_h, "a": a, "zr": a[:, : 2 * H]}
    kept |= zip("zrn", np.split(a, 3, axis=1), strict=True)
    if lower:
        return Tape(T, kept, lower.work, lower.scratch)
    da = np.empty((T, 3 * H, B), dtype)  # before the nonlinearity
    work = {"da": da, "dzr": da[:, : 2 * H], "1-z": np.empty((T, H, B), dtype)}
    work |= zip(("dz", "dr", "dn"), np.split(da, 3, axis=1), strict=True)
    work |= {"dax": packed(T, 3 * H, B, dtype), "x": packed(T, H, B, dtype)}
    dstate, Whh_h = np.empty((1, H, B), dtype), np.empty((3 * H, B), dtype)
    scratch = {"Whzr h": Whh_h[: 2 * H], "Whn rh": Whh_h[2 * H :], "dhnext": dstate[0], "dstate": dstate}
    scratch |= {"dh": np.empty((H, B), dtype), "drh": np.empty((H, B), dtype)}
    return Tape(T, kept, work, scratch)


def step(Whh: Array, ax: Array, *views: Array) -> None:
    """Write the gates z, r and n, then r h', n - h' and h."""
    hprev, Whzr_h, Whn_rh, zr, z, r, n, rh, n_h, h = views
    k = len(zr)
    np.dot(Whh[:k], hprev, out=Whzr_h)
    np.add(ax[:k], Whzr_h, out=zr)
    sigmoid(zr)
    np.multiply(r, hprev, out=rh)
    np.dot(Whh[k:], rh, out=Whn_rh)
    np.add(ax[k:], Whn_rh, out=n)
    np.tanh(n, out=n)
    np.subtract(n, hprev, out=n_h)
    np.multiply(z, n_h, out=Whn_rh)
    np.add(hprev, Whn_rh, out=h)  # h = h' + z (n - h'), which is (1 - z) h' + z n


def forward(Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
    """Run over ax = Wxh x + bh for every step; return hs and the last state."""
    h = tape["h"]
    h[0] = state[0]
    for x, views in zip(ax, tape.steps(*STEP), strict=True):
        step(Whh, x, *views)
    return h[1:], h[-1:]


def backward(Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dWhh; return dax and the gradient of the first state."""
    _slopes(tape)
    tape["dstate"][:] = dstate
    H = dhs.shape[1]
    Whzr, Whn = Whh[: 2 * H], Whh[2 * H :]
    steps = tape.steps("dh", "dhnext", "drh", "dz", "dn", "dr", "dzr", "r", "1-z")
    for dhs_t, (dh, dhnext, drh, dz, dn, dr, dzr, r, keep) in zip(dhs[::-1], reversed(steps), strict=True):
        np.add(dhs_t, dhnext, out=dh)  # backprop into h
        dz *= dh
        dn *= dh
        np.dot(Whn.T, dn, out=drh)  # into r h'
        dr *= drh
        np.dot(Whzr.T, dzr, out=dhnext)
        drh *= r
        dhnext += drh
        dh *= keep
        dhnext += dh  # into h'
    dax, x = tape["dax"], tape["x"]
    dax[:], x[:] = tape["da"], tape["hprev"]
    np.matmul(columns(dax[:, : 2 * H]), columns(x).T, out=dWhh[: 2 * H])  # all steps, one product
    x[:] = tape["rh"]
    np.matmul(columns(dax[:, 2 * H :]), columns(x).T, out=dWhh[2 * H :])
    return dax, tape["dstate"]


def gates(tape: Tape) -> Mapping[str, Array]:
    """Return the gates of the window, (T, H, B) each."""
    return {name: tape[name] for name in "zr"}


def _slopes(tape: Tape) -> None:
    """Write to da what backward multiplies by dh and drh: that waits for no later step, so all go at once."""
    z, r, n, dz, dr, dn, keep = (tape[name] for name in ("z", "r", "n", "dz", "dr", "dn", "1-z"))
    np.subtract(1, z, out=keep)
    np.multiply(z, keep, out=dz)  # through the sigmoids: z (1 - z)
    dz *= tape["n-h"]
    np.subtract(1, r, out=dr)
    dr *= tape["rh"]
    np.multiply(n, n, out=dn)
    np.subtract(1, dn, out=dn)  # through tanh: 1 - n n
    dn *= z
