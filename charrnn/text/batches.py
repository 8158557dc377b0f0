"""The text as batches of T steps and B lanes, the sequences that are read in parallel."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

SHARD_DOCUMENTS = 1 << 16  # scheduled together: the memory for it does not grow with the text
ALL_LANES = slice(None)
CHUNK_SYMBOLS = 1 << 20  # searched for separators at a time


class IdSource(Protocol):
    """Ids, in memory or in a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: slice, /) -> NDArray[np.integer[Any]]: ...


class Position(NamedTuple):
    """A position in the data."""

    epoch: int = 0
    offset: int = 0  # steps into the lanes; of documents, batches into the epoch


class Batch(NamedTuple):
    xs: Ids  # (T, B)
    ys: Ids  # (T, B), below 0 where there is no target
    reset: NDArray[np.bool_]  # (B,): lanes that start from a zero state
    at: Ids  # (T, B): the position of each target in the text
    position: Position  # after this batch
    num_targets: int  # of all lanes


def fit_batch_shape(N: int, B: int, T: int) -> tuple[int, int]:
    """Reduce B, then T, until N symbols fill one batch in every lane."""
    B = max(1, min(B, (N - 1) // T))
    return B, min(T, N - 1)


def steps_per_lane(N: int, B: int) -> int:
    return -(-(N - 1) // B)


def contiguous_batches(
    ids: IdSource, B: int, T: int, position: Position, lanes: slice = ALL_LANES
) -> Iterator[Batch]:
    """Yield batches without end, from ``position`` on; the last of an epoch may be shorter.

    Only ``lanes`` of the B are read; the number of targets is that of all.

    Lane i starts at i (N - 1) // B and is ceil((N - 1) / B) long, so that every pair of neighbors
    is used; where B does not divide N - 1, lanes share a pair.
    """
    N, length = len(ids), steps_per_lane(len(ids), B)
    starts = (np.arange(B) * (N - 1) // B)[lanes]
    epoch, offset = position
    while True:
        end = min(offset + T, length)
        symbols = np.empty((end - offset + 1, len(starts)), np.intp)
        for lane, start in enumerate(starts.tolist()):
            symbols[:, lane] = ids[start + offset : start + end + 1]
        at = np.arange(offset + 1, end + 1)[:, None] + starts
        reset = np.full(len(starts), offset == 0)
        num_targets = (end - offset) * B
        epoch, offset = (epoch, end) if end < length else (epoch + 1, 0)
        yield Batch(symbols[:-1], symbols[1:], reset, at, Position(epoch, offset), num_targets)


def warm_up_batches(ids: Ids, starts: Ids, ends: Ids, warm_up: int, T: int) -> Iterator[Batch]:
    """Yield batches of one lane for each stretch of ``ids`` from ``starts`` to ``ends``, (B,) each.

    Its symbols are the targets; up to ``warm_up`` symbols before the first input are read too.
    """
    first = np.maximum(starts - 1 - warm_up, 0)  # the first symbol that is read
    steps = int((ends - 1 - first).max())
    last = len(ids) - 1
    for t in range(0, steps, T):
        at = first + 1 + np.arange(t, min(t + T, steps))[:, None]
        is_target = (at >= starts) & (at < ends)
        ys = np.where(is_target, ids[np.minimum(at, last)], -1)
        reset = np.full(len(starts), t == 0)
        xs = ids[np.minimum(at - 1, last)]
        yield Batch(xs, ys, reset, at, Position(0, t), int(is_target.sum()))


def single_lane_batches(ids: Ids, start: Ids, ends: Ids, T: int) -> Iterator[Batch]:
    """Yield batches of one lane that reads documents (see ``document_ends``), each after ``start``.

    The last symbol of a document is read too. It has no target; ``at`` is the position after it.
    """
    begin = 0
    for end in ends.tolist():
        text = np.concatenate([start, ids[begin:end]])[:, None]
        ys = np.append(text[1:], [[-1]], axis=0)
        at = begin + np.arange(1 - len(start), end - begin + 1)[:, None]
        for t in range(0, len(text), T):
            steps, reset = slice(t, t + T), np.array([t == 0])
            xs = text[steps]
            yield Batch(xs, ys[steps], reset, at[steps], Position(0, t), len(xs))
        begin = end


def document_ends(ids: IdSource, separator_id: int | None) -> NDArray[np.int64]:
    """Return the ends of the documents in ``ids``: after each separator, and at the end."""
    N = len(ids)
    ends = [np.empty(0, np.int64)]
    if separator_id is not None:
        for i in range(0, N, CHUNK_SYMBOLS):
            ends.append(np.flatnonzero(ids[i : i + CHUNK_SYMBOLS] == separator_id) + i + 1)
    if N and not (len(ends[-1]) and ends[-1][-1] == N):
        ends.append(np.array([N]))
    return np.concatenate(ends)


def batches_per_epoch(ends: Ids, B: int, T: int) -> int:
    """Return the number of batches of ``document_batches`` per epoch, the same for any seed."""
    return sum(len(_schedule(lengths, B, T, None)[0]) for _, lengths in _shards(ends))


def document_batches(
    ids: IdSource,
    ends: Ids,
    B: int,
    T: int,
    position: Position,
    start: int,
    seed: list[int] | None,
    lanes: slice = ALL_LANES,
    targets: IdSource | None = None,
    padding: int = 0,
    by_length: bool = True,
) -> Iterator[Batch]:
    """Yield batches without end, from ``position`` on, in which each document starts a batch.

    ``ends`` are the documents' ends (see ``document_ends``); ``start`` is the id that is fed before
    the first symbol of each. They are dealt out to lanes longest first, so that those read in
    parallel have similar lengths; a batch is as long as its longest piece, shorter ones are padded.
    Batches that carry no state over are shuffled in each epoch by ``seed``, if one is given. Only
    ``lanes`` of the B are read; the number of targets is that of all.

    Without ``by_length``, documents of one batch each are in random order.

    With ``targets``, one for each symbol, ``ids`` are what is read, without ``start``; and the ids
    after a document's end are ``padding``.
    """
    epoch, skip = position
    while True:
        rng = None if seed is None else np.random.default_rng([*seed, epoch])
        batch = 0
        for starts, lengths in _shards(ends):
            document, offset = _schedule(lengths, B, T, rng, by_length)
            for row, steps in zip(document, offset, strict=True):
                batch += 1
                if batch <= skip:
                    continue
                # the batch is as long as its longest piece; targets below 0 are padding
                remaining = np.where(row < 0, 0, lengths[row] - steps).clip(max=T)
                num_targets, num_steps = int(remaining.sum()), int(remaining.max())
                if targets is not None:
                    num_targets = count_targets(targets, starts[row] + steps, remaining)
                row, steps, remaining = row[lanes], steps[lanes], remaining[lanes]
                xs, ys = np.zeros((2, num_steps, len(row)), np.intp)
                xs += padding
                ys -= 1
                first = starts[row] + steps
                for lane in np.flatnonzero(remaining):
                    begin, n = int(first[lane]), remaining[lane]
                    if targets is not None:
                        xs[:n, lane] = ids[begin : begin + n]
                        ys[:n, lane] = targets[begin : begin + n]
                        continue
                    ys[:n, lane] = ids[begin : begin + n]
                    xs[:1, lane] = ids[begin - 1 : begin] if steps[lane] else start
                    xs[1:n, lane] = ys[: n - 1, lane]
                at = first + np.arange(len(xs))[:, None]
                end = Position(epoch, batch)
                yield Batch(xs, ys, steps == 0, at, end, num_targets)
        epoch, skip = epoch + 1, 0


def count_targets(targets: IdSource, starts: Ids, lengths: Ids) -> int:
    """Return the number of targets, those that are not below 0, in some stretches of a text."""
    stretches = zip(starts.tolist(), lengths.tolist(), strict=True)
    return sum(int((targets[a : a + n] >= 0).sum()) for a, n in stretches)


def _shards(ends: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Yield the starts and the lengths of some documents at a time."""
    for i in range(0, len(ends), SHARD_DOCUMENTS):
        shard = ends[i : i + SHARD_DOCUMENTS]
        starts = np.append(ends[i - 1] if i else 0, shard[:-1])
        yield starts, shard - starts


def _schedule(
    lengths: Ids, B: int, T: int, rng: np.random.Generator | None, by_length: bool = True
) -> tuple[Ids, Ids]:
    """Return the document of each batch and lane, or -1, and its step there, (batches, B) each."""
    # longest first; equally long ones in random order
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    if by_length or (lengths > T).any():
        order = order[np.argsort(-lengths[order], kind="stable")]

    # documents of several batches go to the lane that is free first
    num_long = int((lengths > T).sum())
    free = [(0, lane) for lane in range(B)]
    placed = []
    for document in order[:num_long].tolist():
        batch, lane = free[0]
        pieces = -(-int(lengths[document]) // T)
        placed.append((document, batch, lane, pieces))
        heapq.heapreplace(free, (batch + pieces, lane))
    rows = max(free)[0]
    documents = np.full((rows, B), -1)
    offset = np.zeros((rows, B), np.int64)
    for document, batch, lane, pieces in placed:
        documents[batch : batch + pieces, lane] = document
        offset[batch : batch + pieces, lane] = np.arange(pieces) * T

    # the others, of one batch each, fill the empty slots, and then new rows
    short = order[num_long:]
    empty_slots = np.flatnonzero(documents.ravel() < 0)[: len(short)]
    documents.ravel()[empty_slots] = short[: len(empty_slots)]
    rest = short[len(empty_slots) :]
    rest = np.append(rest, np.full(-len(rest) % B, -1)).reshape(-1, B)
    documents = np.concatenate([documents, rest])
    offset = np.concatenate([offset, np.zeros_like(rest)])

    # consecutive batches that carry a state over are kept together
    if rng is not None:
        resets = np.flatnonzero((offset == 0).all(1))
        segments = np.split(np.arange(len(offset)), resets[1:])
        rng.shuffle(segments)
        index = np.concatenate(segments)
        documents, offset = documents[index], offset[index]
    return documents, offset
