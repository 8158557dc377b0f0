"""One flat vector with named views, nonlinearities in place, and the memory layouts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Ids: TypeAlias = NDArray[np.integer[Any]]


class Parameters:
    """One vector with named views: the optimizer, clipping and the checkpoint see only the vector.

    ``params["0.Whh"]`` is a view of the shape given at the start; writing there writes the vector.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: DTypeLike = np.float32,
        vector: Array | None = None,
    ) -> None:
        """Place the named arrays of ``shapes`` one after the other, in ``vector`` or in zeros."""
        self.shapes = dict(shapes)
        n = sum(math.prod(shape) for shape in self.shapes.values())
        self.vector: Array = np.zeros(n, dtype) if vector is None else vector
        self._views: dict[str, Array] = {}
        end = 0
        for name, shape in self.shapes.items():
            start, end = end, end + math.prod(shape)
            self._views[name] = self.vector[start:end].reshape(shape)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def zeros_like(self) -> Parameters:
        """Return a vector of zeros with the same views, for example for gradients."""
        return Parameters(self.shapes, self.vector.dtype)


# A constant in an array halves the time of a ufunc call on one lane.
HALF = np.array(0.5, np.float32)
ONE = np.array(1, np.float32)


def sigmoid(a: Array) -> None:
    """Replace a by 1 / (1 + exp(-a)), in place.

    Without AVX-512, exp takes half the time of tanh. It may overflow, which gives the limit 0: the
    caller ignores the warning.
    """
    np.negative(a, a)
    np.exp(a, a)
    a += ONE
    np.divide(ONE, a, a)


def sigmoid_derivative(s: Array, out: Array) -> None:
    """Write s (1 - s), the derivative of a sigmoid whose value is s."""
    np.subtract(ONE, s, out=out)
    out *= s


def tanh_derivative(t: Array, out: Array) -> None:
    """Write 1 - t t, the derivative of a tanh whose value is t."""
    np.multiply(t, t, out=out)
    np.subtract(ONE, out, out=out)


def empty_feature_major(T: int, N: int, B: int, dtype: DTypeLike) -> Array:
    """Return a new (T, N, B) array, stored as (N, T, B): ``merge_time_batch`` of it is a view.

    One copy into such an array lets one product do all steps. Measured on an LSTM layer, that is
    faster than computing on its steps, whose rows are far apart.
    """
    array: Array = np.empty((N, T, B), dtype).transpose(1, 0, 2)
    return array


def merge_time_batch(a: Array) -> Array:
    """Return (T, N, B) as (N, T * B), for one product over all steps: a view if feature-major."""
    merged: Array = a.transpose(1, 0, 2).reshape(a.shape[1], -1)
    return merged


def repeat_steps(a: Array, T: int) -> Array:
    """Return a view of ``a`` repeated T times, without a copy: scratch shared by all steps."""
    view: Array = np.lib.stride_tricks.as_strided(a, (T, *a.shape), (0, *a.strides))
    return view
