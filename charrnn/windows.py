"""The text as B lanes, cut into windows of T steps: contiguous lanes, or documents that each start afresh."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

SHARD = 1 << 16  # documents that are put in order at a time: what that takes does not grow with the text


class Sequence(Protocol):
    """Ids, in memory or in a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: slice, /) -> NDArray[np.integer[Any]]: ...


class Position(NamedTuple):
    """A place in the data: passes made, and steps into the lanes (with documents: windows into the pass)."""

    epoch: int = 0
    offset: int = 0


class Window(NamedTuple):
    """Inputs and targets (T, B), padding below 0; the lanes that start anew (B,); the place after it; its targets."""

    xs: Ids
    ys: Ids
    fresh: NDArray[np.bool_]
    position: Position
    targets: int


def shrink(N: int, B: int, T: int) -> tuple[int, int]:
    """Shrink B, then T, until N symbols fill a window of every lane."""
    B = max(1, min(B, (N - 1) // T))
    return B, min(T, N - 1)


def lane_length(N: int, B: int) -> int:
    """Return the number of steps in a lane."""
    return -(-(N - 1) // B)


def windows(ids: Sequence, B: int, T: int, at: Position) -> Iterator[Window]:
    """Yield windows without end, from ``at`` on; the target of each symbol is the one after it.

    Lane i starts at i (N - 1) // B and is ceil((N - 1) / B) long, so that every pair of neighbours is used;
    where B does not divide N - 1, lanes share a pair. The last window of a pass may be shorter than T.
    """
    N, length = len(ids), lane_length(len(ids), B)
    epoch, offset = at
    while True:
        end = min(offset + T, length)
        both = np.empty((end - offset + 1, B), np.intp)
        for lane in range(B):
            start = lane * (N - 1) // B
            both[:, lane] = ids[start + offset : start + end + 1]
        fresh = np.full(B, offset == 0)
        epoch, offset = (epoch, end) if end < length else (epoch + 1, 0)
        yield Window(both[:-1], both[1:], fresh, Position(epoch, offset), both[1:].size)


def borders(ids: Sequence, border: int) -> NDArray[np.int64]:
    """Return where the documents of ``ids`` end: after every ``border`` id, and after the last of all."""
    if not len(ids):
        return np.empty(0, np.int64)
    chunk = 1 << 20
    ends = [np.flatnonzero(ids[i : i + chunk] == border) + i + 1 for i in range(0, len(ids), chunk)]
    if not len(ends[-1]) or ends[-1][-1] != len(ids):
        ends.append(np.array([len(ids)]))
    return np.concatenate(ends)


def passes(ends: NDArray[np.int64], B: int, T: int) -> int:
    """Return how many windows a pass over documents takes: it depends on their lengths alone."""
    return sum(len(_schedule(lengths, B, T, None)[0]) for _, lengths in _shards(ends))


def documents(
    ids: Sequence, ends: NDArray[np.int64], B: int, T: int, at: Position, start: int, seed: list[int] | None
) -> Iterator[Window]:
    """Yield windows without end, from ``at`` on, in which every document begins at a window's edge with a fresh lane.

    ``ends`` are the documents' ends (see ``borders``), ``start`` is the id that is fed before the first symbol of
    each. A lane that has read a document goes on with another at the next window. They are dealt out by length,
    longest first, so that those side by side are alike, and a window is only as long as its longest piece; what is
    shorter is padding. Windows that carry nothing over change places at random, another way in every pass: with
    ``seed`` as the source. Without one nothing is random.
    """
    epoch, skip = at
    while True:
        rng = None if seed is None else np.random.default_rng([*seed, epoch])
        window = 0
        for starts, lengths in _shards(ends):
            document, offset = _schedule(lengths, B, T, rng)
            for row, steps in zip(document, offset, strict=True):
                window += 1
                if window <= skip:
                    continue
                left = np.where(row < 0, 0, lengths[row] - steps).clip(max=T)
                xs, ys = np.zeros((2, left.max(), B), np.intp)
                ys -= 1
                for lane in np.flatnonzero(left):
                    begin, n = int(starts[row[lane]] + steps[lane]), left[lane]
                    ys[:n, lane] = ids[begin : begin + n]
                    xs[:1, lane] = ids[begin - 1 : begin] if steps[lane] else start
                    xs[1:n, lane] = ys[: n - 1, lane]
                yield Window(xs, ys, steps == 0, Position(epoch, window), int(left.sum()))
        epoch, skip = epoch + 1, 0


def _shards(ends: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the starts and the lengths of the documents, so many at a time."""
    for i in range(0, len(ends), SHARD):
        shard = ends[i : i + SHARD]
        starts = np.append(ends[i - 1] if i else 0, shard[:-1])
        yield starts, shard - starts


def _schedule(
    lengths: NDArray[np.int64], B: int, T: int, rng: np.random.Generator | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deal documents out to lanes: return the document of each window and lane, -1 for none, and the step it is at."""
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))  # which of equals comes first
    order = order[np.argsort(-lengths[order], kind="stable")]
    several = int((lengths > T).sum())  # those that take several windows: each to the lane that is free first
    free = [(0, lane) for lane in range(B)]
    placed = []
    for document in order[:several].tolist():
        window, lane = free[0]
        pieces = -(-int(lengths[document]) // T)
        placed.append((document, window, lane, pieces))
        heapq.heapreplace(free, (window + pieces, lane))
    rows = max(free)[0]
    documents = np.full((rows, B), -1)
    offset = np.zeros((rows, B), np.int64)
    for document, window, lane, pieces in placed:
        documents[window : window + pieces, lane] = document
        offset[window : window + pieces, lane] = np.arange(pieces) * T
    # the others, which take one window, fill the holes, and then rows of their own
    short = order[several:]
    holes = np.flatnonzero(documents.ravel() < 0)[: len(short)]
    documents.ravel()[holes] = short[: len(holes)]
    rest = short[len(holes) :]
    rest = np.append(rest, np.full(-len(rest) % B, -1)).reshape(-1, B)
    documents, offset = np.concatenate([documents, rest]), np.concatenate([offset, np.zeros_like(rest)])
    if rng is not None:
        fresh = np.flatnonzero((offset == 0).all(1))
        segments = np.split(np.arange(len(offset)), fresh[1:])
        rng.shuffle(segments)
        index = np.concatenate(segments)
        documents, offset = documents[index], offset[index]
    return documents, offset
