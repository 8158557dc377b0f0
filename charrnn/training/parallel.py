"""Data parallelism: each thread trains on some lanes of the batch, and the gradients are summed.

The linear algebra library stays at one thread: its threads would wait for each other in every
step of a batch, these only once per batch. NumPy releases the interpreter while it computes.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.network import Network, NetworkTape, State


class Replica(NamedTuple):
    lanes: slice  # of its thread
    network: Network  # with its own gradients
    tape: NetworkTape


class DataParallel:
    """Computes the gradient of a network on several threads, for batches of up to T steps."""

    def __init__(self, network: Network, T: int, B: int, threads: int) -> None:
        n = min(threads, B)
        edges = [B * k // n for k in range(n + 1)]
        self.replicas = [
            Replica(slice(a, b), network.replica() if a else network, network.new_tape(T, b - a))
            for a, b in pairwise(edges)
        ]
        # NumPy's handling of warnings is per thread
        self.has_threads = True
        self._pool = ThreadPoolExecutor(threads, initializer=lambda: np.seterr(all="ignore"))

    def loss_and_grad(
        self, xs: Ids, ys: Ids, state: State, masks: Array | None, num_targets: int
    ) -> float:
        """Return the mean loss of the targets in ``ys`` (T, B), in nats; write its gradient.

        ``state`` (L, S, H, B) becomes the last state; ``masks`` are the network's dropout masks.
        ``num_targets`` is the number of targets, those below 0 (padding) apart.
        """
        scale = 1 / num_targets

        def work(replica: Replica) -> float:
            lanes, tape = replica.lanes, replica.tape.slice(0, len(xs))
            lane_masks = None if masks is None else masks[..., lanes]
            nll, state[..., lanes] = replica.network.loss_and_grad(
                xs[:, lanes], ys[:, lanes], state[..., lanes], tape, masks=lane_masks, scale=scale
            )
            return float(np.add.reduce(nll, axis=None, dtype=np.float64))

        # this thread does the first replica's work
        first, *others = self.replicas
        futures: list[Future[float]] = []
        try:
            for replica in others if self.has_threads else ():
                futures.append(self._pool.submit(work, replica))
        except RuntimeError:  # the system has no more threads
            self.has_threads = False
        try:
            loss = work(first)
        finally:
            wait(futures)  # also after a failure: the threads write to the caller's buffers

        # what has no thread is computed here, with the same result
        for k, replica in enumerate(others):
            loss += futures[k].result() if k < len(futures) else work(replica)
            first.network.grads.vector += replica.network.grads.vector
        return loss / num_targets
