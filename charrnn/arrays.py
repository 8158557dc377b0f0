"""The arrays that everything else is made of: one flat vector with named windows, and the tape of a window."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import repeat
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
    """Every buffer of one window, allocated once; what one layer needs while it runs, all layers share.

    ``kept`` is what forward leaves for backward, and ``work`` what either needs while it runs: each has T rows, or
    T + 1 where a row stands before the first. ``scratch`` is what a single step uses.
    """

    def __init__(
        self,
        T: int,
        kept: Mapping[str, Array],
        work: Mapping[str, Array] | None = None,
        scratch: Mapping[str, Array] | None = None,
    ) -> None:
        """Keep the buffers; the first axis of those of ``kept`` and ``work`` is the T steps of a window."""
        self.T, self.kept, self.work, self.scratch = T, dict(kept), dict(work or {}), dict(scratch or {})
        self._all = self.kept | self.work | self.scratch
        self._steps: dict[tuple[str, ...], list[tuple[Array, ...]]] = {}

    def __getitem__(self, name: str) -> Array:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def steps(self, *names: str) -> list[tuple[Array, ...]]:
        """Return, for each step, its views of the buffers of T rows named, and the scratch named as it is.

        They are made once: with one lane, making them would be half the work.
        """
        if names not in self._steps:
            rows = [repeat(self.scratch[name]) if name in self.scratch else list(self[name]) for name in names]
            self._steps[names] = list(zip(*rows, strict=False))
        return self._steps[names]

    def cut(self, t0: int, t1: int) -> Tape:
        """Return views of the steps t0 to t1: for a window that is shorter than T."""
        if (t0, t1) == (0, self.T):
            return self

        def rows(buffers: Mapping[str, Array]) -> dict[str, Array]:
            return {name: b[t0 : t1 + len(b) - self.T] for name, b in buffers.items()}

        return Tape(t1 - t0, rows(self.kept), rows(self.work), self.scratch)


class Cell(Protocol):
    """What a recurrence offers; a module satisfies it.

    Whh is (GATES * H, H); ax and dax are (T, GATES * H, B); hs and dhs are (T, H, B); the state is
    (len(STATES), H, B), its first row the output h. What forward and backward return stands on the tape, until that
    is used again.
    """

    @property
    def GATES(self) -> int: ...  # noqa: D102, N802

    @property
    def STATES(self) -> tuple[str, ...]: ...  # noqa: D102, N802

    @property
    def STEP(self) -> tuple[str, ...]: ...  # noqa: D102, N802

    def bias(self, bh: Array) -> None:
        """Write the initial bias (GATES * H,), which is zero before."""
        ...

    def tape(self, T: int, H: int, B: int, dtype: DTypeLike, lower: Tape | None = None) -> Tape:
        """Allocate a window's buffers, those of ``STATES`` with a row before the first among them.

        What is only needed while forward or backward runs is shared with the layer below, if ``lower`` is given.
        """
        ...

    def step(self, Whh: Array, ax: Array, *views: Array) -> None:
        """Run the recurrence for one step over ax (GATES * H, B), on the tape's views of the names in ``STEP``.

        The views of the state before the step and of that after it may be the same.
        """
        ...

    def forward(self, Whh: Array, ax: Array, state: Array, tape: Tape) -> tuple[Array, Array]:
        """Run it over ax = Wxh x + bh, which may stand in ``tape["a"]``; return hs and the last state."""
        ...

    def backward(self, Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape) -> tuple[Array, Array]:
        """Write dWhh; return dax, packed, and the gradient of the first state."""
        ...

    def gates(self, tape: Tape) -> Mapping[str, Array]:
        """Return what forward left of each gate, after the nonlinearity, (T, H, B): 0 is shut and 1 is open."""
        ...


# A constant that is an array already spares a ufunc call half its time (with one lane).
HALF, ONE = np.array(0.5, np.float32), np.array(1, np.float32)


def sigmoid(a: Array) -> None:
    """Replace a by 1 / (1 + exp(-a)), in place."""
    a *= HALF  # tanh form: no overflow for any input
    np.tanh(a, out=a)
    a += ONE
    a *= HALF


def packed(T: int, N: int, B: int, dtype: DTypeLike) -> Array:
    """Return a new array that is (T, N, B) in shape and (N, T, B) in memory: ``columns`` of it is a view.

    One copy into such an array lets one product do all steps. Measured on an LSTM layer, that is faster than to
    compute on its steps, whose rows lie far apart.
    """
    array: Array = np.empty((N, T, B), dtype).transpose(1, 0, 2)
    return array


def columns(a: Array) -> Array:
    """Put (T, N, B) side by side as (N, T * B), so that one product does all steps and lanes: a view if packed."""
    side: Array = a.transpose(1, 0, 2).reshape(a.shape[1], -1)
    return side
