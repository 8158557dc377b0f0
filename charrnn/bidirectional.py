"""A bidirectional network: one network reads from the left, a second one from the right."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike

from charrnn.arrays import Array, Ids, Parameters, merge_time_batch
from charrnn.attentive import Attentive
from charrnn.captioner import Captioner
from charrnn.cells import load_cell
from charrnn.conditional import Conditional
from charrnn.config import Config
from charrnn.network import Network, NetworkTape, State, num_parameters
from charrnn.regions import RegionCaptioner
from charrnn.sequences import SequenceReader, Sequences
from charrnn.vectors import Vectors

SIDES = ("left", "right")


@dataclass
class TwoTapes(NetworkTape):
    """The tape of the network that reads from the left, and of the other one."""

    right: NetworkTape

    def slice(self, t0: int, t1: int) -> TwoTapes:
        """Return views of the steps t0 to t1, for a batch of fewer than T steps."""
        view = copy.copy(cast(TwoTapes, super().slice(t0, t1)))
        view.right = self.right.slice(t0, t1)
        return view


class Bidirectional(Network):
    """Two networks of the same size, which read every line from its two ends.

    The output has both hidden states. Its map of [h; h'] is the sum of two maps, so the logits of
    the two networks are added (Schuster and Paliwal, 1997). A batch holds whole documents, with ids
    below 0 after the end of each. Both networks read a line's end last, so that the logits there
    have the last hidden states of both. Layers L to 2 L of the state and the dropout masks belong
    to the network that reads from the right.
    """

    PADDING = -1

    def __init__(
        self,
        cell: str,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        dtype: DTypeLike = np.float32,
        rng: Generator | None = None,
        num_outputs: int | None = None,
        vectors: Vectors | None = None,
    ) -> None:
        how = cell, vocab_size, hidden_size, num_layers, dtype, None, num_outputs
        side = functools.partial(SequenceReader, vectors=vectors) if vectors else Network
        self.left, self.right = side(*how), side(*how)
        super().__init__(cell, vocab_size, hidden_size, num_layers, dtype, rng, num_outputs)
        self.num_layers = 2 * num_layers

    @property
    def vectors(self) -> Vectors | None:
        """What both networks read beside the ids."""
        return self.left.vectors

    @vectors.setter
    def vectors(self, vectors: Vectors | None) -> None:
        self.left.vectors = self.right.vectors = vectors

    def _kind(self) -> Callable[..., Network]:
        return functools.partial(type(self), vectors=self.vectors) if self.vectors else type(self)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.left.parameter_shapes()
        return {f"{side}.{name}": shape for side in SIDES for name, shape in shapes.items()}

    def use_vectors(self, params: Array, grads: Array) -> None:
        """Use two vectors as they are for the parameters and the gradients, without a copy."""
        self.params = Parameters(self.parameter_shapes(), params.dtype, params)
        self.grads = Parameters(self.parameter_shapes(), grads.dtype, grads)
        self.left, self.right = copy.copy(self.left), copy.copy(self.right)
        n = len(params) // 2
        self.left.use_vectors(params[:n], grads[:n])
        self.right.use_vectors(params[n:], grads[n:])

    def init_parameters(self, rng: Generator) -> None:
        """Initialize the parameters of both networks."""
        self.left.init_parameters(rng)
        self.right.init_parameters(rng)

    def load_weights_from(self, other: Network, ids: Ids, outputs: Ids | None) -> None:
        """Copy the parameters of a network; one that reads from the left has none for the right."""
        if isinstance(other, Bidirectional):
            self.right.load_weights_from(other.right, ids, outputs)
            other = other.left
        self.left.load_weights_from(other, ids, outputs)

    def new_tape(self, T: int, B: int) -> TwoTapes:
        """Allocate every buffer of a batch of T steps and B lanes."""
        return TwoTapes(**vars(self.left.new_tape(T, B)), right=self.right.new_tape(T, B))

    def forward(
        self, xs: Ids, state: State, tape: NetworkTape, masks: Array | None = None
    ) -> State:
        """Run ids ``xs`` (T, B) through both networks; leave the logits (T, O, B) on the tape."""
        assert isinstance(tape, TwoTapes)
        order, xs = self._order(xs), np.maximum(xs, 0)
        left, right = _halves(masks)
        L = len(state) // 2
        first = self.left.forward(xs, state[:L], tape, left)
        xs = np.take_along_axis(xs, order, 0)
        second = self.right.forward(xs, state[L:], tape.right, right)
        with np.errstate(all="ignore"):
            np.add(tape.logits, reorder(tape.right.logits, order), out=tape.logits)
        return np.concatenate([first, second])

    def backward(self, xs: Ids, dout: Array, tape: NetworkTape, masks: Array | None) -> None:
        """Write ``grads``, given the gradient ``dout`` (O, T B) of the logits after forward."""
        assert isinstance(tape, TwoTapes)
        order, xs = self._order(xs), np.maximum(xs, 0)
        left, right = _halves(masks)
        dlogits = dout.reshape(-1, *xs.shape).swapaxes(0, 1)  # (T, O, B)
        tape.right.logits[:] = reorder(dlogits, order)
        self.left.backward(xs, dout, tape, left)
        dout = merge_time_batch(tape.right.logits)
        self.right.backward(np.take_along_axis(xs, order, 0), dout, tape.right, right)

    @staticmethod
    def _order(xs: Ids) -> Ids:
        """Return the step (T, B) that is read at each step from the right.

        The end of a line and padding stay in place.
        """
        t, lengths = np.arange(len(xs))[:, None], (xs >= 0).sum(0) - 1
        order: Ids = np.where(t < lengths, lengths - 1 - t, t)
        return order


def _halves(masks: Array | None) -> tuple[Array | None, Array | None]:
    """Return the dropout masks of each network."""
    return (None, None) if masks is None else (masks[: len(masks) // 2], masks[len(masks) // 2 :])


def reorder(a: Array, order: Ids) -> Array:
    """Return ``a`` (T, N, B) with the steps of each lane in this ``order`` (T, B)."""
    return np.take_along_axis(a, order[:, None], 0)


def make_network(
    config: Config,
    V: int,
    num_outputs: int | None = None,
    rng: Generator | None = None,
    vectors: Vectors | None = None,
) -> Network:
    """Return the network that the options of a run describe; ``num_outputs`` is V if not given."""
    kind = Bidirectional if config.bidirectional else Attentive if config.attention else Network
    if config.generative:
        kind = Conditional
    sizes = config.cell, V, config.hidden_size, config.num_layers
    if isinstance(vectors, Sequences):
        reader: Callable[..., Network] = Bidirectional if config.bidirectional else SequenceReader
        return reader(*sizes, config.dtype, rng, num_outputs, vectors=vectors)
    if vectors:
        reader = RegionCaptioner if config.attention else Captioner
        return reader(*sizes, config.dtype, rng, num_outputs, vectors=vectors)
    return kind(*sizes, config.dtype, rng, num_outputs)


def count_parameters(
    config: Config, V: int, num_outputs: int | None = None, features: Sequence[int] = ()
) -> int:
    """Return the number of parameters of ``make_network``, without allocating them.

    ``features`` is the shape of a row of the vectors that it reads, if it does.
    """
    H = config.hidden_size
    n = num_parameters(config.cell, V, H, config.num_layers, num_outputs)
    size = features[-1] if features else 0  # of what Wih reads
    if config.attention:
        n += H * H + (num_outputs or V) * H
        if features:
            n += features[0] * H + H * size + 2 * H  # bv, Wv, gu and bu
            size = H
    n += load_cell(config.cell).NUM_BLOCKS * H * size
    return n * (2 if config.bidirectional else 1)
