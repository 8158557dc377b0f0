"""The layers on top of each other: ids to loss, and the loss's gradient back to every parameter."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from charrnn import affine, loss
from charrnn.arrays import Array, Flat, Ids, Tape
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

    def copy(self, dtype: DTypeLike | None = None) -> Stack:
        """Return a stack with the same parameters, of another dtype if one is given."""
        other = Stack(*self.shape, dtype or self.p.vector.dtype)
        other.p.vector[:] = self.p.vector
        return other

    def zero_state(self, B: int) -> State:
        """Return the state in which a text begins, (L, STATES, H, B)."""
        _, _, H, L = self.shape
        return np.zeros((L, self.cell.STATES, H, B), self.p.vector.dtype)

    def tape(self, T: int, B: int) -> list[Tape]:
        """Allocate every buffer of a window: one tape a layer, and one for the output."""
        _, V, H, L = self.shape
        dtype, G = self.p.vector.dtype, self.cell.GATES
        tapes = [self.cell.tape(T, H, B, dtype) for _ in range(L)]
        ends = {
            "ax": np.empty((T, G * H, B), dtype),
            "dhs": np.empty((T, H, B), dtype),
            "logits": np.empty((T, V, B), dtype),
        }
        return [*tapes, Tape(T, ends)]

    def masks(self, rng: np.random.Generator, T: int, B: int, keep: float) -> Array:
        """Draw dropout's masks (L, T, H, B): 0, or 1 / keep with probability keep.

        They fall on each layer's output, never on the recurrence: Zaremba et al., 2014, eq. 4 to 6.
        """
        _, _, H, L = self.shape
        drawn = rng.random((L, T, H, B), np.float32) < keep
        return np.multiply(drawn, 1 / keep, dtype=self.p.vector.dtype)

    def forward(self, xs: Ids, state: State, tape: list[Tape], masks: Array | None = None) -> State:
        """Run ids ``xs`` (T, B) through the layers; leave the logits (T, V, B) on the last tape."""
        p, ends = self.p, tape[-1]
        last = np.empty_like(state)
        x: Array | Ids = xs
        for l in range(self.num_layers):
            ax = affine.forward(p[f"{l}.Wxh"], p[f"{l}.bh"], x, ends["ax"])
            hs, last[l] = self.cell.forward(p[f"{l}.Whh"], ax, state[l], tape[l])
            x = hs if masks is None else hs * masks[l]
        affine.forward(p["Why"], p["by"], x, ends["logits"])
        return last

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
        p, d, ends = self.p, self.d, tape[-1]
        last = self.forward(xs, state, tape, masks)
        nats = loss.forward(ends["logits"], ys)

        dlogits = loss.backward(ends["logits"], ys, scale)
        dhs = ends["dhs"]
        W, dout = "Why", dlogits
        dW, db = d["Why"], d["by"]
        dstate = np.zeros_like(state[0])
        for l in reversed(range(self.num_layers)):
            hs = tape[l]["h"][1:]
            affine.backward(p[W], dW, db, hs if masks is None else hs * masks[l], dout, dhs)
            if masks is not None:
                dhs *= masks[l]
            dout, _ = self.cell.backward(p[f"{l}.Whh"], d[f"{l}.Whh"], dhs, dstate, tape[l])
            W, dW, db = f"{l}.Wxh", d[f"{l}.Wxh"], d[f"{l}.bh"]
        affine.backward(p[W], dW, db, xs, dout)
        return nats, last


def shapes(cell: str, vocab_size: int, hidden_size: int, num_layers: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter."""
    V, H, GH = vocab_size, hidden_size, CELLS[cell].GATES * hidden_size
    layers: dict[str, tuple[int, ...]] = {}
    for l in range(num_layers):
        layers |= {f"{l}.Wxh": (GH, H if l else V), f"{l}.Whh": (GH, H), f"{l}.bh": (GH,)}
    return layers | {"Why": (V, H), "by": (V,)}
