"""A network that reads the first symbol of a line again at every step: the label of its text."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.network import Network, NetworkTape


class Conditional(Network):
    """A network whose input at every step is the symbol there and the first one of its lane.

    Its batches hold whole lines. A GRU that reads the label once may forget it.
    """

    def forward_input(self, xs: Ids, tape: NetworkTape) -> None:
        """Write Wxh (x + x0) + bh of the first layer; x0 is the one-hot column of ``xs[0]``."""
        super().forward_input(xs, tape)
        tape.layers[0].a[1:] += self.params["0.Wxh"][:, xs[0]]

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of Wxh and bh, given ``dout`` (G H, T B), which is overwritten."""
        dfirst = dout.reshape(-1, *xs.shape)[:, 1:].sum(1)  # (G H, B)
        super().backward_input(xs, dout, tape)
        np.add.at(self.grads["0.Wxh"].T, xs[0], dfirst.T)
