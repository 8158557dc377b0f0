"""A network that reads from both sides: its gradient, its padding, and what may use it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.bidirectional import Bidirectional, make_network
from charrnn.config import CELLS, Config
from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.training.parallel import DataParallel
from charrnn.workers import Workers
from tests.conftest import assert_gradients_match, assert_lanes_match_alone

T, B, V, H, O = 5, 3, 7, 4, 6
LENGTHS = [5, 2, 4]


def random_network(cell: str, num_layers: int, **options: Any) -> Bidirectional:
    rng = np.random.default_rng(num_layers)
    network = Bidirectional(cell, V, H, num_layers, np.float64, num_outputs=O, **options)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(rng: np.random.Generator) -> tuple[Any, Any]:
    """Return ids and targets of lanes that end at different steps."""
    xs, ys = rng.integers(0, V, (T, B)), rng.integers(0, O, (T, B))
    for lane, n in enumerate(LENGTHS):
        xs[n:, lane] = ys[n:, lane] = -1
    ys[1, 0] = -1
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
    state = network.zero_state(B)
    assert_lanes_match_alone(network, xs, ys, state, LENGTHS)


@pytest.mark.parametrize("side", ["both", "left", "right"])
def test_the_end_knows_the_line_from_both_sides(side: str) -> None:
    network, xs = random_network("gru", 1), np.array([[0], [1], [2], [3], [5]])  # 5 is the end
    for name in {"left", "right"} - {side}:
        if side != "both":
            network.params[f"{name}.Why"][:] = 0
    tape = network.new_tape(5, 1)
    network.forward(xs, network.zero_state(1), tape)
    before = tape.logits.copy()
    for changed in range(4):
        other = xs.copy()
        other[changed] = 6
        network.forward(other, network.zero_state(1), tape)
        differs = np.abs(tape.logits - before).max((1, 2)) > 1e-6
        seen = {"both": range(5), "left": range(changed, 5), "right": [*range(changed + 1), 4]}
        assert np.flatnonzero(differs).tolist() == sorted({*seen[side]})


def test_workers_match_a_single_one() -> None:
    results = []
    for size in (1, 2):
        network, rng = random_network("gru", 1), np.random.default_rng(1)
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
        assert type(other) is Bidirectional
        assert other.num_outputs == O
        assert (other.params.vector == network.params.vector).all()
        other.params["right.0.bh"][:] = 9
        assert not (other.right.params["0.bh"] == network.right.params["0.bh"]).any()


def test_weights_of_a_network_that_reads_from_the_left() -> None:
    rng = np.random.default_rng(0)
    one_way = Network("gru", V, H, 1, np.float64, rng)
    network = random_network("gru", 1)
    right = network.right.params.vector.copy()
    network.load_weights_from(one_way, np.arange(V), None)
    assert (network.left.params["0.Whh"] == one_way.params["0.Whh"]).all()
    assert (network.right.params.vector == right).all()
    assert network.left.params["Why"].shape == (O, H)
    other = random_network("gru", 1)
    other.load_weights_from(network, np.arange(V), np.arange(O))
    assert (other.params.vector == network.params.vector).all()


def test_the_options_choose_the_network() -> None:
    assert type(make_network(Config(predict="tags", bidirectional=True), V, O)) is Bidirectional
    assert type(make_network(Config(predict="tags"), V, O)) is Network
    for predict in ("next", "text"):
        with pytest.raises(UsageError, match="--bidirectional: a text that is to be continued"):
            Config(predict=predict, bidirectional=True)


def test_weights_of_both_sides_need_both_sides(tmp_path: Path) -> None:
    text, path = "ab\tX\ncd\tY\nabc\tX\ncde\tY\n" * 3, tmp_path / "a.npz"
    options: dict[str, Any] = {"predict": "label", "hidden_size": 4, "max_steps": 1}
    charrnn.train(text, bidirectional=True, output=path, **options)
    assert charrnn.train(text, bidirectional=True, init_from=path, **options).config.bidirectional
    for others in (options, {"max_steps": 1}):
        with pytest.raises(UsageError, match=r"a\.npz: a bidirectional model; its weights need"):
            charrnn.train(text, init_from=path, **{**others, "hidden_size": 4})
