"""A worker's share of a training step: some lanes of the batch, and some parameters to update."""

from __future__ import annotations

import numpy as np

from charrnn.cluster import NUM_EXTRA
from charrnn.network import Network
from charrnn.optim import OPTIMIZERS
from charrnn.workers import SharedArrays


class Share:
    """The base of all shares: some parameters to update, ``part``.

    The parameters and gradients of ``network`` become shared ones: row k of ``grads`` for worker k.
    """

    def __init__(self, network: Network, arrays: SharedArrays, k: int, part: slice) -> None:
        self.network, self.arrays, self.part = network, arrays, part
        network.use_vectors(arrays["params"], arrays["grads"][k, :-NUM_EXTRA])

    def update(self, optimizer: str, lr: float, step: int) -> None:
        """Update the parameters by the gradient of worker 0."""
        a, part = self.arrays, self.part
        p, d, opt_state = a["params"][part], a["grads"][0, part], a["optimizer_state"][:, part]
        OPTIMIZERS[optimizer].update(p, d, lr, step, opt_state)


class LaneShare(Share):
    """Some lanes of the batch."""

    def __init__(
        self, network: Network, arrays: SharedArrays, k: int, part: slice, lanes: slice
    ) -> None:
        super().__init__(network, arrays, k, part)
        self.lanes = lanes
        self.tape = network.new_tape(len(arrays["xs"]), lanes.stop - lanes.start)

    def loss_and_grad(self, steps: int, scale: float, dropout: bool) -> float:
        """Return the summed loss of the lanes, in nats; write its gradient times ``scale``."""
        a, lanes = self.arrays, self.lanes
        xs, ys, state = a["xs"][:steps, lanes], a["ys"][:steps, lanes], a["state"][..., lanes]
        masks = a["masks"][:, :steps, :, lanes] if dropout else None
        tape = self.tape.slice(0, steps)
        nll, state[...] = self.network.loss_and_grad(xs, ys, state, tape, masks=masks, scale=scale)
        return float(np.add.reduce(nll, axis=None, dtype=np.float64))
