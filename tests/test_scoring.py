import itertools

import numpy as np
import pytest

from charrnn import loss, scoring
from charrnn.arrays import Array, Ids
from charrnn.config import CELLS
from charrnn.network import Network
from charrnn.optim import clip
from charrnn.scoring import (
    WARM_UP_SYMBOLS,
    _read_layerwise,
    _read_stepwise,
    contiguous_nll,
    document_nll,
    dynamic_nll,
)
from charrnn.text.batches import Batch, Position
from charrnn.workers import Workers
from tests.conftest import random_network

V = 11


def one_by_one(network: Network, ids: np.ndarray) -> np.ndarray:
    tape, state, nats = network.new_tape(1, 1), network.zero_state(1), []
    for x, y in itertools.pairwise(ids):
        state = network.forward(np.array([[x]]), state, tape)
        nats.append(loss.forward(tape.logits[0], np.array([y]))[0][0])
    return np.array(nats)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 700])
@pytest.mark.parametrize("context", [1, 5])
def test_one_lane_is_exact(n: int, context: int) -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", V, 8, 2, np.float64, rng)
    ids = rng.integers(0, V, context + n)
    nats = contiguous_nll(network, ids[context:], ids[:context])
    assert nats.shape == (n,)
    np.testing.assert_allclose(nats, one_by_one(network, ids)[context - 1 :], rtol=0, atol=1e-10)


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_every_lane_is_warmed_up(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MIN_WORK", 0)
    rng = np.random.default_rng(0)
    network = Network("gru", V, 8, 1, np.float64, rng)
    ids = rng.integers(0, V, 4011)
    with Workers(workers) as pool:
        nats = contiguous_nll(network, ids[10:], ids[:10], pool)
    starts = [10 + i * 4001 // 4 for i in range(4)]
    for a, b in zip(starts, [*starts[1:], 4011], strict=True):
        read = max(a - 1 - WARM_UP_SYMBOLS, 0)
        wanted = one_by_one(network, ids[read:b])[a - 1 - read :]
        np.testing.assert_allclose(nats[a - 10 : b - 10], wanted, rtol=0, atol=1e-10)


def test_empty_text_has_no_losses() -> None:
    network = Network("vanilla", V, 4, 1)
    assert contiguous_nll(network, np.zeros(0, int), np.zeros(1, int)).shape == (0,)


@pytest.mark.parametrize("longest", [5, 60])  # batches have 8 steps
@pytest.mark.parametrize("workers", [1, 3])
def test_every_document_is_scored_separately(
    longest: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MIN_WORK", 0)
    rng = np.random.default_rng(0)
    network = Network("lstm", V, 8, 2, np.float64, rng)
    ends = np.cumsum(rng.integers(1, longest, 100))
    ids = rng.integers(0, V, ends[-1])
    with Workers(workers) as pool:
        nats = document_nll(network, ids, ends, 3, pool)
    for a, b in zip([0, *ends[:-1]], ends, strict=True):
        np.testing.assert_allclose(
            nats[a:b], one_by_one(network, np.append(3, ids[a:b])), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("B", [1, 5])
def test_reading_stepwise_matches_reading_layerwise(cell: str, num_layers: int, B: int) -> None:
    rng = np.random.default_rng(0)
    network = random_network(cell, num_layers)
    batches = []
    for n in (4, 3, 4):  # lanes are reset between the batches, and one batch is shorter
        xs, ys = rng.integers(0, network.vocab_size, (2, n, B))
        batches.append(Batch(xs, ys, rng.random(B) < 0.5, ys, Position(), n * B))
    pairs = zip(
        _read_stepwise(network, batches, 4, B),
        _read_layerwise(network, batches, 4, B),
        strict=True,
    )
    for (_, stepwise), (_, layerwise) in pairs:
        np.testing.assert_allclose(stepwise, layerwise, rtol=0, atol=1e-12)


def test_large_network_is_read_layerwise(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    network, ids = Network("gru", V, 8, 2, np.float64, rng), rng.integers(0, V, 3000)
    stepwise = contiguous_nll(network, ids, ids[:1])
    monkeypatch.setattr(scoring, "MAX_STEPWISE", 0)
    monkeypatch.delattr(scoring, "Stepper")  # unused
    layerwise = contiguous_nll(network, ids, ids[:1])
    np.testing.assert_allclose(stepwise, layerwise, rtol=0, atol=1e-12)


# --- Dynamic evaluation ---


def naive_dynamic_nll(network: Network, ids: Ids, lr: float) -> Array:
    """Read ids but the first in batches of 20; score each, and then train on it."""
    network = network.copy()
    out, state = [], network.zero_state(1)
    for t in range(0, len(ids) - 1, 20):
        batch = ids[t : t + 21]
        n = len(batch) - 1
        tape = network.new_tape(n, 1)
        last = network.forward(batch[:-1, None], state, tape).copy()
        out.append(loss.forward(tape.logits.transpose(1, 0, 2).reshape(-1, n).copy(), batch[1:])[0])
        network.loss_and_grad(
            batch[:-1, None], batch[1:, None], state, network.new_tape(n, 1), scale=1 / n
        )
        clip(network.grads.vector, 1, 0)
        network.params.vector -= lr * network.grads.vector
        state = last
    return np.concatenate(out)


@pytest.mark.parametrize("context", [1, 7, 25])
def test_dynamic_evaluation_scores_before_updating(context: int) -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", 5, 6, 2, np.float64, rng)
    ids = rng.integers(0, 5, context + 73)
    nats = dynamic_nll(network.copy(), ids[context:], ids[:context], None, 0, 0.5)
    np.testing.assert_allclose(
        nats, naive_dynamic_nll(network, ids, 0.5)[context - 1 :], rtol=0, atol=1e-12
    )
    still = dynamic_nll(network.copy(), ids[context:], ids[:context], None, 0, 0.0)
    np.testing.assert_allclose(
        still, contiguous_nll(network, ids[context:], ids[:context]), rtol=0, atol=1e-12
    )


def test_dynamic_evaluation_resets_the_state_at_documents() -> None:
    rng = np.random.default_rng(0)
    network = Network("gru", 5, 6, 1, np.float64, rng)
    ids = rng.integers(0, 5, 90)
    ids[[10, 50, 51]] = 4
    ids[-1] = 3
    ends = np.flatnonzero(ids == 4) + 1
    still = dynamic_nll(network.copy(), ids, np.array([4]), 4, 4, 0.0)
    wanted = document_nll(network, ids, np.append(ends, 90), 4)
    np.testing.assert_allclose(still, wanted, rtol=0, atol=1e-12)
    assert dynamic_nll(network.copy(), ids, np.array([4]), 4, 4, 0.5)[0] == still[0]
    assert len(dynamic_nll(network.copy(), ids[:0], np.array([4]), 4, 4, 0.5)) == 0
