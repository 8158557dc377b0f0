"""Every number of a network while it reads a short text: the "hello" diagram of the lectures.

Source: Karpathy, The Unreasonable Effectiveness of Recurrent Neural Networks, 2015, and CS231n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.cells.base import Tape
from charrnn.errors import UsageError
from charrnn.network import Network

MAX_TRACED = 1000  # symbols


@dataclass
class Trace:
    """The values of a network at T steps, and their gradients, in nats.

    ``states`` and ``dstates`` are (L, S, T, H), the cell's states h and for the LSTM c; ``da`` is
    (L, T, G H), of the sums before the nonlinearities; ``scores``, ``p`` and ``dy`` are (T, V);
    ``loss`` is (T,), NaN without a target. Gradients are those of the summed loss, and
    include what flows back from later steps.
    """

    ids: Ids  # (T,)
    targets: Ids  # (T,), -1 for the last
    states: Array
    scores: Array
    p: Array
    loss: Array
    dy: Array
    dstates: Array
    da: Array


@dataclass
class Recorder:
    """A cell that keeps the gradients of every layer while it computes them, step by step."""

    cell: Any
    da: list[Array] = field(default_factory=list)  # from the last layer to the first
    dstates: list[Array] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def backward(
        self, Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape[Any]
    ) -> tuple[Array, Array]:
        """Compute the gradients one step at a time, record them, and return those of the cell."""
        S, T, H, B = tape.states[:, 1:].shape
        da, dstates = np.empty(tape.da.shape), np.empty((S, T, H, B))
        following = np.broadcast_to(dstate, (S, H, B))  # from the steps after this one
        for t in reversed(range(T)):
            dstates[:, t] = following
            dstates[0, t] += dhs[t]
            dax, dprev = self.cell.backward(
                Whh, dWhh, dhs[t : t + 1], following, tape.slice(t, t + 1)
            )
            da[t], following = dax[0], dprev.copy()
        self.da.append(da[..., 0])
        self.dstates.append(dstates[..., 0])
        result: tuple[Array, Array] = self.cell.backward(Whh, dWhh, dhs, dstate, tape)
        return result


def trace(network: Network, ids: Ids) -> Trace:
    """Read ids (T,) from the zero state; the target of each is the next, the last has none.

    Raises UsageError for no symbol, or more than 1,000.
    """
    T = len(ids)
    if not 1 <= T <= MAX_TRACED:
        raise UsageError(f"a trace needs from 1 to {MAX_TRACED:,} known symbols, not {T:,}")
    network = network.copy(np.float64)
    recorder = Recorder(network.cell)
    network.cell = recorder  # type: ignore[assignment]  # behaves as the cell does

    # the scores; then once more, with the loss and backward
    tape, targets = network.new_tape(T, 1), np.append(ids[1:], -1)
    network.forward(ids[:, None], network.zero_state(1), tape)
    scores = tape.logits[:, :, 0].copy()
    nll, _ = network.loss_and_grad(
        ids[:, None], targets[:, None], network.zero_state(1), tape, scale=1.0
    )
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)

    # dy = p - 1 at the target; without a target there is no gradient
    has_target = targets >= 0
    dy = p * has_target[:, None]
    dy[np.flatnonzero(has_target), targets[has_target]] -= 1
    return Trace(
        ids=ids,
        targets=targets,
        states=np.array([layer.states[:, 1:, :, 0] for layer in tape.layers]),
        scores=scores,
        p=p,
        loss=np.where(has_target, nll[:, 0], np.nan),
        dy=dy,
        dstates=np.array(recorder.dstates[::-1]),
        da=np.array(recorder.da[::-1]),
    )
