"""Division of the units of an LSTM: the same gradients, and no worker that waits forever."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from charrnn.arrays import Array
from charrnn.errors import WorkerError
from charrnn.network import Network
from charrnn.training import parallel
from charrnn.training.meeting import Meeting, can_meet, meeting_shapes
from charrnn.training.parallel import DataParallel
from charrnn.training.unit_split import MAX_LANES, MIN_LANES, UnitShare, divides_units
from charrnn.workers import SharedArrays, Workers

pytestmark = pytest.mark.skipif(not can_meet(), reason="needs Linux on x86")
T, B, H, L = 6, 9, 7, 3


def gradient(
    workers: int, steps: int = T, V: int = 5, dropout: bool = False, dtype: Any = np.float64
) -> list[Array]:
    """Return the loss of a random LSTM on random ids, its gradient and the last state, twice."""
    rng = np.random.default_rng(0)
    network = Network("lstm", V, H, L, dtype, rng)
    network.params.vector[:] = rng.standard_normal(len(network.params.vector)) / 2
    xs, ys = rng.integers(0, V, (2, steps, B))
    ys[0, 0] = -1
    state = rng.standard_normal(network.zero_state(B).shape).astype(dtype)
    masks = network.dropout_masks(rng, steps, B, 0.5) if dropout else None
    results = []
    with Workers(workers) as pool:
        data_parallel = DataParallel(network, T, B, pool, dropout=dropout)
        assert isinstance(pool._own.kept, UnitShare) == (workers > 1)
        for _ in range(2):
            loss = data_parallel.loss_and_grad(xs, ys, state, masks, xs.size)
            results += [np.array(loss), network.grads.vector.copy(), state.copy()]
    return results


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("steps", [T, 2, 1])
@pytest.mark.parametrize("V", [5, 200])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_match_those_of_one_worker(
    workers: int, steps: int, V: int, dropout: bool
) -> None:
    one, several = (gradient(n, steps, V, dropout) for n in (1, workers))
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert np.linalg.norm(one[1]) > 0.1


def test_same_workers_give_the_same_bits() -> None:
    first, again = (gradient(2, dtype=np.float32, dropout=True) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert (a == b).all()


def test_only_lstms_with_enough_lanes_and_units_are_divided() -> None:
    networks = {cell: Network(cell, 5, H, 1) for cell in ("lstm", "gru", "vanilla")}
    assert [cell for cell in networks if divides_units(networks[cell], 9, 2)] == ["lstm"]
    assert not divides_units(networks["lstm"], MIN_LANES - 1, 2)
    assert not divides_units(networks["lstm"], 9, H + 1)
    assert not divides_units(networks["lstm"], 9, 1)
    assert not divides_units(networks["lstm"], MAX_LANES * 2, 2)


def stop_second(share: UnitShare, how: str) -> None:
    """Fail in the backward pass of worker 1, while the others wait for it."""
    if share.k == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise MemoryError("no more")


class FaultyShare(UnitShare):
    """Ends, or raises an error, in the middle of a step."""

    how = "kill"

    def _output(self, steps: int, scale: float) -> float:
        stop_second(self, self.how)
        return super()._output(steps, scale)


class RaisingShare(FaultyShare):
    """Raises an error."""

    how = "raise"


@pytest.mark.parametrize(
    ("share", "error"), [(FaultyShare, WorkerError), (RaisingShare, MemoryError)]
)
@pytest.mark.parametrize("workers", [2, 3])
def test_end_of_a_worker_ends_the_step(
    share: type, error: type[Exception], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "UnitShare", share)
    started = time.monotonic()
    with pytest.raises(error):
        gradient(workers)
    assert time.monotonic() - started < 20


def test_nobody_passes_a_meeting_alone() -> None:
    arrays = SharedArrays(None, meeting_shapes(2))
    meetings = [Meeting(arrays, k) for k in range(2)]
    passed: list[str] = []

    def attend(meet: Callable[[], None]) -> None:
        meet()
        passed.append("first")
        meet()
        passed.append("second")

    other = threading.Thread(target=attend, args=[meetings[1]])
    other.start()
    time.sleep(0.05)
    assert not passed
    meetings[0]()
    time.sleep(0.05)
    assert passed == ["first"]
    meetings[0].release()
    other.join(10)
    assert passed == ["first", "second"]
