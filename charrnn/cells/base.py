"""The base of all recurrences: the tape of a batch, the loop over time, dWhh as one product."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from charrnn.arrays import Array, empty_feature_major, merge_time_batch, repeat_steps

# A NamedTuple of arrays, (T, ...) each, or of their rows at one step.
V = TypeVar("V", bound=NamedTuple)


@dataclass
class Tape(Generic[V]):
    """Every buffer of one layer for a batch of T steps, allocated once.

    ``a`` and ``da`` are (T, G H, B), G being the cell's number of blocks; ``states`` is
    (S, T + 1, H, B), the state before the batch first. The buffers of backward are shared by all
    layers. ``rows`` and ``drows`` are the views of each step: with one lane, creating them for
    every batch would take half of the time.
    """

    a: Array
    states: Array
    views: V
    rows: list[V]
    da: Array
    dstate: Array  # (S, H, B)
    dviews: V
    drows: list[V]
    dax: Array  # (T, G H, B), feature-major
    x: Array  # (T, H, B), feature-major

    def slice(self, t0: int, t1: int) -> Tape[V]:
        """Return views of the steps t0 to t1, for a batch of fewer than T steps."""
        if (t0, t1) == (0, len(self.a)):
            return self
        steps, tape = slice(t0, t1), copy.copy(self)
        tape.states = self.states[:, t0 : t1 + 1]
        tape.a, tape.da = self.a[steps], self.da[steps]
        tape.dax, tape.x = self.dax[steps], self.x[steps]
        tape.rows, tape.drows = self.rows[steps], self.drows[steps]
        tape.views = self.views._make(view[steps] for view in self.views)
        tape.dviews = self.dviews._make(view[steps] for view in self.dviews)
        return tape


class Cell(ABC, Generic[V]):
    """One recurrence: its states and gates, its buffers, a step forward and a step back.

    Whh is (G H, H), where G is ``NUM_BLOCKS``; ax and dax are (T, G H, B); hs and dhs are (T, H,
    B); the state is (S, H, B), one row for each of ``STATE_NAMES``, its first row the output h.
    Arrays that forward and backward return are on the tape, until it is used again.

    V is a NamedTuple of the views that a step works on. One holds the values; another, with the
    same names, holds their gradients.
    """

    NUM_BLOCKS: int
    BLOCK_NAMES: tuple[str, ...] = ("",)  # of the G blocks of ax, top to bottom
    STATE_NAMES: tuple[str, ...] = ("h",)
    # step reads hprev only for Whh hprev: with [Whh Wxh] and [h; x] in their place it adds Wxh x
    ONE_PRODUCT: bool = False

    def init_bias(self, bh: Array) -> None:
        """Write the initial bias (G H,), zero by default."""
        return

    @abstractmethod
    def new_views(self, a: Array, states: Array, Whh_h: Array) -> V:
        """Name the values: ``a`` and ``Whh_h`` (T, G H, B), ``states`` (S, T + 1, H, B).

        ``Whh_h`` is scratch: the same memory at every step.
        """

    @abstractmethod
    def new_dviews(self, da: Array, dstates: Array, scratch: Array) -> V:
        """Name the gradients: ``da`` (T, G H, B), ``dstates`` (S, T, H, B), scratch (2, T, H, B).

        The last two are the same memory at every step.
        """

    @abstractmethod
    def step(self, Whh: Array, ax: Array, views: V) -> None:
        """Run one step over ax (G H, B). The new state may overwrite the previous one."""

    @abstractmethod
    def local_derivatives(self, views: V, dviews: V) -> None:
        """Write to ``dviews`` the factors that depend on no later step, for all steps at once."""

    @abstractmethod
    def backward_step(self, WhhT: Array, dhs: Array, views: V, dviews: V) -> None:
        """Turn the gradient that arrives at h into da and the gradient of the previous state.

        ``WhhT`` (H, G H) is Whh, transposed.
        """

    def recurrent_inputs(self, tape: Tape[V]) -> list[tuple[int, Array]]:
        """Return the inputs of the blocks of Whh: (number of blocks, (T, H, B)), top to bottom."""
        return [(self.NUM_BLOCKS, tape.states[0, :-1])]

    def gate_activations(self, views: V) -> dict[str, Array]:
        """Return the gates after the nonlinearity, (T, H, B) each: 0 is closed and 1 is open."""
        return {}

    def new_tape(
        self, T: int, H: int, B: int, dtype: DTypeLike, share_with: Tape[V] | None = None
    ) -> Tape[V]:
        """Allocate the buffers of T steps, those for backward unless ``share_with`` has them."""
        GH, S = self.NUM_BLOCKS * H, len(self.STATE_NAMES)
        states: Array = np.empty((S, T + 1, H, B), dtype)
        # With a single block, h[t] may take the place of a[t].
        a = states[0, 1:] if self.NUM_BLOCKS == 1 else np.empty((T, GH, B), dtype)
        views = self.new_views(a, states, repeat_steps(np.empty((GH, B), dtype), T))
        rows = list(map(views._make, zip(*views, strict=True)))
        if share_with:
            s = share_with
            return Tape(a, states, views, rows, s.da, s.dstate, s.dviews, s.drows, s.dax, s.x)
        da: Array = np.empty((T, GH, B), dtype)
        dstate: Array = np.empty((S, H, B), dtype)
        dstates, scratch = (
            repeat_steps(a, T).swapaxes(0, 1) for a in (dstate, np.empty((2, H, B), dtype))
        )
        dviews = self.new_dviews(da, dstates, scratch)
        drows = list(map(dviews._make, zip(*dviews, strict=True)))
        dax = empty_feature_major(T, GH, B, dtype)
        x = empty_feature_major(T, H, B, dtype)
        return Tape(a, states, views, rows, da, dstate, dviews, drows, dax, x)

    def new_step_views(self, state: Array) -> V:
        """Return the views of a single step that writes the new state over ``state`` (S, H, B)."""
        _, H, B = state.shape
        states = repeat_steps(state, 2).swapaxes(0, 1)  # before and after are the same memory
        a, Whh_h = np.empty((2, 1, self.NUM_BLOCKS * H, B), state.dtype)
        views = self.new_views(states[0, 1:] if self.NUM_BLOCKS == 1 else a, states, Whh_h)
        return views._make(view[0] for view in views)

    def forward(self, Whh: Array, ax: Array, state: Array, tape: Tape[V]) -> tuple[Array, Array]:
        """Run over ax = Wxh x + bh, which may be ``tape.a``; return hs and the last state."""
        tape.states[:, 0] = state
        step = self.step
        for a, views in zip(ax, tape.rows, strict=True):
            step(Whh, a, views)
        return tape.states[0, 1:], tape.states[:, -1]

    def backward(
        self, Whh: Array, dWhh: Array, dhs: Array, dstate: Array, tape: Tape[V]
    ) -> tuple[Array, Array]:
        """Write dWhh; return dax, feature-major, and the gradient of the first state.

        ``dhs`` is the gradient that arrives at every output from above, ``dstate`` the one at the
        last state.
        """
        self.local_derivatives(tape.views, tape.dviews)
        tape.dstate[:] = dstate
        step, WhhT = self.backward_step, Whh.T
        for dh, views, dviews in zip(dhs[::-1], tape.rows[::-1], tape.drows[::-1], strict=True):
            step(WhhT, dh, views, dviews)
        tape.dax[:] = tape.da

        # dWhh: all steps in one product
        end = 0
        for blocks, x in self.recurrent_inputs(tape):
            start, end = end, end + blocks * dhs.shape[1]
            tape.x[:] = x
            dax = merge_time_batch(tape.dax[:, start:end])
            np.matmul(dax, merge_time_batch(tape.x).T, out=dWhh[start:end])
        return tape.dax, tape.dstate
