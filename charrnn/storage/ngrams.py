"""The n-grams of a checkpoint: zlib's compression of arrays, whose sizes the header has."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charrnn.counts import Counts, Stored
from charrnn.storage.header import damage_error
from charrnn.storage.state import CountsRecord


def pack(all_stored: Sequence[Stored], V: int) -> tuple[CountsRecord, NDArray[np.uint8]]:
    """Return the record of the header, and the compressed arrays."""
    sizes = [len(stored.symbols) for stored in all_stored]
    arrays = [array for stored in all_stored for array in stored[:4]]
    types = [dtype for dtype, _ in _layout(sizes, V)]
    raw = b"".join(a.astype(t).tobytes() for a, t in zip(arrays, types, strict=True))
    data = np.frombuffer(zlib.compress(raw), np.uint8)
    discounts = [tuple(stored.discounts.tolist()) for stored in all_stored]
    return CountsRecord(sizes=sizes, discounts=discounts, bytes=len(data)), data


def unpack(record: CountsRecord, data: NDArray[np.uint8], V: int) -> Counts:
    """Return the counts of a checkpoint. Raises InvalidCheckpoint."""
    # decompress as many bytes as the header implies, and no more
    layout = list(_layout(record["sizes"], V))
    raw = decompress(data, sum(np.dtype(dtype).itemsize * n for dtype, n in layout))

    # the arrays
    arrays, offset = [], 0
    for dtype, n in layout:
        arrays.append(np.frombuffer(raw, dtype, n, offset).astype(np.int32))
        offset += np.dtype(dtype).itemsize * n
    all_stored = []
    for n, discounts in enumerate(record["discounts"]):
        symbols, counts, children, dropped = arrays[4 * n : 4 * n + 4]
        stored = Stored(symbols, counts, children, dropped, np.array(discounts))
        _check(stored, V)
        all_stored.append(stored)
    return Counts(V, all_stored)


def decompress(data: NDArray[np.uint8], num_bytes: int) -> bytes:
    """Return so many bytes, as zlib compressed them. Raises InvalidCheckpoint."""
    try:
        decompressor = zlib.decompressobj()
        raw = decompressor.decompress(data.tobytes(), num_bytes + 1)
    except zlib.error:
        raise damage_error("counts.npy is not in the expected format") from None
    if len(raw) != num_bytes or not decompressor.eof or decompressor.unused_data:
        raise damage_error("counts.npy does not have the size that the header implies")
    return raw


def _layout(sizes: Sequence[int], V: int) -> Iterator[tuple[DTypeLike, int]]:
    """Yield the dtype and the length of each array."""
    small = np.min_scalar_type(V).newbyteorder("<")
    for num_histories, n in zip([1, *sizes], sizes, strict=False):
        yield from ((small, n), ("<u2", n), (small, num_histories), (small, num_histories))


def _check(stored: Stored, V: int) -> None:
    """Raise InvalidCheckpoint unless the n-grams are sorted, and all numbers are possible."""
    symbols, counts, children, dropped, discounts = stored
    valid = int(children.sum(dtype=np.int64)) == len(symbols)
    valid = valid and bool((symbols < V).all() and (children + dropped <= V).all())
    if valid:
        keys = np.repeat(np.arange(len(children)), children) * V + symbols
        valid = bool((np.diff(keys) > 0).all() and counts.sum(dtype=np.int64) < 2**31)
    if not valid or discounts[0] or (discounts > np.arange(4)).any() or (discounts[1:] <= 0).any():
        raise damage_error("the n-grams in counts.npy are inconsistent")
