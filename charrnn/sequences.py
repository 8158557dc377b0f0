"""Sequences of vectors, such as the frames of speech or of a video, and the network they enter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids, merge_time_batch
from charrnn.captioner import Captioner
from charrnn.errors import TextError
from charrnn.network import NetworkTape
from charrnn.vectors import (
    BAD_FILE,
    Vectors,
    check_vectors,
    file_error,
    format_shape,
    load_file,
    standardize,
)

STEP = "\n"  # the symbol of each vector
MEMBERS = ("vectors", "lengths")  # of an .npz file


class Sequences(Vectors):
    """Sequences of vectors, one after the other in ``rows`` (M, D), standardized.

    A line about a sequence is read as a text of as many newlines, and an end; each newline carries
    the next vector. ``ends`` (N,) are the ends of the sequences.
    """

    def __init__(
        self,
        rows: NDArray[Any] | str,
        mean: Array,
        deviation: Array,
        ends: Ids,
        path: str | None = None,
    ) -> None:
        super().__init__(rows, mean, deviation, each=True)
        self.rows = self.rows.reshape(-1, len(mean))
        self.path, self.ends = path, ends
        self.lengths = np.diff(ends, prepend=0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of a file that is mapped into memory, otherwise the vectors."""
        rows = self.path if isinstance(self.rows, np.memmap) else self.rows
        return Sequences, (rows, self.mean, self.deviation, self.ends, self.path)

    @property
    def num_rows(self) -> int:
        """The number of sequences."""
        return len(self.ends)

    def replace(self, source: NDArray[Any] | Path) -> Sequences:
        """Return other sequences, standardized as these. Raises TextError for another size."""
        rows, ends = open_sequences(source)
        path = str(source) if isinstance(source, Path) else None
        if rows.shape[1:] != self.rows.shape[1:]:
            found, wanted = (format_shape(a.shape[1:]) for a in (rows, self.rows))
            raise TextError(f"{path or 'features'}: a vector has {found}, the model reads {wanted}")
        return Sequences(rows, self.mean, self.deviation, ends, path)

    def texts(self, rows: Sequence[int] | Ids) -> list[str]:
        """Return the texts as which some sequences are read."""
        return [STEP * int(length) for length in self.lengths[np.asarray(rows, np.intp)]]

    def mark(self, ids: Ids, ends: Ids, rows: Ids, V: int) -> Ids:
        """Return the ids of some lines, which end at ``ends``, with the vectors of a sequence each.

        The last line may lack its last symbols.
        """
        line_lengths, lengths = np.diff(ends, prepend=0), self.lengths[rows]
        t = np.arange(len(ids)) - np.repeat(ends - line_lengths, line_lengths)
        first = self.ends[rows] - lengths
        is_vector = t < np.repeat(lengths, line_lengths)
        marked: Ids = ids + V * is_vector * (np.repeat(first, line_lengths) + t + 1)
        return marked


class SequenceReader(Captioner):
    """A network of whose ids each may carry another vector: Wih v is a product over all steps."""

    def _read_vectors(self, xs: Ids) -> Array:
        """Return the vector of each of the ids (T, B), (D, T B); 0 where there is none."""
        ids, D = xs.ravel(), self.vectors.size
        x = np.zeros((len(ids), D), self.params.vector.dtype)
        at = np.flatnonzero(ids >= self.vocab_size)
        x[at] = self.vectors.read(ids[at] // self.vocab_size - 1)
        return np.transpose(x)

    def forward_input(self, xs: Ids, tape: NetworkTape) -> None:
        """Write Wxh x + bh + Wih v."""
        super(Captioner, self).forward_input(xs % self.vocab_size, tape)
        layer = tape.layers[0]
        np.matmul(self.params["Wih"], self._read_vectors(xs), out=merge_time_batch(layer.dax))
        layer.a += layer.dax

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of Wxh, bh and Wih; ``dout`` (G H, T B) is overwritten."""
        np.matmul(dout, self._read_vectors(xs).T, out=self.grads["Wih"])
        super(Captioner, self).backward_input(xs % self.vocab_size, dout, tape)


def without_sequences(moments: Array) -> Sequences:
    """Return no sequences, given the mean and the deviation (2, D) of their numbers."""
    mean, deviation = moments
    return Sequences(np.zeros((0, len(mean)), np.float32), mean, deviation, np.zeros(0, np.int64))


def standardize_sequences(
    rows: NDArray[Any], ends: Ids, train: Ids, path: str | None = None
) -> Sequences:
    """Return sequences whose numbers have mean 0 and deviation 1 over the sequences ``train``."""
    lengths = np.diff(ends, prepend=0)
    is_train = np.zeros(len(ends), bool)
    is_train[train] = True
    found = standardize(rows, np.flatnonzero(np.repeat(is_train, lengths)), path, each=True)
    return Sequences(rows, found.mean, found.deviation, ends, path)


def open_sequences(source: NDArray[Any] | Path) -> tuple[NDArray[Any], Ids]:
    """Return vectors (M, D), and the ends (N,) of the sequences in them. Raises TextError.

    ``source`` is an array (N, T, D), or a ``.npy`` file with one, which is mapped into memory; or
    an ``.npz`` file with ``vectors`` (M, D) and ``lengths`` (N,). Nothing is unpickled.
    """
    name = "features" if isinstance(source, np.ndarray) else str(source)
    rows = source if isinstance(source, np.ndarray) else load_file(source)
    if not isinstance(rows, np.ndarray):
        with rows:
            return _read_archive(rows, name)
    if rows.ndim != 3:
        hint = "must be (sequences, steps, size), or an .npz file with vectors and lengths"
        raise file_error(name, f"an array of the shape {rows.shape}; {hint}")
    N, T, D = check_vectors(rows, name).shape
    return rows.reshape(-1, D), T * np.arange(1, N + 1)


def _read_archive(archive: Any, name: str) -> tuple[NDArray[Any], Ids]:
    """Return the vectors of an ``.npz`` file, and the ends of its sequences. Raises TextError."""
    if missing := [member for member in MEMBERS if member not in archive.files]:
        raise file_error(name, f"has no {missing[0]!r}; an .npz file needs vectors and lengths")
    arrays = []
    for member in MEMBERS:
        try:
            arrays.append(np.asarray(archive[member]))
        except MemoryError:
            raise file_error(name, f"not enough free memory for its {member!r}") from None
        except BAD_FILE:
            raise file_error(name, f"its {member!r} is damaged, or no array of numbers") from None
    vectors, lengths = arrays
    if vectors.ndim != 2:
        hint = "must be (sum of lengths, size)"
        raise file_error(name, f"'vectors' of the shape {vectors.shape}; {hint}")
    check_vectors(vectors, name)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        found = f"{lengths.dtype} of the shape {lengths.shape}"
        raise file_error(name, f"'lengths' are {found}, not a list of integers")
    M, is_bad = len(vectors), (lengths < 1) | (lengths > len(vectors))
    if is_bad.any():
        i = int(is_bad.argmax())
        raise file_error(name, f"'lengths' has {lengths[i]} at {i:,}, for {M:,} vectors")
    ends = np.cumsum(lengths, dtype=np.int64)
    if not len(ends) or ends[-1] != M:
        total = int(ends[-1]) if len(ends) else 0
        raise file_error(name, f"the sum of 'lengths' is {total:,}, but there are {M:,} 'vectors'")
    return vectors, ends
