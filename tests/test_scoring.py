import itertools

import numpy as np
import pytest

from charrnn import loss, scoring
from charrnn.adaptive import AdaptiveNetwork, AdaptiveRule
from charrnn.arrays import Array, Ids
from charrnn.config import CELLS
from charrnn.network import Network
from charrnn.scoring import (
    WARM_UP_SYMBOLS,
    _read_layerwise,
    _read_stepwise,
    contiguous_scores,
    document_scores,
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
    nats = contiguous_scores(network, ids[context:], ids[:context])[0]
    assert nats.shape == (n,)
    np.testing.assert_allclose(nats, one_by_one(network, ids)[context - 1 :], rtol=0, atol=1e-10)


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_every_lane_is_warmed_up(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MIN_WORK", 0)
    rng = np.random.default_rng(0)
    network = Network("gru", V, 8, 1, np.float64, rng)
    ids = rng.integers(0, V, 4011)
    with Workers(workers) as pool:
        nats = contiguous_scores(network, ids[10:], ids[:10], pool)[0]
    starts = [10 + i * 4001 // 4 for i in range(4)]
    for a, b in zip(starts, [*starts[1:], 4011], strict=True):
        read = max(a - 1 - WARM_UP_SYMBOLS, 0)
        wanted = one_by_one(network, ids[read:b])[a - 1 - read :]
        np.testing.assert_allclose(nats[a - 10 : b - 10], wanted, rtol=0, atol=1e-10)


def test_empty_text_has_no_losses() -> None:
    network = Network("vanilla", V, 4, 1)
    assert contiguous_scores(network, np.zeros(0, int), np.zeros(1, int)).shape == (2, 0)


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
        nats = document_scores(network, ids, ends, 3, pool)[0]
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
    stepwise = contiguous_scores(network, ids, ids[:1])
    monkeypatch.setattr(scoring, "MAX_STEPWISE", 0)
    monkeypatch.delattr(scoring, "Stepper")  # unused
    layerwise = contiguous_scores(network, ids, ids[:1])
    np.testing.assert_allclose(stepwise, layerwise, rtol=0, atol=1e-12)


def test_highest_probability_is_in_the_scores() -> None:
    rng = np.random.default_rng(0)
    network, ids = Network("gru", V, 8, 1, np.float64, rng), rng.integers(0, V, 50)
    network.params.vector *= 3
    nats = np.stack(
        [one_by_one(network, np.append(ids[:n], k))[-1] for n in range(1, 50) for k in range(V)]
    )
    wanted = -nats.reshape(49, V).min(1)
    np.testing.assert_allclose(contiguous_scores(network, ids[1:], ids[:1])[1], wanted, atol=1e-10)
    ends = np.array([20, 49])
    of_documents = document_scores(network, ids[1:], ends, ids[0])[1]
    np.testing.assert_allclose(of_documents[:20], wanted[:20], atol=1e-10)


# --- Dynamic evaluation ---


def rule_for(network: Network, learning_rate: float = 0.3, decay: float = 0.05) -> AdaptiveRule:
    n = len(network.params.vector)
    return AdaptiveRule(np.random.default_rng(5).random(n), learning_rate, decay)


def naive_adaptive_nll(network: Network, ids: Ids, rule: AdaptiveRule) -> Array:
    """Read ids but the first in batches of 20; score each with both networks, and then train."""
    theta0, r, m = network.params.vector.copy(), rule.rms_gradient, rule.rms_gradient.mean()
    adaptive, out = network.copy(), []
    state = adaptive.zero_state(1)
    still_nll = one_by_one(network, ids)
    paid = np.zeros(2)  # by the network as it was, and by the one that adapts
    for t in range(0, len(ids) - 1, 20):
        batch = ids[t : t + 21]
        n = len(batch) - 1
        nll, last = adaptive.loss_and_grad(
            batch[:-1, None], batch[1:, None], state, adaptive.new_tape(n, 1), scale=1 / n
        )
        for pair in zip(still_nll[t : t + n], nll[:, 0], strict=True):
            share = np.exp(-paid) / np.exp(-paid).sum()
            out.append(-np.log(share @ np.exp(-np.array(pair))))
            paid += pair
        theta, g = adaptive.params.vector, adaptive.grads.vector
        theta += np.minimum(rule.decay * r / m, 1) * (theta0 - theta)
        theta -= rule.learning_rate * g * m / (r + 0.1 * m)
        state = last.copy()
    return np.array(out)


@pytest.mark.parametrize("context", [1, 7, 25])
def test_adapting_network_scores_before_it_updates(context: int) -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", 5, 6, 2, np.float64, rng)
    ids, rule = rng.integers(0, 5, context + 73), rule_for(network)
    before = network.params.vector.copy()
    nats = AdaptiveNetwork(network, rule).score(ids[context:], ids[:context], None, 0)[0]
    wanted = naive_adaptive_nll(network, ids, rule)[context - 1 :]
    np.testing.assert_allclose(nats, wanted, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(network.params.vector, before)
    still_rule = rule_for(network, 0, 0)
    still = AdaptiveNetwork(network, still_rule).score(ids[context:], ids[:context], None, 0)
    wanted = contiguous_scores(network, ids[context:], ids[:context])
    np.testing.assert_allclose(still, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("learning_rate", [0.5, 50.0, 1e200, 1e308])
def test_adapting_costs_at_most_a_bit_more_than_the_better_network(learning_rate: float) -> None:
    rng = np.random.default_rng(0)
    network, ids = Network("gru", 5, 6, 1, np.float64, rng), np.tile([0, 3, 1, 2], 60)
    rule = rule_for(network, learning_rate)
    adapted = AdaptiveNetwork(network, rule).score(ids, ids[:1], None, 0)[0].sum()
    still = contiguous_scores(network, ids, ids[:1])[0].sum()
    assert adapted < still + np.log(2) + 1e-9
    if learning_rate < 1:
        assert adapted < 0.9 * still  # a text that repeats


def test_adapting_resets_the_state_at_documents() -> None:
    rng = np.random.default_rng(0)
    network = Network("gru", 5, 6, 1, np.float64, rng)
    ids = rng.integers(0, 5, 90)
    ids[[10, 50, 51]] = 4
    ids[-1] = 3
    ends, no_context = np.append(np.flatnonzero(ids == 4) + 1, 90), ids[:0]
    still_rule = rule_for(network, 0, 0)
    still = AdaptiveNetwork(network, still_rule).score(ids, no_context, ends, 4)
    wanted = document_scores(network, ids, ends, 4)
    np.testing.assert_allclose(still, wanted, rtol=0, atol=1e-12)
    network_that_adapts = AdaptiveNetwork(network, rule_for(network))
    adapted = network_that_adapts.score(ids, no_context, ends, 4)
    assert adapted[0, 0] == still[0, 0]
    assert network_that_adapts.score(ids[:0], no_context, ends[:0], 4).shape == (2, 0)


def test_adapting_text_by_text_is_adapting_to_all_of_them() -> None:
    network = Network("gru", 5, 6, 1, np.float64, np.random.default_rng(0))
    ids, ends = np.tile([0, 3, 1, 2], 25), np.array([30, 60, 100])
    whole = AdaptiveNetwork(network, rule_for(network)).score(ids, ids[:0], ends, 4)
    by_text = AdaptiveNetwork(network, rule_for(network))
    pieces = [
        by_text.score(ids[a:b], ids[:0], np.array([b - a]), 4)
        for a, b in [(0, 30), (30, 60), (60, 100)]
    ]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    assert whole[0, 60:].mean() < 0.8 * whole[0, :30].mean()
