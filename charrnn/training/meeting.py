"""Meetings of worker processes, thousands of times in a second.

A worker counts its arrivals in shared memory and looks at the counts of the others. That assumes
that stores become visible in their order, as x86 guarantees.
"""

from __future__ import annotations

import os
import platform
import sys
import time

from charrnn.errors import WorkerError
from charrnn.workers import Shapes, SharedArrays

SPINS = 2000  # before a waiting worker lets others use its core
CHECK_SECONDS = 0.1  # between two looks at whether the other workers live
RELEASED = 2**62  # the count of a worker that comes to no more meetings
CACHE_LINE = 8  # counts


def can_meet() -> bool:
    """Return whether the processes of this machine can meet in shared memory."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "i686")


def meeting_shapes(N: int) -> Shapes:
    """Return the shapes of what N workers share."""
    return {"arrivals": ((N, CACHE_LINE), "=i8"), "pids": ((N,), "=i8")}


class Meeting:
    """A point that no worker passes before all have come to it."""

    def __init__(self, arrays: SharedArrays, k: int) -> None:
        self.pids = arrays["pids"]
        self.pids[k] = os.getpid()
        self.counts, self.own, self.count = (
            memoryview(arrays["arrivals"].ravel()),
            CACHE_LINE * k,
            0,
        )
        self.others = [CACHE_LINE * j for j in range(len(self.pids)) if j != k]

    def __call__(self) -> None:
        """Wait for the others. Raises WorkerError if one has died."""
        counts = self.counts
        counts[self.own] = self.count = count = self.count + 1
        for other in self.others:
            for _ in range(SPINS):
                if counts[other] >= count:
                    break
            else:
                self._wait(other)

    def _wait(self, other: int) -> None:
        checked = time.monotonic()
        while self.counts[other] < self.count:
            os.sched_yield()
            if time.monotonic() > checked + CHECK_SECONDS:
                checked = time.monotonic()
                self._check()

    def _check(self) -> None:
        """Raise WorkerError in worker 0 if another has died; end with worker 0."""
        if self.own:
            if os.getppid() != self.pids[0]:
                os._exit(1)
            return
        for pid in self.pids[1:].tolist():
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise WorkerError("a worker process ended unexpectedly")

    def release(self) -> None:
        """Let nobody wait any longer, neither for this worker nor for one that has died."""
        for i in range(0, len(self.counts), CACHE_LINE):
            self.counts[i] = RELEASED
