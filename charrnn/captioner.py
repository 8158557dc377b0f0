"""A network that reads feature vectors beside its symbols."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from charrnn.arrays import Array, Ids
from charrnn.cells import load_cell
from charrnn.network import Network, NetworkTape
from charrnn.vectors import Vectors


class Captioner(Network):
    """A network whose ids may carry a row of ``vectors``; see there how.

    The vector v of a row adds Wih v to the first layer's pre-activation, as in the lectures'
    one-to-many diagram (Karpathy and Fei-Fei, 2015). ``Wih`` is (G H, D).
    """

    OF_VECTORS: tuple[str, ...] = ("Wih",)  # the parameters that other networks lack

    def __init__(self, *args: Any, vectors: Vectors, **options: Any) -> None:
        self.vectors: Vectors = vectors
        super().__init__(*args, **options)

    def _kind(self) -> Callable[..., Network]:
        return functools.partial(type(self), vectors=self.vectors)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        cell, _, H, _ = self.architecture
        GH = load_cell(cell).NUM_BLOCKS * H
        return {**super().parameter_shapes(), "Wih": (GH, self.vectors.size)}

    def init_parameters(self, rng: Generator) -> None:
        """Initialize the parameters; the weights of D numbers are within 1/sqrt(D)."""
        super().init_parameters(rng)
        self.params["Wih"][:] *= math.sqrt(self.hidden_size / self.vectors.size)

    def load_weights_from(self, other: Network, ids: Ids, outputs: Ids | None) -> None:
        """Copy the parameters of a network; only one that reads such vectors has all of them."""
        super().load_weights_from(other, ids, outputs)
        for name in self.OF_VECTORS:
            if name in other.params and other.params[name].shape == self.params[name].shape:
                self.params[name][:] = other.params[name]

    def _read_rows(self, ids: Ids) -> tuple[Ids, Ids, Array]:
        """Return which of the ids (n,) carry a row; and of each the index of its vector (m, D)."""
        at = np.flatnonzero(ids >= self.vocab_size)
        rows, index = np.unique(ids[at] // self.vocab_size - 1, return_inverse=True)
        return at, index, self.vectors.read(rows).astype(self.params.vector.dtype)

    def vector_input(self, ids: Ids) -> Array:
        """Return Wih v for each of the ids (B,), (G H, B); 0 where there is no vector."""
        Wih = self.params["Wih"]
        out: Array = np.zeros((len(Wih), len(ids)), Wih.dtype)
        at, index, v = self._read_rows(ids)
        out[:, at] = (Wih @ v.T)[:, index]
        return out

    def forward_input(self, xs: Ids, tape: NetworkTape) -> None:
        """Write Wxh x + bh + Wih v."""
        super().forward_input(xs % self.vocab_size, tape)
        at, index, v = self._read_rows(xs.ravel())
        t, lane = np.divmod(at, xs.shape[1])
        tape.layers[0].a[t, :, lane] += (v @ self.params["Wih"].T)[index]

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of Wxh, bh and Wih; ``dout`` (G H, T B) is overwritten."""
        at, index, v = self._read_rows(xs.ravel())
        of_rows = np.zeros((len(v), len(dout)), dout.dtype)  # the sum over the steps of a row
        np.add.at(of_rows, index, dout[:, at].T)
        np.matmul(of_rows.T, v, out=self.grads["Wih"])
        super().backward_input(xs % self.vocab_size, dout, tape)
