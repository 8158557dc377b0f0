"""A network with attention over the regions of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from charrnn import affine, attention
from charrnn.arrays import Array, Ids, merge_time_batch
from charrnn.attentive import AttentiveStepper
from charrnn.captioner import Captioner
from charrnn.network import Network, NetworkTape, State


@dataclass
class RegionTape(NetworkTape):
    """The tape of the network and of its attention."""

    buffers: attention.Tape  # of T steps over R regions
    attention: attention.Tape  # views of these, for the last batch
    v: Array  # (B, R, D), what the lanes read
    u: Array  # (B, H), the sum over the regions
    is_read: NDArray[np.bool_]  # (T, B), where it enters


class RegionCaptioner(Captioner):
    """A network that reads R regions of a picture and looks at them while it writes.

    Region i is read as s_i = tanh(Wv v_i + bv_i), with a bias for its place. Their weighted sum u =
    sum_i gv_i * s_i / sqrt(R) enters the first layer as the vector of a ``Captioner`` does: a mean
    would not know what is where. After the recurrence every step looks at the regions (Xu et al.,
    2015, with the general score of Luong et al., 2015), and the output reads [h; z]. Besides the
    parameters of ``Network`` there are ``Wv`` (H, D), ``bv`` and ``gv`` (R, H), ``Wih`` (G H, H)
    and ``Wa`` (H, H), and ``Why`` is (O, 2 H). The ids of a lane carry one row of the vectors.
    """

    OF_VECTORS = ("Wih", "Wv", "bv", "gv", "Wa")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        H, (R, D) = self.hidden_size, self.vectors.rows.shape[1:]
        shapes = super().parameter_shapes()
        GH, _ = shapes["Wih"]
        shapes |= {"Wih": (GH, H), "Wv": (H, D), "bv": (R, H), "gv": (R, H)}
        return {**shapes, "Wa": (H, H), "Why": (self.num_outputs, 2 * H)}

    def init_parameters(self, rng: Generator) -> None:
        """Initialize the parameters: Wv within 1/sqrt(D), bv within 1, gv with variance 1."""
        super(Captioner, self).init_parameters(rng)
        self.params["Wv"][:] *= math.sqrt(self.hidden_size / self.vectors.size)
        self.params["bv"][:] *= math.sqrt(self.hidden_size)
        self.params["gv"][:] *= math.sqrt(3 * self.hidden_size)

    def new_tape(self, T: int, B: int) -> RegionTape:
        """Allocate every buffer of a batch of T steps and B lanes."""
        H, (R, D), dtype = self.hidden_size, self.vectors.rows.shape[1:], self.params.vector.dtype
        buffers = attention.new_tape(T, R, H, H, B, dtype)
        v, u, none = np.empty((B, R, D), dtype), np.empty((B, H), dtype), np.zeros((T, B), bool)
        tape = vars(Network.new_tape(self, T, B))
        return RegionTape(**tape, buffers=buffers, attention=buffers, v=v, u=u, is_read=none)

    def read_regions(self, rows: Ids, v: Array, s: Array) -> None:
        """Write the vectors of rows (n,) to ``v`` (n, R, D), and what they are to ``s``."""
        v[:] = self.vectors.read_regions(rows)
        np.matmul(v.reshape(-1, v.shape[2]), self.params["Wv"].T, out=s.reshape(-1, s.shape[2]))
        s += self.params["bv"]
        np.tanh(s, out=s)

    def sum_regions(self, s: Array) -> Array:
        """Return u (n, H) of ``s`` (n, R, H)."""
        u: Array = np.einsum("brh,rh->bh", s, self.params["gv"]) / math.sqrt(s.shape[1])
        return u

    def read_source(self, rows: Ids) -> Array:
        """Return s of some rows (n,), (n, R, H)."""
        v = np.empty((len(rows), *self.vectors.rows.shape[1:]), self.params.vector.dtype)
        s = np.empty((*v.shape[:2], self.hidden_size), v.dtype)
        self.read_regions(rows, v, s)
        return s

    def forward_input(self, xs: Ids, tape: NetworkTape) -> None:
        """Write Wxh x + bh + Wih u, and keep the regions of each lane on the tape."""
        # the regions; a lane of padding has none
        assert isinstance(tape, RegionTape)
        rows, R = xs.max(0) // self.vocab_size - 1, tape.v.shape[1]
        tape.attention = of_batch = tape.buffers.slice(len(xs), R)
        self.read_regions(rows.clip(0), tape.v, of_batch.s)
        of_batch.is_masked[:] = rows[:, None, None] < 0
        of_batch.s[rows < 0] = 0

        # their weighted sum enters
        super(Captioner, self).forward_input(xs % self.vocab_size, tape)
        tape.u[:] = self.sum_regions(of_batch.s)
        tape.is_read, ax = xs >= self.vocab_size, self.params["Wih"] @ tape.u.T
        for t in np.flatnonzero(tape.is_read.any(1)):
            tape.layers[0].a[t] += ax * tape.is_read[t]

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of the input; ``dout`` (G H, T B) is overwritten."""
        # through the sum, which has entered at some steps
        assert isinstance(tape, RegionTape)
        of_batch, d, dax = tape.attention, self.grads, dout.reshape(len(dout), *xs.shape)
        steps = np.flatnonzero(tape.is_read.any(1))
        dax_of_lane = (dax[:, steps] * tape.is_read[steps]).sum(1)  # (G H, B)
        np.matmul(dax_of_lane, tape.u, out=d["Wih"])
        ds, s, R = of_batch.ds, of_batch.s, tape.v.shape[1]
        du = dax_of_lane.T @ self.params["Wih"] / math.sqrt(R)  # (B, H)
        np.einsum("brh,bh->rh", s, du, out=d["gv"])
        ds += du[:, None] * self.params["gv"]

        # through tanh(Wv v + bv)
        np.square(s, out=s)
        np.subtract(1, s, out=s)
        ds *= s
        np.add.reduce(ds, 0, out=d["bv"])
        np.matmul(ds.reshape(-1, ds.shape[2]).T, tape.v.reshape(-1, tape.v.shape[2]), out=d["Wv"])
        super(Captioner, self).backward_input(xs % self.vocab_size, dout, tape)

    def forward_output(self, tape: NetworkTape) -> None:
        """Write the logits, Why [h; z] + by."""
        assert isinstance(tape, RegionTape)
        out = attention.forward(self.params["Wa"], tape.xs, tape.attention)
        x, logits = merge_time_batch(out), tape.logits
        affine.forward(self.params["Why"], self.params["by"], x, logits, logits)

    def backward_output(self, dout: Array, tape: NetworkTape, dx: Array) -> None:
        """Write the gradients of the output and of Wa, and ``dx`` (T, H, B), that of h."""
        assert isinstance(tape, RegionTape)
        p, d, out = self.params, self.grads, tape.attention.out
        x = merge_time_batch(out)  # becomes its gradient
        affine.backward(p["Why"], d["Why"], d["by"], x, dout, x)
        dx[:], _ = attention.backward(p["Wa"], d["Wa"], out, tape.attention)


class RegionStepper(AttentiveStepper):
    """A stepper that looks at the regions of one row for each lane."""

    def __init__(self, network: RegionCaptioner, state: State, s: Array) -> None:
        """Start from a copy of ``state`` (L, S, H, B); ``s`` (B, R, H) are the regions."""
        B, R, _ = s.shape
        super().__init__(network, state, s.transpose(1, 2, 0), np.ones((R, B), bool))
        self._Wih_u = network.params["Wih"] @ network.sum_regions(s).T
        self._vector_input = self._sum_input

    def _sum_input(self, ids: Ids) -> Array:
        """Return Wih u (G H, B) for the ids (B,) that carry a row, otherwise 0."""
        out: Array = self._Wih_u * (ids >= self._vocab_size)
        return out
