"""Training on several workers: each has a share of the work, and the gradients are summed.

The linear algebra library stays at one thread: its threads would wait for each other in every
step of a batch, workers only twice per batch, or at every step for a moment.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

from charrnn.arrays import Array, Ids
from charrnn.cluster import NUM_EXTRA, SINGLE, Cluster
from charrnn.errors import WorkerError
from charrnn.network import Network, State
from charrnn.optim import BLOCK_SIZE, OPTIMIZERS
from charrnn.training.shares import LaneShare
from charrnn.training.unit_split import UnitShare, divides_units, unit_shapes
from charrnn.workers import SharedArrays, Workers, available_cores

MIN_LANES = 16  # of a worker: with fewer, products take longer
MIN_UNITS = 64


def default_workers(network: Network, B: int, ranks: int = 1) -> int:
    """Return the number of workers: one for each core, or fewer where each has too little work."""
    most = B // MIN_LANES
    if divides_units(network, B, 2):
        most = max(most, network.hidden_size // MIN_UNITS)
    return max(1, min(available_cores(ranks), most))


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
        if N > 1:
            workers.start()
        divided = len(workers.processes) == N - 1 and divides_units(network, B, N)

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
        if divided:
            shapes |= unit_shapes(network, T, B, N)
        self.arrays = arrays = workers.share(shapes) if N > 1 else SharedArrays(None, shapes)
        arrays["params"][:] = network.params.vector

        # each worker's lanes or units, and its blocks of the parameters, unless they are few
        lanes = [B * k // N for k in range(N + 1)]
        blocks = -(-n // BLOCK_SIZE)
        self.splits_update = N > 1 and blocks >= N
        parts = [min(blocks * k // N * BLOCK_SIZE, n) for k in range(N + 1)]
        if not self.splits_update:
            parts = [0, *[n] * N]
        tasks: list[tuple[Any, ...]] = [
            (copy.copy(network) if k else network, arrays, k, slice(*ends))
            for k, ends in enumerate(pairwise(parts))
        ]
        if not divided:
            tasks = [
                (*task, slice(*ends)) for task, ends in zip(tasks, pairwise(lanes), strict=True)
            ]
        workers.call(UnitShare if divided else LaneShare, tasks)
        num_output = network.num_outputs * (H + 1)
        self.partial_sums = slice(n - num_output if divided else 0, n)

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
            first[self.partial_sums] += grads[self.partial_sums]
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
