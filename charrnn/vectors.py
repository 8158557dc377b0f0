"""Feature vectors, such as a vision network writes: the rows of an array that a network reads."""

from __future__ import annotations

import os
import stat
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.errors import TextError, os_reason
from charrnn.formatting import escape_control, format_count
from charrnn.text.corpus import EncodedSlice

SAMPLE_ROWS = 512  # of the training rows, at least half as many if there are enough
CHUNK_ROWS = 1024  # checked or summed at a time
CHUNK_BYTES = 2**20  # of a file, for its checksum
# what NumPy raises for a file that is no array
BAD_ZIP = zipfile.BadZipFile, zlib.error
BAD_HEADER = SyntaxError, tokenize.TokenError
BAD_FILE = ValueError, EOFError, OverflowError, RuntimeError, *BAD_HEADER, *BAD_ZIP


class Vectors:
    """The rows of an array (N, D), or (N, R, D) for R regions each, standardized.

    An id that a network reads may carry a row: with V symbols, the id of the symbol s with row i is
    s + V (i + 1). ``mean`` and ``deviation`` (D,) are those of the training rows. ``rows`` is the
    array, or the file that has it, which is mapped into memory.
    """

    def __init__(
        self, rows: NDArray[Any] | str, mean: Array, deviation: Array, *, each: bool
    ) -> None:
        """With ``each`` a row enters with every symbol of its line, otherwise with the first."""
        self.rows = np.load(rows, mmap_mode="r") if isinstance(rows, str) else rows
        self.path = rows if isinstance(rows, str) else None
        self.mean, self.deviation, self.each = mean, deviation, each
        self.sample: Ids = np.empty(0, np.intp)  # some training rows, if it has any

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of a file, not what it contains."""
        return _restore, (self.path or self.rows, self.mean, self.deviation, self.each)

    @property
    def size(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def moments(self) -> Array:
        """The mean and the deviation, (2, D)."""
        return np.stack([self.mean, self.deviation])

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.rows)

    def replace(self, source: NDArray[Any] | Path) -> Vectors:
        """Return other rows, standardized as these. Raises TextError for another shape."""
        rows = open_vectors(source)
        path = str(source) if isinstance(source, Path) else None
        if rows.shape[1:] != self.rows.shape[1:]:
            found, wanted = (format_shape(a.shape[1:]) for a in (rows, self.rows))
            raise TextError(f"{path or 'features'}: a row has {found}, the model reads {wanted}")
        other = Vectors(rows, self.mean, self.deviation, each=self.each)
        other.path = path
        return other

    def read(self, rows: Ids) -> Array:
        """Return the standardized vectors of some rows, (n, D); of regions their mean."""
        v = self.read_regions(rows)
        return v.mean(axis=1) if v.ndim == 3 else v

    def read_regions(self, rows: Ids) -> Array:
        """Return the standardized rows, (n, D) or (n, R, D)."""
        standardized: Array = (np.asarray(self.rows[rows], np.float64) - self.mean) / self.deviation
        return standardized

    def mark(self, ids: Ids, ends: Ids, rows: Ids, V: int) -> Ids:
        """Return the ids of some lines, which end at ``ends``, with the row of each line."""
        lengths = np.diff(ends, prepend=0)
        marked: Ids = ids.copy()
        if self.each:
            marked += V * (np.repeat(rows, lengths) + 1)
        else:
            marked[ends - lengths] += V * (rows + 1)
        return marked


@dataclass
class MarkedSlice(EncodedSlice):
    """The symbols of some lines, from the first one on, with the row of vectors of each line."""

    vectors: Vectors
    ends: Ids
    rows: Ids
    V: int  # number of symbols

    def __getitem__(self, at: slice) -> NDArray[np.intp]:
        start, stop, _ = at.indices(len(self))
        ids = super().__getitem__(at)
        if stop <= start:
            return ids
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        begin = int(self.ends[first - 1]) if first else 0
        ids = np.concatenate([super().__getitem__(slice(begin, start)), ids])
        ends = np.minimum(self.ends[first : last + 1], stop) - begin
        marked = self.vectors.mark(ids, ends, self.rows[first : last + 1], self.V)
        return marked[start - begin :].astype(np.intp)


def _restore(rows: NDArray[Any] | str, mean: Array, deviation: Array, each: bool) -> Vectors:
    return Vectors(rows, mean, deviation, each=each)


def without_rows(shape: tuple[int, ...], moments: Array, *, each: bool) -> Vectors:
    """Return no rows of this shape, given their mean and deviation (2, D)."""
    return Vectors(np.broadcast_to(np.float32(0), (0, *shape)), *moments, each=each)


def standardize(rows: NDArray[Any], train: Ids, path: str | None, *, each: bool) -> Vectors:
    """Return vectors with mean 0 and deviation 1 over the rows ``train``, each dimension."""
    D, n = rows.shape[-1], 0
    total, squares = np.zeros((2, D))
    shift = np.asarray(rows[train[0]], np.float64).reshape(-1, D).mean(0)  # against cancellation
    for start in range(0, len(train), CHUNK_ROWS):
        v = np.asarray(rows[train[start : start + CHUNK_ROWS]], np.float64).reshape(-1, D) - shift
        n, total, squares = n + len(v), total + v.sum(0), squares + (v * v).sum(0)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    deviation[deviation < 1e-6 * np.maximum(np.abs(mean + shift), 1e-30)] = 1  # it is constant
    vectors = Vectors(rows, mean + shift, deviation, each=each)
    vectors.path, vectors.sample = path, train[:: max(1, len(train) // SAMPLE_ROWS)]
    return vectors


def open_vectors(source: NDArray[Any] | Path) -> NDArray[Any]:
    """Return an array, or that of a ``.npy`` file, mapped into memory. Raises TextError.

    It is never unpickled. The numbers may be of any real type, and must be finite.
    """
    if isinstance(source, np.ndarray):
        return check_vectors(source, "features")
    rows = load_file(source)
    if not isinstance(rows, np.ndarray):
        rows.close()
        raise file_error(source, "an .npz archive, not a single .npy array")
    return check_vectors(rows, str(source))


def load_file(path: Path) -> Any:
    """Return the array of a ``.npy`` file, mapped into memory, or an ``.npz`` archive.

    Raises TextError.
    """
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)  # opening a pipe would wait
        if is_regular and _is_broken_zip(path):
            raise ValueError
        found = np.load(path, mmap_mode="r", allow_pickle=False) if is_regular else None
    except OSError as e:
        raise file_error(path, os_reason(e)) from None
    except (*BAD_FILE, MemoryError):
        raise file_error(path, "not an array of numbers in a .npy file") from None
    if found is None:
        raise file_error(path, "not a regular file")
    return found


def _is_broken_zip(path: Path) -> bool:
    """Return whether a file begins as a zip without the end of one; NumPy would leave it open."""
    with path.open("rb") as f:
        return f.read(2) == b"PK" and not zipfile.is_zipfile(f)


def check_vectors(rows: NDArray[Any], name: str) -> NDArray[Any]:
    """Return rows of vectors. Raises TextError if they are none."""
    if rows.dtype.kind not in "fiub":
        raise file_error(name, f"an array of {rows.dtype}, not of real numbers")
    if rows.ndim not in (2, 3) or not rows.size:
        hint = "must be (rows, size) or (rows, regions, size)"
        raise file_error(name, f"an array of the shape {rows.shape}; {hint}")
    for start in range(0, len(rows), CHUNK_ROWS):
        block = np.asarray(rows[start : start + CHUNK_ROWS], np.float64)
        is_bad = ~np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if is_bad.any():
            row = start + int(is_bad.argmax())
            raise file_error(name, f"row {row:,}, counted from 0, has NaN or an infinite number")
    return rows


def file_record(path: Path) -> tuple[str, int, int]:
    """Return the name, the size and the CRC-32 of a file. Raises TextError."""
    crc = size = 0
    try:
        with path.open("rb") as f:
            while data := f.read(CHUNK_BYTES):
                crc, size = zlib.crc32(data, crc), size + len(data)
    except OSError as e:
        raise file_error(path, os_reason(e)) from None
    return os.fspath(path), size, crc


def format_shape(shape: tuple[int, ...]) -> str:
    """Return the shape of a row in words."""
    regions = f"{format_count(shape[0], 'region')} of " if len(shape) == 2 else ""
    return regions + format_count(shape[-1], "number")


def file_error(path: Path | str, reason: str) -> TextError:
    return TextError(escape_control(f"{path}: {reason}"))
