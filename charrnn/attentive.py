"""A network whose every step looks at the states of a source, the first text of a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charrnn import affine, attention
from charrnn.arrays import Array, Ids, merge_time_batch
from charrnn.network import Network, NetworkTape, State, Stepper


@dataclass
class AttentiveTape(NetworkTape):
    """The tape of the network and of its attention."""

    buffers: attention.Tape  # of T steps over up to T source positions
    attention: attention.Tape  # views of these, for the last batch
    is_source: NDArray[np.bool_]  # (T, B)
    start: int  # the first step with a target


class Attentive(Network):
    """A network that reads a source and then writes, with attention over the source.

    The output reads [h; z]: z is a weighted sum of the top layer's outputs in the source, after
    dropout (Luong et al., 2015, with the general score). The source of a lane is what it reads up
    to its first target. Attention comes after the recurrence, for all steps at once. Besides the
    parameters of ``Network`` there is ``Wa`` (H, H), and ``Why`` is (O, 2 H).
    """

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes, H = super().parameter_shapes(), self.hidden_size
        return {**shapes, "Wa": (H, H), "Why": (self.num_outputs, 2 * H)}

    def load_weights_from(self, other: Network, ids: Ids, outputs: Ids | None) -> None:
        """Copy the parameters of a network; without attention it has no ``Wa``."""
        super().load_weights_from(other, ids, outputs)
        if isinstance(other, Attentive):
            self.params["Wa"][:] = other.params["Wa"]

    def new_tape(self, T: int, B: int) -> AttentiveTape:
        """Allocate every buffer of a batch of T steps and B lanes."""
        H, dtype = self.hidden_size, self.params.vector.dtype
        buffers = attention.new_tape(T, T, H, H, B, dtype)
        none = np.zeros((T, B), np.bool_)
        tape = vars(super().new_tape(T, B))
        return AttentiveTape(**tape, buffers=buffers, attention=buffers, is_source=none, start=0)

    def mark_source(self, ys: Ids, tape: NetworkTape) -> None:
        """Keep on the tape where the source is: up to the first target of ``ys`` (T, B)."""
        assert isinstance(tape, AttentiveTape)
        is_target = ys >= 0
        tape.is_source = (np.cumsum(is_target, 0) == is_target) & is_target.any(0)
        tape.start = int(is_target.any(1).argmax())

    def forward_output(self, tape: NetworkTape) -> None:
        """Write the logits, Why [h; z] + by; before the first target they are 0."""
        assert isinstance(tape, AttentiveTape)
        S, hs, logits = max(1, int(tape.is_source.any(1).sum())), tape.xs, tape.logits
        tape.attention = tape.buffers.slice(len(hs) - tape.start, S)
        attention.read_source(hs[:S], tape.is_source[:S], tape.attention)
        out = attention.forward(self.params["Wa"], hs[tape.start :], tape.attention)
        logits[: tape.start] = 0
        logits, x = logits[tape.start :], merge_time_batch(out)
        affine.forward(self.params["Why"], self.params["by"], x, logits, logits)

    def backward_output(self, dout: Array, tape: NetworkTape, dx: Array) -> None:
        """Write the gradients of the output, and ``dx`` (T, H, B): of h as a step and as source."""
        assert isinstance(tape, AttentiveTape)
        p, d, of_batch = self.params, self.grads, tape.attention
        dout = dout[:, tape.start * dx.shape[2] :]  # it is 0 before
        x = merge_time_batch(of_batch.out)  # becomes its gradient
        affine.backward(p["Why"], d["Why"], d["by"], x, dout, x)
        dh, ds = attention.backward(p["Wa"], d["Wa"], of_batch.out, of_batch)
        dx[: tape.start] = 0
        dx[tape.start :] = dh
        dx[: len(ds)] += ds


class AttentiveStepper(Stepper):
    """A stepper that looks at a source, the same at every step."""

    def __init__(
        self, network: Network, state: State, source: Array, valid: NDArray[np.bool_]
    ) -> None:
        """Start from a copy of ``state`` (L, S, H, B).

        ``source`` (n, H, B) are the top layer's outputs, where ``valid`` (n, B).
        """
        super().__init__(network, state)
        n, H, B = source.shape
        self._Wa, self.attention = (
            network.params["Wa"],
            attention.new_tape(1, n, H, H, B, state.dtype),
        )
        attention.read_source(source, valid, self.attention)

    def predict(self) -> Array:
        """Return the logits (V, B) after what has been read, valid until the next call."""
        out = attention.forward(self._Wa, self.h[None], self.attention)
        np.dot(self._Why, out[0], out=self._logits)
        self._logits += self._by
        return self._logits
