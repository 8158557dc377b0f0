"""A captioner with attention over regions: gradient, steps, padding, workers, files."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from charrnn.bidirectional import count_parameters, make_network
from charrnn.config import CELLS, Config
from charrnn.loss import log_softmax
from charrnn.regions import RegionCaptioner, RegionStepper
from charrnn.training.parallel import DataParallel
from charrnn.vectors import Vectors, standardize
from charrnn.workers import Workers
from tests.conftest import assert_gradients_match, assert_lanes_match_alone

T, B, V, H, R, D = 6, 4, 5, 4, 3, 2
ROWS = [1, 3, 1]  # of the lanes; the last lane is padding


def random_vectors(each: bool = False) -> Vectors:
    rows = 3 + 2 * np.random.default_rng(0).standard_normal((4, R, D))
    return standardize(rows, np.arange(3), None, each=each)


def random_network(cell: str, num_layers: int, each: bool = False) -> RegionCaptioner:
    vectors = random_vectors(each)
    network = RegionCaptioner(cell, V, H, num_layers, np.float64, vectors=vectors)
    rng = np.random.default_rng(num_layers)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(each: bool = False) -> tuple[Any, Any]:
    """Return ids of lanes with a row each, and targets; the first two are read, not written."""
    rng, vectors = np.random.default_rng(1), random_vectors(each)
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    for lane, row in enumerate(ROWS):
        xs[:, lane] = vectors.mark(xs[:, lane], np.array([T]), np.array([row]), V)
    ys[:2] = -1
    xs[:, 3], ys[:, 3] = 0, -1
    return xs, ys


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("each", [False, True])
def test_gradients_match_central_differences(cell: str, num_layers: int, each: bool) -> None:
    network, (xs, ys) = random_network(cell, num_layers, each), random_batch(each)
    assert_gradients_match(network, xs, ys, np.random.default_rng(0), dropout=True)


def test_the_forward_pass_is_that_of_the_equations() -> None:
    network, (xs, _) = random_network("vanilla", 1), random_batch()
    p, tape = network.params, network.new_tape(T, B)
    state = np.random.default_rng(2).standard_normal(network.zero_state(B).shape)
    network.forward(xs, state, tape)
    v = network.vectors.rows.reshape(-1, D)[: 3 * R]
    for lane, row in enumerate(ROWS):
        v_i = (network.vectors.rows[row] - v.mean(0)) / v.std(0)
        s = np.tanh(v_i @ p["Wv"].T + p["bv"])  # (R, H)
        u = p["gu"] * s.mean(0) + p["bu"]
        h = state[0, 0, :, lane]
        for t in range(T):
            a = p["0.Wxh"][:, xs[t, lane] % V] + p["0.bh"] + p["0.Whh"] @ h
            h = np.tanh(a + (p["Wih"] @ u if t == 0 else 0))
            shares = np.exp(log_softmax(s @ (h @ p["Wa"])))
            logits = p["Why"] @ np.concatenate([h, shares @ s]) + p["by"]
            np.testing.assert_allclose(tape.logits[t, :, lane], logits, rtol=0, atol=1e-12)
            np.testing.assert_allclose(tape.attention.p[lane, t], shares, rtol=0, atol=1e-12)


def test_the_mean_is_standardized_at_the_start() -> None:
    rows = 3 + 2 * np.random.default_rng(0).standard_normal((2000, R, D))
    vectors = standardize(rows, np.arange(1900), None, each=False)
    assert 512 <= len(vectors.sample) < 1024
    assert vectors.sample.max() < 1900
    rng = np.random.default_rng(1)
    network = RegionCaptioner("gru", V, H, 1, np.float64, rng, vectors=vectors)
    u = network.params["gu"] * network.read_source(np.arange(1900, 2000)).mean(1)
    u += network.params["bu"]
    assert (np.abs(u.mean(0)) < 0.4).all()
    assert (np.abs(u.std(0) - 1) < 0.4).all()
    bv = network.params["bv"]
    assert (bv[:, : H // 2] == bv[0, : H // 2]).all()
    assert (bv[:, H // 2 :] != bv[0, H // 2 :])[1:].all()


def test_a_padded_lane_gives_what_it_gives_alone() -> None:
    network, (xs, ys) = random_network("lstm", 2), random_batch()
    lengths = [6, 3, 5]
    for lane, n in enumerate(lengths):
        xs[n:, lane], ys[n:, lane] = 0, -1
    state = np.random.default_rng(0).standard_normal(network.zero_state(B).shape)
    assert_lanes_match_alone(network, xs, ys, state, lengths)


@pytest.mark.parametrize("each", [False, True])
def test_steps_one_by_one_match_all_at_once(each: bool) -> None:
    network, xs = random_network("lstm", 2, each), random_batch(each)[0][:, :3]
    tape, state = network.new_tape(T, 3), network.zero_state(3)
    network.forward(xs, state, tape)
    step = RegionStepper(network, state, network.read_source(np.array(ROWS)))
    for ids, logits in zip(xs, tape.logits, strict=True):
        np.testing.assert_allclose(step(ids), logits, rtol=0, atol=1e-12)


def test_a_short_batch_after_a_long_one_gives_the_same() -> None:
    network, (xs, ys) = random_network("gru", 1), random_batch()
    tape, state = network.new_tape(T, B), network.zero_state(B)
    network.loss_and_grad(xs, ys, state, tape, scale=1)
    used, _ = network.loss_and_grad(xs[:3], ys[:3], state, tape.slice(0, 3), scale=1)
    grads = network.grads.vector.copy()
    new, _ = network.loss_and_grad(xs[:3], ys[:3], state, network.new_tape(3, B), scale=1)
    assert (used == new).all()
    assert (grads == network.grads.vector).all()


def test_workers_match_a_single_one() -> None:
    results = []
    for size in (1, 2):
        network, (xs, ys) = random_network("lstm", 1), random_batch()
        masks = network.dropout_masks(np.random.default_rng(1), T, B, 0.5)
        with Workers(size) as workers:
            parallel = DataParallel(network, T, B, workers, dropout=True)
            loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), masks, 10)
        results.append((loss, network.grads.vector.copy()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-12)


def test_copies_have_the_same_weights_and_their_own_memory() -> None:
    network = random_network("gru", 2)
    for other in (network.copy(), pickle.loads(pickle.dumps(network))):
        assert type(other) is RegionCaptioner
        assert (other.params.vector == network.params.vector).all()
        other.params.vector[:] = 0
        assert network.params.vector.any()


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_the_number_of_parameters_is_known_in_advance(cell: str) -> None:
    config = Config(cell=cell, hidden_size=H, num_layers=2, predict="text", attention=True)
    network = make_network(config, V, vectors=random_vectors())
    assert type(network) is RegionCaptioner
    assert len(network.params.vector) == count_parameters(config, V, None, (R, D))


def test_weights_of_other_networks_are_loaded_where_they_fit() -> None:
    plain = make_network(Config(hidden_size=H, cell="gru", dtype="float64"), V)
    plain.params.vector[:] = 1
    network, other = random_network("gru", 1), random_network("gru", 1)
    before, other.params.vector[:] = network.params.vector.copy(), 2
    network.load_weights_from(plain, np.arange(V), np.arange(V))
    assert (network.params["0.Whh"] == 1).all()
    assert (network.params["Why"][:, :H] == 1).all()
    for name in ("Wih", "Wv", "bv", "gu", "bu", "Wa"):
        assert not (network.params[name] == 1).any()
    network.load_weights_from(other, np.arange(V), np.arange(V))
    assert (network.params.vector == 2).all()
    assert (before != 2).all()
