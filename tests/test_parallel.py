import sys

import numpy as np
import pytest

from charrnn.arrays import Array
from charrnn.config import CELLS
from charrnn.errors import WorkerError
from charrnn.network import Network
from charrnn.optim import OPTIMIZERS
from charrnn.training import parallel, unit_split
from charrnn.training.parallel import DataParallel, default_workers
from charrnn.workers import Workers

T, B, V, H, L = 6, 7, 5, 4, 2


def gradient(workers: int, cell: str, steps: int = T, dropout: bool = False) -> list[Array]:
    """Return the loss of a random network on random ids, its gradient and the last state."""
    rng = np.random.default_rng(0)
    network = Network(cell, V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, steps, B))
    state = rng.standard_normal(network.zero_state(B).shape)
    masks = network.dropout_masks(rng, steps, B, 0.5) if dropout else None
    with Workers(workers) as pool:
        parallel = DataParallel(network, T, B, pool, dropout=dropout)
        assert parallel.num_shares == min(workers, B)
        loss = parallel.loss_and_grad(xs, ys, state, masks, xs.size)
    return [np.array(loss), network.grads.vector, state]


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("steps", [T, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_workers_match_a_single_one(cell: str, workers: int, steps: int, dropout: bool) -> None:
    one, several = (gradient(n, cell, steps, dropout) for n in (1, workers))
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_same_workers_give_the_same_bits() -> None:
    for a, b in zip(gradient(3, "lstm"), gradient(3, "lstm"), strict=True):
        assert (a == b).all()


def test_threads_give_the_same_bits_as_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = gradient(3, "gru", dropout=True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for a, b in zip(processes, gradient(3, "gru", dropout=True), strict=True):
        assert (a == b).all()


def test_loss_is_the_mean_and_state_the_last() -> None:
    rng = np.random.default_rng(0)
    network = Network("gru", V, H, 1, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    single, zero, state = network.copy(), network.zero_state(B), network.zero_state(B)
    nats, last = single.loss_and_grad(xs, ys, zero, network.new_tape(T, B), scale=1 / ys.size)
    with Workers(2) as pool:
        loss = DataParallel(network, T, B, pool).loss_and_grad(xs, ys, state, None, ys.size)
    assert loss == pytest.approx(nats.mean())
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)
    np.testing.assert_allclose(network.grads.vector, single.grads.vector, rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_updates_of_all_workers_are_those_of_one(optimizer: str) -> None:
    results = []
    for size in (1, 2):
        network = Network("gru", 30, 150, 1, np.float32, np.random.default_rng(0))
        with Workers(size) as pool:
            parallel = DataParallel(network, 2, 4, pool, optimizer)
            assert parallel.splits_update == (size == 2)
            for step in (1, 2, 3):
                d = np.random.default_rng(step).standard_normal(len(network.params.vector))
                network.grads.vector[:] = d
                parallel.update(0.01, step)
        results.append((network.params.vector, parallel.optimizer_state))
    for a, b in zip(*results, strict=True):
        assert (a == b).all()
    assert not (results[0][0] == Network("gru", 30, 150, 1).params.vector).any()


def test_nonfinite_values_warn_in_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")  # threads
    network = Network("gru", V, H, 1, np.float32, np.random.default_rng(0))
    network.params["Why"][:] = 3e38
    xs = np.zeros((T, B), int)
    with Workers(3) as pool, np.errstate(all="ignore"):  # only in this thread
        loss = DataParallel(network, T, B, pool).loss_and_grad(
            xs, xs, network.zero_state(B), None, xs.size
        )
    assert not np.isfinite(loss)


@pytest.mark.parametrize("workers", [1, 3])
def test_padding_changes_nothing(workers: int) -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    lengths = np.array([6, 1, 0, 3, 6, 2, 5])
    ys[np.arange(T)[:, None] >= lengths] = -1
    n, alone = int(lengths.sum()), network.copy()
    with Workers(workers) as pool:
        parallel = DataParallel(network, T, B, pool)
        loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), None, n)
    # the mean over the targets, and its gradient, match the shorter lanes read separately
    nats, d = 0.0, np.zeros_like(network.grads.vector)
    for lane in np.flatnonzero(lengths):
        x, y = (a[: lengths[lane], [lane]] for a in (xs, ys))
        lane_nats, _ = alone.loss_and_grad(
            x, y, network.zero_state(1), network.new_tape(len(x), 1), scale=1 / n
        )
        nats, d = nats + lane_nats.sum(), d + alone.grads.vector
    assert loss == pytest.approx(nats / n, rel=1e-12)
    np.testing.assert_allclose(network.grads.vector, d, rtol=0, atol=1e-12)


def test_state_is_unchanged_when_a_worker_dies() -> None:
    network = Network("gru", V, H, 1, np.float64, np.random.default_rng(0))
    xs, state = np.zeros((T, B), int), network.zero_state(B)
    with Workers(2) as pool:
        parallel = DataParallel(network, T, B, pool)
        (process,) = pool.processes
        process.kill()
        with pytest.raises(WorkerError, match=r"ended unexpectedly \(killed by signal 9\)"):
            parallel.loss_and_grad(xs, xs, state, None, xs.size)
        assert not state.any()


def test_number_of_workers_is_that_of_cores_with_enough_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "available_cores", lambda ranks: 4 // ranks)
    gru = Network("gru", V, 256, 1)
    assert [default_workers(gru, B) for B in (1, 15, 32, 50, 64, 1000)] == [1, 1, 2, 3, 4, 4]
    assert default_workers(gru, 64, 2) == 2
    monkeypatch.setattr(unit_split, "can_meet", lambda: True)
    wide, narrow = (Network("lstm", V, H, 1) for H in (192, 32))
    assert [default_workers(wide, B) for B in (1, 7, 8, 64)] == [1, 1, 3, 4]
    assert [default_workers(narrow, B) for B in (8, 32)] == [1, 2]
