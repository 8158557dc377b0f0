import time

import numpy as np
import pytest

from charrnn.arrays import Array
from charrnn.config import CELLS
from charrnn.stack import Stack
from charrnn.team import DataParallel

T, B, V, H, L = 6, 7, 5, 4, 2


def gradient(
    threads: int, cell: str = "lstm", steps: int = T, dropout: bool = False
) -> list[Array]:
    """Return the loss of a random stack on random ids, its gradient and the last state."""
    rng = np.random.default_rng(0)
    stack = Stack(cell, V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, steps, B))
    state = rng.standard_normal(stack.zero_state(B).shape)
    masks = stack.dropout_masks(rng, steps, B, 0.5) if dropout else None
    parallel = DataParallel(stack, T, B, threads)
    assert len(parallel.replicas) == min(threads, B)
    loss = parallel.loss_and_grad(xs, ys, state, masks, xs.size)
    return [np.array(loss), stack.d.vector, state]


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.parametrize("steps", [T, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_threads_match_a_single_thread(cell: str, threads: int, steps: int, dropout: bool) -> None:
    for a, b in zip(
        gradient(1, cell, steps, dropout), gradient(threads, cell, steps, dropout), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_same_threads_give_the_same_bits() -> None:
    for a, b in zip(gradient(3), gradient(3), strict=True):
        assert (a == b).all()


def test_loss_is_the_mean_and_state_the_last() -> None:
    rng = np.random.default_rng(0)
    stack = Stack("gru", V, H, 1, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    nats, last = stack.replica().loss_and_grad(
        xs, ys, stack.zero_state(B), stack.new_tape(T, B), scale=1
    )
    state = stack.zero_state(B)
    loss = DataParallel(stack, T, B, 2).loss_and_grad(xs, ys, state, None, xs.size)
    assert loss == pytest.approx(nats.mean())
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)
    before = stack.p["by"][2]
    stack.p["by"][2] += 1e-6
    nats, _ = stack.replica().loss_and_grad(
        xs, ys, stack.zero_state(B), stack.new_tape(T, B), scale=1
    )
    stack.p["by"][2] = before
    assert (nats.mean() - loss) / 1e-6 == pytest.approx(stack.d["by"][2], rel=1e-4)


@pytest.mark.parametrize("late", [0, 1])
def test_failure_in_a_thread_is_raised_after_all_have_ended(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack("gru", V, H, 1, np.float64, np.random.default_rng(0))
    parallel, ended = DataParallel(stack, T, B, 2), []

    def work(k: int) -> None:
        if k == late:
            time.sleep(0.05)
            ended.append(k)
        else:
            raise MemoryError

    with pytest.raises(MemoryError):
        parallel._map(lambda m: work(int(m.lanes.start > 0)))
    assert ended == [late]


def test_non_finite_values_warn_in_no_thread() -> None:
    stack = Stack("gru", V, H, 1, np.float32, np.random.default_rng(0))
    stack.p["Why"][:] = 3e38
    with np.errstate(all="ignore"):  # of this thread alone; a warning is an error in these tests
        xs = np.zeros((T, B), int)
        parallel, state = DataParallel(stack, T, B, 3), stack.zero_state(B)
        assert not np.isfinite(parallel.loss_and_grad(xs, xs, state, None, xs.size))


@pytest.mark.parametrize("threads", [1, 3])
def test_padding_changes_nothing(threads: int) -> None:
    """The mean is over the targets that count, and its gradient is that of the shorter lanes alone."""
    rng = np.random.default_rng(0)
    stack = Stack("lstm", V, H, L, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, T, B))
    lengths = np.array([6, 1, 0, 3, 6, 2, 5])
    ys[np.arange(T)[:, None] >= lengths] = -1
    loss = DataParallel(stack, T, B, threads).loss_and_grad(
        xs, ys, stack.zero_state(B), None, int(lengths.sum())
    )
    nats, d = 0.0, np.zeros_like(stack.d.vector)
    for lane, n in enumerate(lengths):
        if n:
            alone = stack.replica()
            x, y = xs[:n, lane : lane + 1], ys[:n, lane : lane + 1]
            each, _ = alone.loss_and_grad(
                x, y, stack.zero_state(1), stack.new_tape(n, 1), scale=1 / lengths.sum()
            )
            nats, d = nats + each.sum(), d + alone.d.vector
    assert loss == pytest.approx(nats / lengths.sum(), rel=1e-12)
    np.testing.assert_allclose(stack.d.vector, d, rtol=0, atol=1e-12)
