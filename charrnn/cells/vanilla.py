"""The vanilla recurrence, as min-char-rnn has it: h = tanh(Wxh x + Whh h' + bh).

Source: Elman, "Finding structure in time", 1990; Karpathy's min-char-rnn for the notation. Shapes:
Whh (H, H), ax and dax (T, H, B), hs and dhs (T, H, B), state (1, H, B).
"""

from __future__ import annotations

from typing import NamedTuple

from numpy import add, dot, tanh

from charrnn.arrays import Array, tanh_derivative
from charrnn.cells.base import Cell


class VanillaViews(NamedTuple):
    """A step's values, or their gradients."""

    hprev: Array  # (H, B)
    Whh_h: Array  # (H, B); its gradient is da
    h: Array  # (H, B)


class Vanilla(Cell[VanillaViews]):
    """h = tanh(Wxh x + Whh h' + bh)."""

    NUM_BLOCKS = 1
    ONE_PRODUCT = True

    def new_views(self, a: Array, states: Array, Whh_h: Array) -> VanillaViews:
        """Name the values; the pre-activations ``a`` are where h will be."""
        h = states[0]
        return VanillaViews(h[:-1], Whh_h, h[1:])

    def new_dviews(self, da: Array, dstates: Array, scratch: Array) -> VanillaViews:
        """Name the gradients; dh' is dhnext for the previous step."""
        return VanillaViews(dstates[0], da, scratch[0])

    def step(self, Whh: Array, ax: Array, views: VanillaViews) -> None:
        """Write h."""
        hprev, Whh_h, h = views
        dot(Whh, hprev, Whh_h)
        add(ax, Whh_h, h)
        tanh(h, h)  # h = tanh(Wxh x + Whh h' + bh)

    def local_derivatives(self, views: VanillaViews, dviews: VanillaViews) -> None:
        """Write the derivative of tanh to da."""
        tanh_derivative(views.h, out=dviews.Whh_h)

    def backward_step(
        self, WhhT: Array, dhs: Array, views: VanillaViews, dviews: VanillaViews
    ) -> None:
        """Write da and dhnext."""
        dhnext, da, dh = dviews
        add(dhs, dhnext, dh)  # backprop into h
        da *= dh  # through tanh
        dot(WhhT, da, dhnext)
