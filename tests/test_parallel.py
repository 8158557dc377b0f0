import time

import numpy as np
import pytest

from charrnn.arrays import Array
from charrnn.config import CELLS
from charrnn.network import Network
from charrnn.training.parallel import DataParallel

T, B, V, H, L = 6, 7, 5, 4, 2


def gradient(threads: int, cell: str, steps: int = T, dropout: bool = False) -> list[Array]:
    """Return the loss of a random network on random ids, its gradient and the last state."""
    rng = np.random.default_rng(0)
    network = Network(cell, V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, steps, B))
    state = rng.standard_normal(network.zero_state(B).shape)
    masks = network.dropout_masks(rng, steps, B, 0.5) if dropout else None
    parallel = DataParallel(network, T, B, threads)
    assert len(parallel.replicas) == min(threads, B)
    loss = parallel.loss_and_grad(xs, ys, state, masks, xs.size)
    return [np.array(loss), network.grads.vector, state]


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.parametrize("steps", [T, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_threads_match_a_single_thread(cell: str, threads: int, steps: int, dropout: bool) -> None:
    one, several = (gradient(n, cell, steps, dropout) for n in (1, threads))
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_same_threads_give_the_same_bits() -> None:
    for a, b in zip(gradient(3, "lstm"), gradient(3, "lstm"), strict=True):
        assert (a == b).all()


def test_loss_is_the_mean_and_state_the_last() -> None:
    rng = np.random.default_rng(0)
    network = Network("gru", V, H, 1, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    single, zero, state = network.replica(), network.zero_state(B), network.zero_state(B)
    nats, last = single.loss_and_grad(xs, ys, zero, network.new_tape(T, B), scale=1 / ys.size)
    loss = DataParallel(network, T, B, 2).loss_and_grad(xs, ys, state, None, ys.size)
    assert loss == pytest.approx(nats.mean())
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)
    np.testing.assert_allclose(network.grads.vector, single.grads.vector, rtol=0, atol=1e-12)


@pytest.mark.parametrize("late", [0, 1])
def test_failure_in_a_thread_is_raised_after_all_have_ended(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, ended = Network("gru", V, H, 1, np.float64, np.random.default_rng(0)), []
    parallel, xs = DataParallel(network, T, B, 2), np.zeros((T, B), int)

    def fail(k: int) -> None:
        if k == late:
            time.sleep(0.05)
            ended.append(k)
        raise MemoryError(k)

    for k, replica in enumerate(parallel.replicas):
        monkeypatch.setattr(replica.network, "loss_and_grad", lambda *_, k=k, **__: fail(k))
    with pytest.raises(MemoryError, match="0"):
        parallel.loss_and_grad(xs, xs, network.zero_state(B), None, xs.size)
    assert ended == [late]


def test_nonfinite_values_warn_in_no_thread() -> None:
    network = Network("gru", V, H, 1, np.float32, np.random.default_rng(0))
    network.params["Why"][:] = 3e38
    xs, parallel = np.zeros((T, B), int), DataParallel(network, T, B, 3)
    with np.errstate(all="ignore"):  # only in this thread; a warning is an error in these tests
        assert not np.isfinite(parallel.loss_and_grad(xs, xs, network.zero_state(B), None, xs.size))


@pytest.mark.parametrize("threads", [1, 3])
def test_padding_changes_nothing(threads: int) -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    lengths = np.array([6, 1, 0, 3, 6, 2, 5])
    ys[np.arange(T)[:, None] >= lengths] = -1
    n = int(lengths.sum())
    parallel = DataParallel(network, T, B, threads)
    loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), None, n)
    # the mean over the targets, and its gradient, match the shorter lanes read separately
    nats, d, alone = 0.0, np.zeros_like(network.grads.vector), network.replica()
    for lane in np.flatnonzero(lengths):
        x, y = (a[: lengths[lane], [lane]] for a in (xs, ys))
        lane_nats, _ = alone.loss_and_grad(
            x, y, network.zero_state(1), network.new_tape(len(x), 1), scale=1 / n
        )
        nats, d = nats + lane_nats.sum(), d + alone.grads.vector
    assert loss == pytest.approx(nats / n, rel=1e-12)
    np.testing.assert_allclose(network.grads.vector, d, rtol=0, atol=1e-12)
