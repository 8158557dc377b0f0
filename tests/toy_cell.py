"""A cell that the package does not have: h = (h' + tanh(Wxh x + Whh h' + bh)) / 2."""

from typing import NamedTuple

import numpy as np

from charrnn.arrays import HALF, Array, tanh_derivative
from charrnn.cells.base import Cell


class ToyViews(NamedTuple):
    """A step's values, or their gradients."""

    hprev: Array
    Whh_h: Array
    n: Array
    h: Array


class Toy(Cell[ToyViews]):
    """h = (h' + n) / 2, n = tanh(Wxh x + Whh h' + bh)."""

    NUM_BLOCKS = 1

    def new_views(self, a: Array, states: Array, Whh_h: Array) -> ToyViews:
        h = states[0]
        return ToyViews(h[:-1], Whh_h, np.empty_like(h[1:]), h[1:])

    def new_dviews(self, da: Array, dstates: Array, scratch: Array) -> ToyViews:
        return ToyViews(dstates[0], da, da, scratch[0])

    def step(self, Whh: Array, ax: Array, views: ToyViews) -> None:
        hprev, Whh_h, n, h = views
        np.dot(Whh, hprev, out=Whh_h)
        np.add(ax, Whh_h, out=n)
        np.tanh(n, out=n)
        np.add(hprev, n, out=h)
        h *= HALF

    def local_derivatives(self, views: ToyViews, dviews: ToyViews) -> None:
        tanh_derivative(views.n, out=dviews.n)

    def backward_step(self, WhhT: Array, dhs: Array, views: ToyViews, dviews: ToyViews) -> None:
        dhnext, _, dn, dh = dviews
        np.add(dhs, dhnext, out=dh)
        dh *= HALF
        dn *= dh
        np.dot(WhhT, dn, out=dhnext)
        dhnext += dh
