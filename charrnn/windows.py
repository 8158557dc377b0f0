"""The text as B contiguous lanes, cut into windows of T steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids


class Position(NamedTuple):
    """A place in the data: passes made, and steps into the lanes."""

    epoch: int = 0
    offset: int = 0


class Window(NamedTuple):
    """Inputs and targets (T, B); the lanes that start anew (B,); where the next window begins."""

    xs: Ids
    ys: Ids
    fresh: NDArray[np.bool_]
    position: Position


def shrink(N: int, B: int, T: int) -> tuple[int, int]:
    """Shrink B, then T, until N symbols fill a window of every lane."""
    B = max(1, min(B, (N - 1) // T))
    return B, min(T, N - 1)


def lane_length(N: int, B: int) -> int:
    """Return the number of steps in a lane."""
    return -(-(N - 1) // B)


def windows(ids: Ids, B: int, T: int, at: Position) -> Iterator[Window]:
    """Yield windows without end, from ``at`` on; the target of each symbol is the one after it.

    Lane i starts at i (N - 1) // B and is ceil((N - 1) / B) long, so that every pair of neighbours is used;
    where B does not divide N - 1, lanes share a pair. The last window of a pass may be shorter than T.
    """
    N, length = len(ids), lane_length(len(ids), B)
    starts = np.arange(B) * (N - 1) // B
    epoch, offset = at
    while True:
        end = min(offset + T, length)
        index = starts + np.arange(offset, end)[:, None]
        fresh = np.full(B, offset == 0)
        epoch, offset = (epoch, end) if end < length else (epoch + 1, 0)
        yield Window(ids[index], ids[index + 1], fresh, Position(epoch, offset))
