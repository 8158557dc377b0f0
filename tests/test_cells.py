"""Every cell of the registry, in float64. A falling loss, or a shape, would prove nothing."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from charrnn.arrays import Array
from charrnn.cells import load_cell
from charrnn.cells.base import Cell
from charrnn.config import CELLS
from tests.conftest import assert_close, numeric

T, H, B = 7, 5, 3


class Case(NamedTuple):
    cell: Cell[Any]
    Whh: Array
    ax: Array
    state: Array
    dhs: Array  # the gradient that arrives at every output
    dlast: Array  # and at the last state

    def loss(self) -> float:
        """Return a scalar whose gradients for hs and the last state are dhs and dlast."""
        tape = self.cell.new_tape(len(self.ax), H, self.ax.shape[2], np.float64)
        hs, last = self.cell.forward(self.Whh, self.ax, self.state, tape)
        return float((hs * self.dhs).sum() + (last * self.dlast).sum())

    def gradients(self, fill: float = 0.0) -> tuple[Array, Array, Array]:
        """Return dWhh, dax and the gradient of the first state, with every buffer filled before."""
        tape = self.cell.new_tape(len(self.ax), H, self.ax.shape[2], np.float64)
        buffers = (tape.a, tape.states, tape.da, tape.dstate, tape.dax, tape.x)
        for buffer in (*buffers, *tape.views, *tape.dviews):
            buffer[...] = fill
        dWhh = np.full_like(self.Whh, fill)
        self.cell.forward(self.Whh, self.ax, self.state, tape)
        dax, dstate = self.cell.backward(self.Whh, dWhh, self.dhs, self.dlast, tape)
        return dWhh, dax, dstate


@pytest.fixture(params=sorted(CELLS))
def case(request: pytest.FixtureRequest) -> Case:
    """Random inputs, a random carried state, and a random gradient for the last state."""
    cell, rng = load_cell(request.param), np.random.default_rng(1)
    r = rng.standard_normal
    G, S = cell.NUM_BLOCKS, len(cell.STATE_NAMES)
    return Case(cell, r((G * H, H)), r((T, G * H, B)), r((S, H, B)), r((T, H, B)), r((S, H, B)))


def test_gradients_match_central_differences(case: Case) -> None:
    dWhh, dax, dstate = case.gradients()
    assert_close(dWhh, numeric(case.loss, case.Whh))
    assert_close(dax, numeric(case.loss, case.ax))
    assert_close(dstate, numeric(case.loss, case.state))


def test_three_chunks_match_the_whole(case: Case) -> None:
    cell, Whh, ax, state, dhs, dlast = case
    dWhh, dax, dstate = case.gradients()
    hs, last = cell.forward(Whh, ax, state, cell.new_tape(T, H, B, np.float64))
    tape, chunks = cell.new_tape(T, H, B, np.float64), [(0, 2), (2, 3), (3, T)]
    for a, b in chunks:
        chunk, state = cell.forward(Whh, ax[a:b], state, tape.slice(a, b))
        np.testing.assert_allclose(chunk, hs[a:b], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)

    total = np.zeros_like(Whh)
    for a, b in reversed(chunks):
        dW = np.empty_like(Whh)
        chunk, dlast = cell.backward(Whh, dW, dhs[a:b], dlast, tape.slice(a, b))
        np.testing.assert_allclose(chunk, dax[a:b], rtol=0, atol=1e-12)
        total += dW
    np.testing.assert_allclose(dlast, dstate, rtol=0, atol=1e-12)
    np.testing.assert_allclose(total, dWhh, rtol=0, atol=1e-12)


def test_batch_matches_each_lane_alone(case: Case) -> None:
    dWhh, dax, dstate = case.gradients()
    total = np.zeros_like(dWhh)
    for b in range(B):
        names = ("ax", "state", "dhs", "dlast")
        lane = case._replace(**{name: getattr(case, name)[..., [b]] for name in names})
        dW, da, ds = lane.gradients()
        np.testing.assert_allclose(da, dax[..., [b]], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ds, dstate[..., [b]], rtol=0, atol=1e-12)
        total += dW
    np.testing.assert_allclose(total, dWhh, rtol=0, atol=1e-12)


def test_used_tape_changes_nothing(case: Case) -> None:
    for clean, dirty in zip(case.gradients(), case.gradients(np.nan), strict=True):
        assert (clean == dirty).all()


def test_inputs_are_not_changed(case: Case) -> None:
    before = [a.copy() for a in case[1:]]
    case.gradients()
    assert all((a == b).all() for a, b in zip(before, case[1:], strict=True))


def test_gates_are_between_0_and_1(case: Case) -> None:
    tape = case.cell.new_tape(T, H, B, np.float64)
    case.cell.forward(case.Whh, case.ax, case.state, tape)
    gates = case.cell.gate_activations(tape.views)
    assert len(case.cell.BLOCK_NAMES) == case.cell.NUM_BLOCKS
    assert len(gates) < case.cell.NUM_BLOCKS  # one block is the new content, not a gate
    for gate in gates.values():
        assert gate.shape == (T, H, B)
        assert 0 < gate.min() < 0.3
        assert 0.7 < gate.max() < 1


def sigma(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


@pytest.mark.parametrize(("name", "gates"), [("vanilla", ""), ("gru", "zr"), ("lstm", "ifo")])
def test_gates_match_the_equations(name: str, gates: str) -> None:
    cell = load_cell(name)
    G, S = cell.NUM_BLOCKS, len(cell.STATE_NAMES)
    ax, tape = (
        np.random.default_rng(3).standard_normal((T, G * H, B)),
        cell.new_tape(T, H, B, float),
    )
    cell.forward(np.zeros((G * H, H)), ax, np.zeros((S, H, B)), tape)
    found = cell.gate_activations(tape.views)
    assert "".join(found) == gates
    for k, gate in enumerate(found.values()):
        np.testing.assert_allclose(gate, sigma(ax[:, k * H : (k + 1) * H]), rtol=0, atol=1e-12)


def one_step(name: str, Whh: Array, ax: Array, state: Array) -> Array:
    """Return the state after one step, in plain NumPy, as the equations are in the lectures."""
    W, a = np.split(Whh, len(Whh) // H), np.split(ax, len(Whh) // H)
    if name == "vanilla":
        return np.stack([np.tanh(a[0] + W[0] @ state[0])])
    if name == "gru":
        h = state[0]
        z, r = sigma(a[0] + W[0] @ h), sigma(a[1] + W[1] @ h)
        n = np.tanh(a[2] + W[2] @ (r * h))
        return np.stack([(1 - z) * h + z * n])
    h, c = state
    i, f, o = (sigma(a[k] + W[k] @ h) for k in range(3))
    g = np.tanh(a[3] + W[3] @ h)
    c = f * c + i * g
    return np.stack([o * np.tanh(c), c])


@pytest.mark.parametrize(
    ("case", "name"), [(name, name) for name in ("vanilla", "gru", "lstm")], indirect=["case"]
)
def test_states_match_the_equations(case: Case, name: str) -> None:
    cell, Whh, ax, state, *_ = case
    hs, last = cell.forward(Whh, ax, state, cell.new_tape(T, H, B, np.float64))
    for t in range(T):
        state = one_step(name, Whh, ax[t], state)
        np.testing.assert_allclose(hs[t], state[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(last, state, rtol=0, atol=1e-12)


def test_forget_gate_starts_open() -> None:
    bh = np.zeros(4 * H)
    load_cell("lstm").init_bias(bh)
    assert bh.reshape(4, H).tolist() == [[0] * H, [1] * H, [0] * H, [0] * H]
