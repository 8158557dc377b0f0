"""The layers on top of each other: ids to loss, and the loss's gradient back to every parameter."""

from __future__ import annotations

import copy
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from charrnn import affine, loss
from charrnn.arrays import Array, Flat, Ids, Tape, columns, packed
from charrnn.cells import CELLS

State: TypeAlias = Array  # (L, STATES, H, B)


class Stack:
    """``num_layers`` recurrent layers and an affine output: p = softmax(Why h + by).

    ``p`` holds the parameters and ``d`` their gradient: ``0.Wxh`` (G H, V), ``0.Whh`` (G H, H), ``0.bh`` (G H,),
    the same for the layers above with Wxh (G H, H), then ``Why`` (V, H) and ``by`` (V,). G is the number of the
    cell's gates, H the hidden size, V the size of the vocabulary, L the number of layers.
    """

    def __init__(
        self,
        cell: str,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Make the layers; with ``rng`` the parameters are drawn (see ``draw``), without it they are zero."""
        self.shape = cell, vocab_size, hidden_size, num_layers
        self.cell = CELLS[cell]
        self.num_layers = num_layers
        self.p = Flat(shapes(*self.shape), dtype)
        self.d = self.p.like()
        self._layers, self._dlayers = self._by_layer(self.p), self._by_layer(self.d)
        if rng is not None:
            self.draw(rng)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw the parameters: weights uniform, recurrent ones orthogonal, biases as the cell says.

        The weights of the input have variance 1, which is 1 / fan-in (LeCun et al., 1998, eq. 16), since of a one-hot
        column a single element counts; the others lie within ±1/sqrt(H), so that the logits are small and the first
        loss lies beside ln V. Orthogonal matrices, one for each gate: Saxe et al., 2014, section 3.
        """
        _, _, H, _ = self.shape
        for name in self.p:
            w = self.p[name]
            if name.endswith("Whh"):
                for gate in w.reshape(-1, H, H):
                    q, r = np.linalg.qr(rng.standard_normal((H, H)))
                    gate[:] = q * np.sign(np.diag(r))  # the sign makes the draw uniform: Mezzadri, 2007
            elif w.ndim == 2:
                w[:] = rng.uniform(-1, 1, w.shape) * math.sqrt(3 if name == "0.Wxh" else 1 / H)
            elif name.endswith("bh"):
                self.cell.bias(w)

    def _by_layer(self, flat: Flat) -> list[tuple[Array, Array, Array]]:
        return [(flat[f"{l}.Wxh"], flat[f"{l}.Whh"], flat[f"{l}.bh"]) for l in range(self.num_layers)]

    def twin(self) -> Stack:
        """Return a stack with these very parameters, and gradients of its own."""
        other = copy.copy(self)
        other.d = self.p.like()
        other._dlayers = self._by_layer(other.d)
        return other

    def copy(self, dtype: DTypeLike | None = None) -> Stack:
        """Return a stack with the same parameters, of another dtype if one is given."""
        other = Stack(*self.shape, dtype or self.p.vector.dtype)
        other.p.vector[:] = self.p.vector
        return other

    def adopt(self, other: Stack, ids: Ids) -> None:
        """Take the parameters of a stack of the same size, whose symbol i is ``ids[i]`` here.

        Symbols that it does not know keep the weights that were drawn; their bias becomes the mean of the others'.
        """
        for name in self.p:
            if name == "0.Wxh":
                self.p[name][:, ids] = other.p[name]
            elif name in ("Why", "by"):
                if name == "by":
                    self.p[name][:] = other.p[name].mean()
                self.p[name][ids] = other.p[name]
            else:
                self.p[name][:] = other.p[name]

    def zero_state(self, B: int) -> State:
        """Return the state in which a text begins, (L, STATES, H, B)."""
        _, _, H, L = self.shape
        return np.zeros((L, len(self.cell.STATES), H, B), self.p.vector.dtype)

    def tape(self, T: int, B: int) -> list[Tape]:
        """Allocate every buffer of a window: one tape a layer, and one for the output."""
        _, V, H, L = self.shape
        dtype = self.p.vector.dtype
        layers = [self.cell.tape(T, H, B, dtype)]
        layers += [self.cell.tape(T, H, B, dtype, layers[0]) for _ in range(L - 1)]
        ends = {
            "xs": packed(T, H, B, dtype),  # what a layer reads, or what dropout leaves of it
            "dhs": np.empty((T, H, B), dtype),
            "logits": packed(T, V, B, dtype),
            "one_hot": np.empty((T, B, V if V <= affine.FEW else 0), dtype),
        }
        scratch = {
            "state": np.empty((L, len(self.cell.STATES), H, B), dtype),
            "Wb": np.empty_like(self.p["0.Wxh"]),
        }
        return [*layers, Tape(T, ends, scratch=scratch)]

    def masks(self, rng: np.random.Generator, T: int, B: int, keep: float, out: Array | None = None) -> Array:
        """Draw dropout's masks (L, T, H, B): 0, or 1 / keep with probability keep; to ``out`` if given.

        They fall on each layer's output, never on the recurrence: Zaremba et al., 2014, eq. 4 to 6.
        """
        _, _, H, L = self.shape
        masks: Array = rng.random((L, T, H, B), self.p.vector.dtype.type, out)
        np.less(masks, keep, out=masks)
        masks *= 1 / keep
        return masks

    def forward(self, xs: Ids, state: State, tape: list[Tape], masks: Array | None = None) -> State:
        """Run ids ``xs`` (T, B) through the layers; leave the logits (T, V, B) on the last tape.

        The state that it returns stands there too, until the tape is used again; ``state`` may be that very array.
        """
        ends, last = tape[-1], tape[-1]["state"]
        for l, (Wxh, Whh, bh) in enumerate(self._layers):
            ax = tape[l]["a"]
            if l == 0:
                affine.forward_ids(Wxh, bh, xs, ends["Wb"], ax)
            else:
                affine.forward(Wxh, bh, columns(ends["xs"]), tape[l]["dax"], ax)
            hs, last[l] = self.cell.forward(Whh, ax, state[l], tape[l])
            self._masked(hs, masks, l, ends["xs"])
        affine.forward(self.p["Why"], self.p["by"], columns(ends["xs"]), ends["logits"], ends["logits"])
        return last

    def _masked(self, hs: Array, masks: Array | None, l: int, out: Array) -> None:
        """Write to ``out`` what dropout leaves of ``hs``, in whatever layout it has."""
        if masks is None:
            out[:] = hs
        else:
            np.multiply(hs, masks[l], out=out)

    def loss_and_grad(
        self,
        xs: Ids,
        ys: Ids,
        state: State,
        tape: list[Tape],
        *,
        masks: Array | None = None,
        scale: float,
    ) -> tuple[Array, State]:
        """Return the loss of the targets ``ys`` (T, B), in nats, (T, B), and the last state; write ``d``.

        The gradient is that of the summed loss times ``scale``: 1 sums, 1 / (T B) gives the mean. The carried
        state is a constant: gradients end where the window begins.
        """
        ends, logits, ys = tape[-1], columns(tape[-1]["logits"]), ys.ravel()
        last = self.forward(xs, state, tape, masks)
        nats, total = loss.forward(logits, ys)
        dout = loss.backward(logits, total, ys, scale)

        dhs, dlast = ends["dhs"], np.zeros((len(self.cell.STATES), 1, 1), logits.dtype)
        W, dW, db = self.p["Why"], self.d["Why"], self.d["by"]
        for l in reversed(range(self.num_layers)):
            if l < self.num_layers - 1:  # those of the last layer stand there
                self._masked(tape[l]["hs"], masks, l, ends["xs"])
            dx = tape[l]["x"]
            affine.backward(W, dW, db, columns(ends["xs"]), dout, columns(dx))
            self._masked(dx, masks, l, dhs)  # the masks again
            W, Whh, _ = self._layers[l]
            dW, dWhh, db = self._dlayers[l]
            dax, _ = self.cell.backward(Whh, dWhh, dhs, dlast, tape[l])
            dout = columns(dax)
        one_hot, scratch = ends["one_hot"].reshape(xs.size, -1), tape[0]["da"].reshape(dout.shape)
        affine.backward_ids(dW, db, xs.ravel(), dout, one_hot, scratch)
        return nats.reshape(xs.shape), last


class Stepper:
    """A stack that reads a character at a time: for drawing, where the next one depends on the last."""

    def __init__(self, stack: Stack, state: State) -> None:
        """Begin with ``state`` (L, STATES, H, B)."""
        p, cell, (L, _, _, B) = stack.p, stack.cell, state.shape
        self._step, self._layers = cell.step, []
        self._Wb = p["0.Wxh"] + p["0.bh"][:, None]
        if B == 1:  # each symbol's column, for a lane alone to pick up
            self._columns = list(self._Wb.T[:, :, None].copy())
        for l, tape in enumerate(stack.tape(1, B)[:-1]):
            for name, s in zip(cell.STATES, state[l], strict=True):
                tape[name][1] = s
            # a step may write the new state over the old one
            (views,) = tape.steps(*(name.replace("prev", "s") for name in cell.STEP))
            W, b = (p["Why"], p["by"]) if l == L - 1 else (p[f"{l + 1}.Wxh"], p[f"{l + 1}.bh"])
            bs = np.repeat(b[:, None], B, axis=1)
            self._layers.append((p[f"{l}.Whh"], views, W, tape["hs"][0], bs, np.empty_like(bs)))

    def __call__(self, ids: Ids) -> Array:
        """Read ids (B,) and return the logits (V, B), which stand until the next call."""
        ax = self._columns[ids[0]] if len(ids) == 1 else np.take(self._Wb, ids, axis=1)
        for Whh, views, W, h, b, above in self._layers:
            self._step(Whh, ax, *views)
            np.dot(W, h, out=above)
            above += b
            ax = above
        return ax


def shapes(cell: str, vocab_size: int, hidden_size: int, num_layers: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter."""
    V, H, GH = vocab_size, hidden_size, CELLS[cell].GATES * hidden_size
    layers: dict[str, tuple[int, ...]] = {}
    for l in range(num_layers):
        layers |= {f"{l}.Wxh": (GH, H if l else V), f"{l}.Whh": (GH, H), f"{l}.bh": (GH,)}
    return layers | {"Why": (V, H), "by": (V,)}


def size(cell: str, vocab_size: int, hidden_size: int, num_layers: int) -> int:
    """Return the number of parameters, without a need for the memory that they take."""
    return sum(math.prod(shape) for shape in shapes(cell, vocab_size, hidden_size, num_layers).values())
