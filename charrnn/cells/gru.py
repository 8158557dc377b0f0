"""The GRU: z, r = sigmoid(a), n = tanh(Wxn x + Whn (r h') + bn), h = (1 - z) h' + z n.

Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, eq. 5 to 8
(with z and 1 - z exchanged, as in the lectures). The reset gate is applied before the matrix
product. Shapes: Whh (3 H, H) in the order z, r, n; ax and dax (T, 3 H, B); hs and dhs (T, H, B);
state (1, H, B).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import add, dot, multiply, subtract, tanh

from charrnn.arrays import ONE, Array, sigmoid, tanh_derivative
from charrnn.cells.base import Cell, Tape


class GRUViews(NamedTuple):
    """A step's values, or their gradients."""

    hprev: Array  # (H, B)
    Whzr_h: Array  # (2 H, B)
    Whn_rh: Array  # (H, B)
    zr: Array  # (2 H, B)
    z: Array  # (H, B)
    r: Array  # (H, B)
    n: Array  # (H, B)
    rh: Array  # (H, B), r h'
    z_nh: Array  # (H, B), z (n - h'); in dviews 1 - z, the factor of dh in dh'
    h: Array  # (H, B)


class GRU(Cell[GRUViews]):
    """z, r = sigmoid(a), n = tanh(Wxn x + Whn (r h') + bn), h = (1 - z) h' + z n."""

    NUM_BLOCKS = 3
    BLOCK_NAMES = ("z", "r", "n")

    def new_views(self, a: Array, states: Array, Whh_h: Array) -> GRUViews:
        """Name the values; ``a`` becomes z, r, n."""
        h, (z, r, n), k = states[0], np.split(a, 3, axis=1), states.shape[2] * 2
        rh, z_nh = np.empty_like(h[1:]), np.empty_like(h[1:])
        return GRUViews(h[:-1], Whh_h[:, :k], Whh_h[:, k:], a[:, :k], z, r, n, rh, z_nh, h[1:])

    def new_dviews(self, da: Array, dstates: Array, scratch: Array) -> GRUViews:
        """Name the gradients; the gradients of the products are da."""
        (dh, drh), (dz, dr, dn), dzr = scratch, np.split(da, 3, 1), da[:, : scratch.shape[2] * 2]
        return GRUViews(dstates[0], dzr, dn, dzr, dz, dr, dn, drh, np.empty_like(dn, order="C"), dh)

    def step(self, Whh: Array, ax: Array, views: GRUViews) -> None:
        """Write the gates z, r and n, then r h', z (n - h') and h."""
        hprev, Whzr_h, Whn_rh, zr, z, r, n, rh, z_nh, h = views
        k = len(zr)
        dot(Whh[:k], hprev, Whzr_h)
        add(ax[:k], Whzr_h, zr)
        sigmoid(zr)
        multiply(r, hprev, rh)
        dot(Whh[k:], rh, Whn_rh)
        add(ax[k:], Whn_rh, n)
        tanh(n, n)
        subtract(n, hprev, z_nh)
        z_nh *= z
        add(hprev, z_nh, h)  # h = h' + z (n - h'), which is (1 - z) h' + z n

    def local_derivatives(self, views: GRUViews, dviews: GRUViews) -> None:
        """Write the factors of dh and drh that no later step changes."""
        _, _, _, _, z, r, n, rh, z_nh, _ = views
        _, _, _, _, dz, dr, dn, _, keep, _ = dviews
        subtract(ONE, z, keep)
        multiply(keep, z_nh, dz)  # through the sigmoids: z (1 - z) (n - h')
        subtract(ONE, r, dr)
        dr *= rh  # r (1 - r) h'
        tanh_derivative(n, out=dn)
        dn *= z

    def backward_step(self, WhhT: Array, dhs: Array, views: GRUViews, dviews: GRUViews) -> None:
        """Write da and dhnext."""
        dhnext, dzr, _, _, dz, dr, dn, drh, keep, dh = dviews
        k = len(dzr)
        add(dhs, dhnext, dh)  # backprop into h
        dz *= dh
        dn *= dh
        dot(WhhT[:, k:], dn, drh)  # into r h'
        dr *= drh
        dot(WhhT[:, :k], dzr, dhnext)
        drh *= views.r
        dhnext += drh
        dh *= keep
        dhnext += dh  # into h'

    def recurrent_inputs(self, tape: Tape[GRUViews]) -> list[tuple[int, Array]]:
        """Return h' for z and r, and r h' for n."""
        return [(2, tape.views.hprev), (1, tape.views.rh)]

    def gate_activations(self, views: GRUViews) -> dict[str, Array]:
        """Return z and r."""
        return {"z": views.z, "r": views.r}
