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
    mean: Array  # (B, H), of s over the regions
    is_read: NDArray[np.bool_]  # (T, B), where it enters


class RegionCaptioner(Captioner):
    """A network that reads R regions of a picture and looks at them while it writes.

    Region i is read as s_i = tanh(Wv v_i + bv_i), with biases for its place. Their mean, u = gu *
    mean s_i + bu, enters the first layer as the vector of a ``Captioner`` does. After the
    recurrence every step looks at the regions (Xu et al., 2015, with the general score of Luong et
    al., 2015), and the output reads [h; z]. Besides the parameters of ``Network`` there are ``Wv``
    (H, D), ``bv`` (R, H), ``gu`` and ``bu`` (H,), ``Wih`` (G H, H) and ``Wa`` (H, H), and ``Why``
    is (O, 2 H). The ids of a lane carry one row of the vectors.
    """

    OF_VECTORS = ("Wih", "Wv", "bv", "gu", "bu", "Wa")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        H, (R, D) = self.hidden_size, self.vectors.rows.shape[1:]
        shapes = super().parameter_shapes()
        GH, _ = shapes["Wih"]
        shapes |= {"Wih": (GH, H), "Wv": (H, D), "bv": (R, H), "gu": (H,), "bu": (H,)}
        return {**shapes, "Wa": (H, H), "Why": (self.num_outputs, 2 * H)}

    def init_parameters(self, rng: Generator) -> None:
        """Initialize the parameters; those of the regions let the mean tell pictures apart.

        The units differ in their biases, and half of them in those of each place too. Over some
        training rows, u has mean 0 and variance 1 (Salimans and Kingma, 2016, section 3).
        """
        super(Captioner, self).init_parameters(rng)
        p, H = self.params, self.hidden_size
        p["Wv"][:] = rng.uniform(-2, 2, p["Wv"].shape) / math.sqrt(self.vectors.size)
        p["bv"][:] = rng.uniform(-2, 2, H)
        p["bv"][:, H // 2 :] += rng.uniform(-2, 2, (len(p["bv"]), H - H // 2))
        means = self.read_source(self.vectors.sample).mean(1)
        p["gu"][:] = 1 / np.maximum(means.std(0), 0.01)
        p["bu"][:] = -means.mean(0) * p["gu"]

    def new_tape(self, T: int, B: int) -> RegionTape:
        """Allocate every buffer of a batch of T steps and B lanes."""
        H, (R, D), dtype = self.hidden_size, self.vectors.rows.shape[1:], self.params.vector.dtype
        buffers = attention.new_tape(T, R, H, H, B, dtype)
        v, mean, none = np.empty((B, R, D), dtype), np.empty((B, H), dtype), np.zeros((T, B), bool)
        tape = vars(Network.new_tape(self, T, B))
        return RegionTape(**tape, buffers=buffers, attention=buffers, v=v, mean=mean, is_read=none)

    def read_regions(self, rows: Ids, v: Array, s: Array) -> None:
        """Write the vectors of rows (n,) to ``v`` (n, R, D), and what they are to ``s``."""
        v[:] = self.vectors.read_regions(rows)
        np.matmul(v.reshape(-1, v.shape[2]), self.params["Wv"].T, out=s.reshape(-1, s.shape[2]))
        s += self.params["bv"]
        np.tanh(s, out=s)

    def mean_input(self, mean: Array) -> Array:
        """Return Wih u (G H, n), given the mean over the regions of n rows (n, H)."""
        p = self.params
        out: Array = p["Wih"] @ (p["gu"] * mean + p["bu"]).T
        return out

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

        # their mean enters
        super(Captioner, self).forward_input(xs % self.vocab_size, tape)
        np.mean(of_batch.s, 1, out=tape.mean)
        tape.is_read, ax = xs >= self.vocab_size, self.mean_input(tape.mean)
        for t in np.flatnonzero(tape.is_read.any(1)):
            tape.layers[0].a[t] += ax * tape.is_read[t]

    def backward_input(self, xs: Ids, dout: Array, tape: NetworkTape) -> None:
        """Write the gradients of the input; ``dout`` (G H, T B) is overwritten."""
        # through the mean, which has entered at some steps
        assert isinstance(tape, RegionTape)
        of_batch, p, d = tape.attention, self.params, self.grads
        dax = dout.reshape(len(dout), *xs.shape)
        steps = np.flatnonzero(tape.is_read.any(1))
        dax_of_lane = (dax[:, steps] * tape.is_read[steps]).sum(1)  # (G H, B)
        np.matmul(dax_of_lane, p["gu"] * tape.mean + p["bu"], out=d["Wih"])
        du = dax_of_lane.T @ p["Wih"]  # (B, H)
        np.add.reduce(du, 0, out=d["bu"])
        np.einsum("bh,bh->h", du, tape.mean, out=d["gu"])
        ds, s = of_batch.ds, of_batch.s
        ds += (du * p["gu"])[:, None] / s.shape[1]

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
        self._Wih_u = network.mean_input(s.mean(1))
        self._vector_input = self._mean_input

    def _mean_input(self, ids: Ids) -> Array:
        """Return Wih u (G H, B) for the ids (B,) that carry a row, otherwise 0."""
        out: Array = self._Wih_u * (ids >= self._vocab_size)
        return out
