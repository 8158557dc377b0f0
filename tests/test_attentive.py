"""A network with attention over what it reads first: gradient, padding, steps, what may use it."""

import pickle
from typing import Any

import numpy as np
import pytest

from charrnn.attentive import Attentive, AttentiveStepper
from charrnn.bidirectional import count_parameters, make_network
from charrnn.config import CELLS, Config
from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.text.batches import Batch, Position
from charrnn.training.parallel import DataParallel
from charrnn.workers import Workers
from tests.conftest import assert_gradients_match, assert_lanes_match_alone

T, B, V, H = 7, 4, 6, 4
SOURCES, LENGTHS = [3, 2, 4, 0], [7, 3, 5, 0]  # of the lanes; the last one is padding


def random_network(cell: str, num_layers: int) -> Attentive:
    rng = np.random.default_rng(num_layers)
    network = Attentive(cell, V, H, num_layers, np.float64)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(rng: np.random.Generator) -> tuple[Any, Any]:
    """Return ids and targets of lanes that read and write texts of different lengths."""
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, V, (T, B))
    for lane, (s, n) in enumerate(zip(SOURCES, LENGTHS, strict=True)):
        ys[: max(s - 1, 0), lane] = ys[n:, lane] = -1
    return xs, ys


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_match_central_differences(cell: str, num_layers: int, dropout: bool) -> None:
    rng, network = np.random.default_rng(0), random_network(cell, num_layers)
    xs, ys = random_batch(rng)
    assert_gradients_match(network, xs, ys, rng, dropout)


def test_a_padded_lane_gives_what_it_gives_alone() -> None:
    rng, network = np.random.default_rng(0), random_network("lstm", 2)
    xs, ys = random_batch(rng)
    state = rng.standard_normal(network.zero_state(B).shape)
    assert_lanes_match_alone(network, xs, ys, state, LENGTHS[:3])


def test_every_target_depends_on_the_whole_source_and_on_nothing_later() -> None:
    network, tape = random_network("gru", 1), random_network("gru", 1).new_tape(6, 1)
    ys = np.array([[-1], [-1], [0], [1], [2], [3]])  # a source of three steps

    def logits(xs: Any) -> Any:
        network.mark_source(ys, tape)
        network.forward(xs, network.zero_state(1), tape)
        return tape.logits.copy()

    xs = np.array([[0], [1], [2], [3], [4], [5]])
    before = logits(xs)
    for t in range(6):
        changed = xs.copy()
        changed[t] = (xs[t] + 1) % V
        differs = np.abs(logits(changed) - before).max((1, 2)) > 1e-9
        assert (differs[2:] == (np.arange(2, 6) >= t)).all()
        assert not tape.attention.p.shape[2] > 3


def test_a_short_batch_after_a_long_one_gives_the_same() -> None:
    rng, network = np.random.default_rng(0), random_network("gru", 1)
    (xs, ys), state = random_batch(rng), network.zero_state(B)
    tape = network.new_tape(T, B)
    network.loss_and_grad(xs, ys, state, tape, scale=1)
    short = xs[2:5], np.where(np.arange(3)[:, None] < 1, -1, ys[2:5])
    used, _ = network.loss_and_grad(*short, state, tape.slice(0, 3), scale=1)
    grads = network.grads.vector.copy()
    new, _ = network.loss_and_grad(*short, state, network.new_tape(3, B), scale=1)
    assert (used == new).all()
    assert (grads == network.grads.vector).all()


def test_steps_one_by_one_match_all_at_once() -> None:
    rng, network = np.random.default_rng(0), random_network("lstm", 2)
    xs, ys = random_batch(rng)
    xs, ys = xs[:, :3], np.where(np.arange(T)[:, None] < 2, -1, ys[:, :3])
    ys[2:] = 0  # sources of three steps
    reset, at = np.ones(3, bool), np.zeros_like(xs)
    batch = Batch(xs, ys, reset, at, Position(), int((ys >= 0).sum()))
    _, tape = next(network.read([batch], T, 3))
    top = tape.layers[-1].states[0, 1:]
    state = np.stack([layer.states[:, 3] for layer in tape.layers])
    step = AttentiveStepper(network, state, top[:3], np.ones((3, 3), bool))
    np.testing.assert_allclose(step.predict(), tape.logits[2], rtol=0, atol=1e-12)
    for t in range(3, T):
        np.testing.assert_allclose(step(xs[t]), tape.logits[t], rtol=0, atol=1e-12)


def test_workers_match_a_single_one() -> None:
    results = []
    for size in (1, 2):
        network, rng = random_network("lstm", 1), np.random.default_rng(1)
        xs, ys = random_batch(rng)
        masks = network.dropout_masks(rng, T, B, 0.5)
        with Workers(size) as workers:
            parallel = DataParallel(network, T, B, workers, dropout=True)
            loss = parallel.loss_and_grad(xs, ys, network.zero_state(B), masks, 10)
        results.append((loss, network.grads.vector.copy()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-12)


def test_copies_have_the_same_weights_and_their_own_memory() -> None:
    network = random_network("gru", 2)
    for other in (network.copy(), pickle.loads(pickle.dumps(network))):
        assert type(other) is Attentive
        assert (other.params.vector == network.params.vector).all()
        other.params["Wa"][:] = 9
        assert not (network.params["Wa"] == 9).any()


def test_weights_of_networks_with_and_without_attention() -> None:
    rng = np.random.default_rng(0)
    plain = Network("gru", V, H, 1, np.float64, rng)
    network, ids = random_network("gru", 1), np.arange(V)
    before = network.params["Wa"].copy(), network.params["Why"][:, H:].copy()
    network.load_weights_from(plain, ids, ids)
    assert (network.params["0.Whh"] == plain.params["0.Whh"]).all()
    assert (network.params["Why"][:, :H] == plain.params["Why"]).all()
    after = network.params["Wa"], network.params["Why"][:, H:]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    other = Network("gru", V, H, 1, np.float64)
    other.load_weights_from(network, ids, ids)
    assert (other.params.vector == plain.params.vector).all()
    same = Attentive("gru", V, H, 1, np.float64)
    same.load_weights_from(network, ids, ids)
    assert (same.params.vector == network.params.vector).all()


def test_the_options_choose_the_network() -> None:
    config = Config(predict="text", attention=True, hidden_size=H)
    network = make_network(config, V)
    assert type(network) is Attentive
    assert count_parameters(config, V) == len(network.params.vector)
    for predict in ("next", "label", "tags"):
        with pytest.raises(UsageError, match="does not read --attention: only what is written"):
            Config(predict=predict, attention=True)
    with pytest.raises(UsageError, match="does not read --bidirectional"):
        Config(predict="text", attention=True, bidirectional=True)
