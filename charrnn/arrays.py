"""The arrays that everything else is made of: one flat vector with named windows, and the tape of a window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Ids: TypeAlias = NDArray[np.integer[Any]]


class Flat:
    """One vector with named windows on it: the optimizer, clipping and the checkpoint see only the vector.

    ``flat["0.Whh"]`` is a view of the shape given at birth; writing there writes the vector.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32) -> None:
        """Lay the named arrays of ``shapes`` one after the other in a vector of zeros."""
        self.shapes = dict(shapes)
        self.vector: Array = np.zeros(sum(math.prod(s) for s in self.shapes.values()), dtype)
        self._views: dict[str, Array] = {}
        end = 0
        for name, shape in self.shapes.items():
            start, end = end, end + math.prod(shape)
            self._views[name] = self.vector[start:end].reshape(shape)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def like(self) -> Flat:
        """Return a vector of zeros with the same windows: gradients, for one."""
        return Flat(self.shapes, self.vector.dtype)


class Tape:
    """Every buffer of one window, allocated once; each has T rows, or T + 1 where a row stands before the first."""

    def __init__(self, T: int, buffers: Mapping[str, Array]) -> None:
        """Keep ``buffers``, whose first axis is the T steps of a window."""
        self.T = T
        self._buffers = dict(buffers)

    def __getitem__(self, name: str) -> Array:
        return self._buffers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers)

    def cut(self, t0: int, t1: int) -> Tape:
        """Return views of the steps t0 to t1: for a window that is shorter than T."""
        return Tape(t1 - t0, {name: b[t0 : t1 + len(b) - self.T] for name, b in self._buffers.items()})


class Cell(Protocol):
    """What a recurrence offers; a module satisfies it.

    Whh is (GATES * H, H); the state is (STATES, H, B), its first row the output h; ax and dax are
    (T, GATES * H, B); hs and dhs are (T, H, B).
    """

    @property
    def GATES(self) -> int: ...  # noqa: D102, N802

    @property
    def STATES(self) -> int: ...  # noqa: D102, N802

    def bias(self, bh: Array) -> None:
        """Write the initial bias (GATES * H,), which is zero before."""
        ...

    def tape(self, T: int, H: int, B: int, dtype: DTypeLike) -> Tape:
        """Allocate what forward keeps for backward."""
        ...

    def forward(self, Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
        """Run the recurrence over ax = Wxh x + bh; return hs and the last state."""
        ...

    def backward(self, Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
        """Write dWhh; return dax and the gradient of the first state."""
        ...


def sigmoid(a: Array) -> None:
    """Replace a by 1 / (1 + exp(-a)), in place."""
    a *= 0.5  # tanh form: no overflow for any input
    np.tanh(a, out=a)
    a += 1.0
    a *= 0.5


def columns(a: Array | Ids) -> Array:
    """Pack (T, N, B) into (N, T * B), so that one product sums over all steps and lanes."""
    packed: Array = a.transpose(1, 0, 2).reshape(a.shape[1], -1)
    return packed
