"""Data parallelism over threads: each trains on some lanes of the batch, and the gradients are summed.

The linear algebra library stays at one thread. Its own threads share single products, and meet twice in
every step of a batch; these meet twice in a batch. NumPy releases the interpreter while it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.stack import NetworkTape, Stack, State

R = TypeVar("R")


class Replica(NamedTuple):
    """A thread's lanes, its network with gradients of its own, and its tape."""

    lanes: slice
    stack: Stack
    tape: NetworkTape


class DataParallel:
    """Computes the gradient of one network on several threads, for batches of T steps and B lanes at most."""

    def __init__(self, stack: Stack, T: int, B: int, threads: int) -> None:
        """Divide B lanes among ``threads`` threads, or B if there are fewer lanes."""
        n = min(threads, B)
        edges = [B * k // n for k in range(n + 1)]
        self.replicas = [
            Replica(slice(a, b), stack.replica() if a else stack, stack.new_tape(T, b - a))
            for a, b in pairwise(edges)
        ]
        self._pool = ThreadPoolExecutor(n - 1) if n > 1 else None

    def _map(self, work: Callable[[Replica], R]) -> list[R]:
        """Return the result of ``work`` for every replica; this thread does the first."""
        first, *others = self.replicas
        if self._pool is None:
            return [work(first)]
        futures = [self._pool.submit(_without_warnings, work, replica) for replica in others]
        try:
            first_result = work(first)
        finally:
            wait(futures)  # after a failure too: they write to the caller's buffers
        return [first_result, *(future.result() for future in futures)]

    def loss_and_grad(
        self,
        xs: Ids,
        ys: Ids,
        state: State,
        masks: Array | None = None,
        num_targets: int | None = None,
    ) -> float:
        """Return the mean loss of the targets ``ys`` (T, B), in nats; write its gradient to the network.

        ``state`` (L, S, H, B) becomes the last state; ``masks`` are the network's dropout masks.
        ``num_targets`` is the number of targets that are not padding (below 0); default: all.
        """
        T, n = len(xs), num_targets or xs.size

        def gradient(replica: Replica) -> float:
            lanes = replica.lanes
            nll, state[..., lanes] = replica.stack.loss_and_grad(
                xs[:, lanes],
                ys[:, lanes],
                state[..., lanes],
                replica.tape.slice(0, T),
                masks=None if masks is None else masks[..., lanes],
                scale=1 / n,
            )
            return float(np.add.reduce(nll, axis=None, dtype=np.float64))

        loss = sum(self._map(gradient)) / n
        first, *others = self.replicas
        for other in others:
            first.stack.d.vector += other.stack.d.vector
        return loss


def _without_warnings(work: Callable[[Replica], R], replica: Replica) -> R:
    with np.errstate(
        over="ignore", divide="ignore", invalid="ignore"
    ):  # NumPy's state is per thread
        return work(replica)
