"""The layers on top of each other: ids to loss, and the loss's gradient back to every parameter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike

from charrnn import affine, loss
from charrnn.arrays import Array, Ids, Parameters, empty_feature_major, merge_time_batch
from charrnn.cells import load_cell
from charrnn.cells.base import Tape
from charrnn.config import CELLS
from charrnn.text.batches import Batch
from charrnn.vectors import Vectors

State: TypeAlias = Array  # (L, S, H, B)


@dataclass
class NetworkTape:
    """Every buffer of a batch of T steps: a tape for each layer, and the buffers of the output."""

    layers: list[Tape[Any]]
    xs: Array  # (T, H, B), feature-major: a layer's input, after dropout
    dhs: Array  # (T, H, B)
    logits: Array  # (T, O, B), feature-major
    one_hot: Array  # (T, B, V), or nothing for a large vocabulary
    state: State  # the state after the batch
    W_plus_b: Array  # (G H, V)

    def slice(self, t0: int, t1: int) -> NetworkTape:
        """Return views of the steps t0 to t1, for a batch of fewer than T steps."""
        if (t0, t1) == (0, len(self.xs)):
            return self
        steps, view = slice(t0, t1), copy.copy(self)
        view.layers = [tape.slice(t0, t1) for tape in self.layers]
        view.xs, view.dhs = self.xs[steps], self.dhs[steps]
        view.logits, view.one_hot = self.logits[steps], self.one_hot[steps]
        return view


class Network:
    """``num_layers`` recurrent layers and an affine output: p = softmax(Why h + by).

    ``params`` holds the parameters and ``grads`` their gradients: ``0.Wxh`` (G H, V), ``0.Whh`` (G
    H, H), ``0.bh`` (G H,), the same for the layers above with Wxh (G H, H), then ``Why`` (O, H) and
    ``by`` (O,). G is the cell's number of blocks, H the hidden size, V the size of the vocabulary,
    L the number of layers, S the number of the cell's states, O the number of outputs: V, unless it
    is given. With ``rng`` the parameters are initialized, otherwise zero.
    """

    PADDING = 0  # the id that fills a lane after the end of its document
    vectors: Vectors | None = None  # that ids carry, see ``captioner``

    def __init__(
        self,
        cell: str,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        dtype: DTypeLike = np.float32,
        rng: Generator | None = None,
        num_outputs: int | None = None,
    ) -> None:
        self.architecture = cell, vocab_size, hidden_size, num_layers
        self.vocab_size, self.hidden_size, self.num_layers = vocab_size, hidden_size, num_layers
        self.num_outputs = num_outputs or vocab_size
        self.cell = load_cell(cell)
        params = Parameters(self.parameter_shapes(), dtype)
        self.use_vectors(params.vector, np.zeros_like(params.vector))
        if rng is not None:
            self.init_parameters(rng)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(*self.architecture, self.num_outputs)

    def use_vectors(self, params: Array, grads: Array) -> None:
        """Use two vectors as they are for the parameters and the gradients, without a copy."""
        shapes = self.parameter_shapes()
        self.params = Parameters(shapes, params.dtype, params)
        self.grads = Parameters(shapes, grads.dtype, grads)
        self._layers = self._by_layer(self.params)
        self._dlayers = self._by_layer(self.grads)

    def init_parameters(self, rng: Generator) -> None:
        """Initialize the parameters: weights uniform, recurrent ones orthogonal, biases by cell.

        Input weights have variance 1, which is 1 / fan-in (LeCun et al., 1998, eq. 16), because a
        one-hot column has a single element; the others are within ±1/sqrt(H), so that the logits
        are small and the initial loss is close to ln V. Orthogonal matrices, one per block: Saxe et
        al., 2014, section 3.
        """
        H = self.hidden_size
        for name in self.params:
            w = self.params[name]
            if name.endswith("Whh"):
                for block in w.reshape(-1, H, H):
                    q, r = np.linalg.qr(rng.standard_normal((H, H)))
                    block[:] = q * np.sign(np.diag(r))  # the sign makes it uniform: Mezzadri, 2007
            elif w.ndim == 2:
                w[:] = rng.uniform(-1, 1, w.shape) * math.sqrt(3 if name == "0.Wxh" else 1 / H)
            elif name.endswith("bh"):
                self.cell.init_bias(w)

    def _by_layer(self, params: Parameters) -> list[tuple[Array, Array, Array]]:
        return [
            (params[f"{l}.Wxh"], params[f"{l}.Whh"], params[f"{l}.bh"])
            for l in range(self.num_layers)
        ]

    def replica(self) -> Network:
        """Return a network that shares these parameters and has its own gradients."""
        other = copy.copy(self)
        other.use_vectors(self.params.vector, np.zeros_like(self.params.vector))
        return other

    def copy(self, dtype: DTypeLike | None = None) -> Network:
        """Return a network with a copy of the parameters, of another dtype if one is given."""
        dtype = dtype or self.params.vector.dtype
        other = self._kind()(*self.architecture, dtype, num_outputs=self.num_outputs)
        other.params.vector[:] = self.params.vector
        return other

    def _kind(self) -> Callable[..., Network]:
        """Return what makes a network of the same kind."""
        return type(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the weights, without their views."""
        cell, kind = self.architecture[0], (self._kind(), self.architecture, self.num_outputs)
        return _restore_network, (*kind, self.params.vector, CELLS[cell])

    def load_weights_from(self, other: Network, ids: Ids, outputs: Ids | None) -> None:
        """Copy the parameters of a network of the same size, whose input i is ``ids[i]`` here.

        Below 0 it is nothing here. Its output i is ``outputs[i]``; with None they mean something
        else and keep their initial weights. So do symbols that it lacks; their bias becomes the
        mean of its biases.
        """
        for name in self.params:
            if name == "0.Wxh":
                self.params[name][:, ids[ids >= 0]] = other.params[name][:, ids >= 0]
            elif name not in ("Wa", "Wih", "Wv", "bv", "gu", "bu", "Why", "by"):
                self.params[name][:] = other.params[name]
        if outputs is not None:
            Why, given, by = self.params["Why"], other.params["Why"], other.params["by"]
            H = min(Why.shape[1], given.shape[1])  # with attention the output has a second input
            Why[outputs, :H] = given[:, :H]
            self.params["by"][:] = by.mean()
            self.params["by"][outputs] = by

    def zero_state(self, B: int) -> State:
        """Return the state at the start of a text, (L, S, H, B)."""
        shape = self.num_layers, len(self.cell.STATE_NAMES), self.hidden_size, B
        return np.zeros(shape, self.params.vector.dtype)

    def new_tape(self, T: int, B: int) -> NetworkTape:
        """Allocate every buffer of a batch of T steps and B lanes."""
        V, O, H = self.vocab_size, self.num_outputs, self.hidden_size
        dtype = self.params.vector.dtype
        first = self.cell.new_tape(T, H, B, dtype)
        others = [self.cell.new_tape(T, H, B, dtype, first) for _ in range(self.num_layers - 1)]
        return NetworkTape(
            [first, *others],
            xs=empty_feature_major(T, H, B, dtype),
            dhs=np.empty((T, H, B), dtype),
            logits=empty_feature_major(T, O, B, dtype),
            one_hot=np.empty((T, B, V if V <= affine.MAX_ONE_HOT else 0), dtype),
            state=np.empty_like(self.zero_state(B)),
            W_plus_b=np.empty_like(self.params["0.Wxh"]),
        )

    def dropout_masks(
        self, rng: Generator, T: int, B: int, keep: float, out: Array | None = None
    ) -> Array:
        """Draw dropout masks (L, T, H, B): 1 / keep with probability keep, otherwise 0.

        They apply to each layer's output, never to the recurrence: Zaremba et al., 2014, eq. 4-6.
        """
        shape = self.num_layers, T, self.hidden_size, B
        masks: Array = rng.random(shape, self.params.vector.dtype.type, out)
        np.less(masks, keep, out=masks)
        masks *= 1 / keep
        return masks

    @np.errstate(all="ignore")  # the sigmoid's exp may overflow, and the weights may have diverged
    def forward(
        self, xs: Ids, state: State, tape: NetworkTape, masks: Array | None = None
    ) -> State:
        """Run ids ``xs`` (T, B) through the layers; leave the logits (T, O, B) on the tape.

        The state returned is on the tape too, until the next use; ``state`` may be that array.
        """
        # each layer reads the outputs of the one below, the first one a column of Wxh per id
        last = tape.state
        for l, (Wxh, Whh, bh) in enumerate(self._layers):
            layer = tape.layers[l]
            if l == 0:
                self.forward_input(xs, tape)
            else:
                affine.forward(Wxh, bh, merge_time_batch(tape.xs), layer.dax, layer.a)
            hs, last[l] = self.cell.forward(Whh, layer.a, state[l], layer)
            apply_dropout(hs, masks, l, tape.xs)

        self.forward_output(tape)
        return last

    def forward_input(self, xs: Ids, tape: NetworkTape) -> None:
        """Write Wxh x + bh of the first layer; x are the one-hot columns of ``xs``."""
        Wxh, _, bh = self._layers[0]
        affine.forward_ids(Wxh, bh, xs, tape.W_plus_b, tape.layers[0].a)

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of Wxh and bh, given ``dout`` (G H, T B), which is overwritten."""
        dW, _, db = self._dlayers[0]
        one_hot, scratch = tape.one_hot.reshape(xs.size, -1), tape.layers[0].da.reshape(dout.shape)
        affine.backward_ids(dW, db, xs.ravel(), dout, one_hot, scratch)

    def mark_source(self, ys: Ids, tape: NetworkTape) -> None:
        """Keep on the tape what the output needs to know of the targets ``ys`` (T, B): nothing."""

    def vector_input(self, ids: Ids) -> Array:
        """Return what the vectors of ids (B,) add to the first layer's pre-activation, (G H, B)."""
        raise NotImplementedError

    def forward_output(self, tape: NetworkTape) -> None:
        """Write the logits, Why h + by, in place; the top layer's outputs are in ``tape.xs``."""
        x, logits = merge_time_batch(tape.xs), tape.logits
        affine.forward(self.params["Why"], self.params["by"], x, logits, logits)

    def backward_output(self, dout: Array, tape: NetworkTape, dx: Array) -> None:
        """Write the gradients of the output, and ``dx`` (T, H, B), that of ``tape.xs``."""
        W, dW, db = self.params["Why"], self.grads["Why"], self.grads["by"]
        affine.backward(W, dW, db, merge_time_batch(tape.xs), dout, merge_time_batch(dx))

    def read(self, batches: Iterable[Batch], T: int, B: int) -> Iterator[tuple[Batch, NetworkTape]]:
        """Run forward over batches of at most T steps and B lanes, with the state carried over.

        Yield each batch with its tape, which the next one overwrites. Non-finite values do not
        warn: the weights may have diverged.
        """
        tape, state = self.new_tape(T, B), self.zero_state(B)
        for batch in batches:
            state[..., batch.reset] = 0
            view = tape.slice(0, len(batch.xs))
            self.mark_source(batch.ys, view)
            with np.errstate(all="ignore"):
                state = self.forward(batch.xs, state, view)
            yield batch, view

    def loss_and_grad(
        self,
        xs: Ids,
        ys: Ids,
        state: State,
        tape: NetworkTape,
        *,
        masks: Array | None = None,
        scale: float,
    ) -> tuple[Array, State]:
        """Return the loss of the targets ``ys`` (T, B), in nats, (T, B), and the last state.

        Write to ``grads`` the gradient of the summed loss times ``scale``: 1 sums, 1 / (T B) gives
        the mean. The carried state is a constant: gradients end at the start of the batch.
        """
        # the loss, and its gradient with respect to the logits
        self.mark_source(ys, tape)
        logits, ys = merge_time_batch(tape.logits), ys.ravel()
        last = self.forward(xs, state, tape, masks)
        nll, sum_exp = loss.forward(logits, ys)
        dout = loss.backward(logits, sum_exp, ys, scale)
        self.backward(xs, dout, tape, masks)
        return nll.reshape(xs.shape), last

    def backward(self, xs: Ids, dout: Array, tape: NetworkTape, masks: Array | None) -> None:
        """Write ``grads``, given the gradient ``dout`` (O, T B) of the logits after forward."""
        # back through the output, then through each layer's recurrence and the affine map below it
        layers, dhs = tape.layers, tape.dhs
        dfinal = np.zeros((len(self.cell.STATE_NAMES), 1, 1), dout.dtype)
        self.backward_output(dout, tape, layers[-1].x)
        for l in reversed(range(self.num_layers)):
            layer, (W, Whh, _), (dW, dWhh, db) = layers[l], self._layers[l], self._dlayers[l]
            apply_dropout(layer.x, masks, l, dhs)
            dax, _ = self.cell.backward(Whh, dWhh, dhs, dfinal, layer)
            dout = merge_time_batch(dax)
            if l > 0:
                below = layers[l - 1]
                apply_dropout(below.states[0, 1:], masks, l - 1, tape.xs)
                affine.backward(
                    W, dW, db, merge_time_batch(tape.xs), dout, merge_time_batch(below.x)
                )

        self.backward_input(xs, dout, tape)


class Stepper:
    """A network that reads a symbol of each lane at a time and keeps only its state.

    For sampling, where each symbol depends on the last, and scoring, which needs no gradient.
    """

    def __init__(self, network: Network, state: State) -> None:
        """Start from a copy of ``state`` (L, S, H, B)."""
        p, cell, (L, S, H, B) = network.params, network.cell, state.shape
        self._step, self._vocab_size = cell.step, network.vocab_size
        self._vector_input = None if network.vectors is None else network.vector_input
        self._W_plus_b = p["0.Wxh"] + p["0.bh"][:, None]
        if B == 1:  # one column per symbol, ready to pick up
            self._columns = list(self._W_plus_b.T[:, :, None].copy())
        self._ax = np.empty((len(self._W_plus_b), B), state.dtype)

        # the top layer comes first in memory: h of a layer and h of the one below are one column
        memory = np.empty((S, L, H, B), state.dtype)
        self.state, self.h = memory.swapaxes(0, 1)[::-1], memory[0, 0]  # h of the top layer
        self.state[:] = state
        self._Whh, self._views = p["0.Whh"], cell.new_step_views(self.state[0])
        self._above: list[tuple[Array, Any, Array, Array | None, Array]] = []
        for l in range(1, L):
            Whh, views = p[f"{l}.Whh"], cell.new_step_views(self.state[l])
            Wxh: Array | None = p[f"{l}.Wxh"]
            b, x = np.repeat(p[f"{l}.bh"][:, None], B, axis=1), self.state[l - 1, 0]
            if cell.ONE_PRODUCT:
                Whh, Wxh = np.hstack([Whh, p[f"{l}.Wxh"]]), None
                views = views._replace(hprev=memory[0, L - 1 - l : L + 1 - l].reshape(2 * H, B))
            self._above.append((Whh, views, b, Wxh, x))
        self._Why, self._by = p["Why"], np.repeat(p["by"][:, None], B, axis=1)
        self._logits = np.empty_like(self._by)

    def read(self, ids: Ids) -> None:
        """Read ids (B,); update ``state`` (L, S, H, B), and so the top layer's ``h`` (H, B)."""
        symbols = ids if self._vector_input is None else ids % self._vocab_size
        if len(ids) == 1:
            ax = self._columns[symbols[0]]
        else:
            ax = np.take(self._W_plus_b, symbols, axis=1, out=self._ax, mode="clip")
        if self._vector_input is not None:
            ax = ax + self._vector_input(ids)
        self._step(self._Whh, ax, self._views)
        for Whh, views, b, Wxh, x in self._above:
            ax = b
            if Wxh is not None:  # not a part of the product of the step
                ax = np.dot(Wxh, x, self._ax)
                ax += b
            self._step(Whh, ax, views)

    def __call__(self, ids: Ids) -> Array:
        """Read ids (B,) and return the logits (V, B), which are valid until the next call."""
        self.read(ids)
        return self.predict()

    def predict(self) -> Array:
        """Return the logits (V, B) after what has been read, valid until the next call."""
        np.dot(self._Why, self.h, out=self._logits)
        self._logits += self._by
        return self._logits


def _restore_network(
    kind: Callable[..., Network],
    architecture: tuple[str, int, int, int],
    num_outputs: int,
    weights: Array,
    cell: str,
) -> Network:
    CELLS.setdefault(architecture[0], cell)  # another process may have registered it
    network = kind(*architecture, weights.dtype, num_outputs=num_outputs)
    network.params.vector[:] = weights
    return network


def apply_dropout(hs: Array, masks: Array | None, l: int, out: Array) -> None:
    """Write ``hs`` times the mask of layer l to ``out``, which may have another layout."""
    if masks is None:
        out[:] = hs
    else:
        np.multiply(hs, masks[l], out=out)


def parameter_shapes(
    cell: str, V: int, H: int, L: int, num_outputs: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter."""
    O = num_outputs or V
    GH = load_cell(cell).NUM_BLOCKS * H
    shapes: dict[str, tuple[int, ...]] = {}
    for l in range(L):
        shapes |= {f"{l}.Wxh": (GH, H if l else V), f"{l}.Whh": (GH, H), f"{l}.bh": (GH,)}
    return {**shapes, "Why": (O, H), "by": (O,)}


def num_parameters(cell: str, V: int, H: int, L: int, num_outputs: int | None = None) -> int:
    """Return the number of parameters, without allocating them."""
    shapes = parameter_shapes(cell, V, H, L, num_outputs)
    return sum(math.prod(shape) for shape in shapes.values())
