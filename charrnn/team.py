"""The lanes of a batch shared out among threads: each has its own, and gradients of its own, which are then added.

The linear algebra library stays at one thread. Its own threads share out single products, and meet twice in every
step of a window; these meet twice in a window. NumPy lets go of the interpreter while it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from charrnn.arrays import Array, Ids, Tape
from charrnn.stack import Stack, State

R = TypeVar("R")


class Member(NamedTuple):
    """A thread's lanes, its gradients and its tape."""

    lanes: slice
    stack: Stack
    tape: list[Tape]


class Team:
    """Computes the gradient of one stack, in windows of T steps and B lanes at most."""

    def __init__(self, stack: Stack, T: int, B: int, threads: int) -> None:
        """Share out B lanes among ``threads`` threads, or B if there are fewer lanes."""
        n = min(threads, B)
        edges = [B * k // n for k in range(n + 1)]
        self.members = [
            Member(slice(a, b), stack.twin() if a else stack, stack.tape(T, b - a)) for a, b in pairwise(edges)
        ]
        self._pool = ThreadPoolExecutor(n - 1) if n > 1 else None

    def _each(self, work: Callable[[Member], R]) -> list[R]:
        """Return what ``work`` returns for every member; the first one's is done by this thread itself."""
        first, *others = self.members
        if self._pool is None:
            return [work(first)]
        futures = [self._pool.submit(_quietly, work, member) for member in others]
        try:
            mine = work(first)
        finally:
            wait(futures)  # whatever happens: they write to buffers that the caller has
        return [mine, *(future.result() for future in futures)]

    def loss_and_grad(
        self, xs: Ids, ys: Ids, state: State, masks: Array | None = None, count: int | None = None
    ) -> float:
        """Return the mean loss of the targets ``ys`` (T, B), in nats; write its gradient to the stack's ``d``.

        ``state`` (L, STATES, H, B) becomes the last state; ``masks`` are those of the stack. ``count`` is how many
        targets are not below 0, which is padding; all, if it is not given.
        """
        T, n = len(xs), count or xs.size

        def gradient(m: Member) -> float:
            nats, state[..., m.lanes] = m.stack.loss_and_grad(
                xs[:, m.lanes],
                ys[:, m.lanes],
                state[..., m.lanes],
                [part.cut(0, T) for part in m.tape],
                masks=None if masks is None else masks[..., m.lanes],
                scale=1 / n,
            )
            return float(np.add.reduce(nats, axis=None, dtype=np.float64))

        loss = sum(self._each(gradient)) / n
        first, *others = self.members
        for other in others:
            first.stack.d.vector += other.stack.d.vector
        return loss


def _quietly(work: Callable[[Member], R], member: Member) -> R:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a thread does not take this over
        return work(member)
