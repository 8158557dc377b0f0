"""Data parallelism: each worker trains on some lanes of the batch, and the gradients are summed.

The linear algebra library stays at one thread: its threads would wait for each other in every
step of a batch, workers only twice per batch.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.cluster import NUM_EXTRA, SINGLE, Cluster
from charrnn.errors import WorkerError
from charrnn.network import Network, State
from charrnn.optim import BLOCK_SIZE, OPTIMIZERS
from charrnn.workers import SharedArrays, Workers


class Share:
    """A worker's part of the work: some lanes, with gradients of their own, and some parameters."""

    def __init__(
        self, network: Network, arrays: SharedArrays, k: int, lanes: slice, part: slice
    ) -> None:
        """Prepare worker k; the vectors of ``network`` become shared ones. ``part`` is updated."""
        self.network, self.arrays, self.lanes, self.part = network, arrays, lanes, part
        network.use_vectors(arrays["params"], arrays["grads"][k, :-NUM_EXTRA])
        self.tape = network.new_tape(len(arrays["xs"]), lanes.stop - lanes.start)

    def loss_and_grad(self, steps: int, scale: float, dropout: bool) -> float:
        """Return the summed loss of the lanes, in nats; write its gradient times ``scale``."""
        a, lanes = self.arrays, self.lanes
        xs, ys, state = a["xs"][:steps, lanes], a["ys"][:steps, lanes], a["state"][..., lanes]
        masks = a["masks"][:, :steps, :, lanes] if dropout else None
        tape = self.tape.slice(0, steps)
        nll, state[...] = self.network.loss_and_grad(xs, ys, state, tape, masks=masks, scale=scale)
        return float(np.add.reduce(nll, axis=None, dtype=np.float64))

    def update(self, optimizer: str, lr: float, step: int) -> None:
        """Update the worker's parameters by the gradient of worker 0."""
        a, part = self.arrays, self.part
        p, d, opt_state = a["params"][part], a["grads"][0, part], a["optimizer_state"][:, part]
        OPTIMIZERS[optimizer].update(p, d, lr, step, opt_state)


class DataParallel:
    """Computes the gradient of a network and its updates on several workers.

    For batches of up to T steps and B lanes. The parameters of the network move to memory that the
    workers share. The gradient is the sum over the ranks of ``cluster``, too.
    """

    def __init__(
        self,
        network: Network,
        T: int,
        B: int,
        workers: Workers,
        optimizer: str = "sgd",
        dropout: bool = False,
        cluster: Cluster = SINGLE,
    ) -> None:
        self.cluster = cluster
        self.network, self.workers, self.optimizer = network, workers, optimizer
        self.num_shares = N = min(workers.size, B)

        # the shared arrays
        n, dtype = len(network.params.vector), network.params.vector.dtype.str
        L, H = network.num_layers, network.hidden_size
        shapes = {
            "params": ((n,), dtype),
            "grads": ((N, n + NUM_EXTRA), dtype),
            "optimizer_state": ((OPTIMIZERS[optimizer].num_moments, n), dtype),
            "xs": ((T, B), "=i8"),
            "ys": ((T, B), "=i8"),
            "state": (network.zero_state(B).shape, dtype),
            "masks": ((L, T if dropout else 0, H, B), dtype),
        }
        self.arrays = arrays = workers.share(shapes) if N > 1 else SharedArrays(None, shapes)
        arrays["params"][:] = network.params.vector

        # each worker's lanes, and its blocks of the parameters, unless they are few
        lanes = [B * k // N for k in range(N + 1)]
        blocks = -(-n // BLOCK_SIZE)
        self.splits_update = N > 1 and blocks >= N
        parts = [min(blocks * k // N * BLOCK_SIZE, n) for k in range(N + 1)]
        if not self.splits_update:
            parts = [0, *[n] * N]
        tasks = [
            (copy.copy(network) if k else network, arrays, k, slice(*lane_ends), slice(*part))
            for k, (lane_ends, part) in enumerate(
                zip(pairwise(lanes), pairwise(parts), strict=True)
            )
        ]
        workers.call(Share, tasks)

    @property
    def optimizer_state(self) -> Array:
        optimizer_state: Array = self.arrays["optimizer_state"]
        return optimizer_state

    @property
    def masks(self) -> Array:
        """A buffer for dropout masks."""
        masks: Array = self.arrays["masks"]
        return masks

    def loss_and_grad(
        self, xs: Ids, ys: Ids, state: State, masks: Array | None, num_targets: int
    ) -> float:
        """Return the mean loss of the targets in ``ys`` (T, B), in nats; write its gradient.

        ``state`` (L, S, H, B) becomes the last state, once all have ended; ``masks`` are the
        network's dropout masks. ``num_targets`` is the number of targets, those below 0 (padding)
        apart. Raises WorkerError if a worker has died.
        """
        a, steps = self.arrays, len(xs)
        a["xs"][:steps], a["ys"][:steps], a["state"][:] = xs, ys, state
        if masks is not None and masks is not self.masks:
            a["masks"][:, :steps] = masks
        task = steps, 1 / num_targets, masks is not None
        losses = self.workers.call("loss_and_grad", [task] * self.num_shares)
        first, *others = a["grads"]
        for grads in others:
            first += grads
        loss = float(sum(losses)) / num_targets
        loss = self.cluster.sum_gradient(first, loss)
        state[:] = a["state"]
        return loss

    def update(self, lr: float, step: int) -> None:
        """Update the parameters. Raises WorkerError: then only some of them are updated."""
        task = self.optimizer, lr, step
        try:
            self.workers.call("update", [task] * (self.num_shares if self.splits_update else 1))
        except WorkerError as e:
            e.is_partial = True
            raise
