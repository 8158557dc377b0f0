import math

import numpy as np
import pytest

from charrnn import affine
from charrnn.config import CELLS
from charrnn.network import Network, Stepper, num_parameters
from tests.conftest import assert_close, assert_gradients_match, numeric, random_network

T, B, V, H = 5, 3, 7, 4  # V and H of random_network


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_match_central_differences(cell: str, num_layers: int, dropout: bool) -> None:
    rng, network = np.random.default_rng(num_layers), random_network(cell, num_layers)
    xs, ys = rng.integers(0, V, (2, T, B))
    ys[2, 1] = -1
    assert_gradients_match(network, xs, ys, rng, dropout)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_batches_with_a_carried_state_match_the_whole(cell: str) -> None:
    rng = np.random.default_rng(0)
    network = Network(cell, V, H, 2, np.float64, rng)
    xs, ys = rng.integers(0, V, (2, 9, B))
    whole, last = network.loss_and_grad(
        xs, ys, network.zero_state(B), network.new_tape(9, B), scale=1
    )
    state, chunks, tape = network.zero_state(B), [], network.new_tape(4, B)
    for t in (0, 4, 8):
        chunk = tape.slice(0, min(4, 9 - t))
        nats, state = network.loss_and_grad(xs[t : t + 4], ys[t : t + 4], state, chunk, scale=1)
        chunks.append(nats)
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("B", [1, 3])
def test_stepper_matches_forward(cell: str, B: int) -> None:
    rng, network = np.random.default_rng(0), random_network(cell, 2)
    xs, tape = rng.integers(0, V, (T, B)), network.new_tape(T, B)
    state = rng.standard_normal(network.zero_state(B).shape)
    network.forward(xs, state, tape)
    step = Stepper(network, state)
    for ids, logits in zip(xs, tape.logits, strict=True):
        np.testing.assert_allclose(step(ids), logits, rtol=0, atol=1e-12)


def test_gradients_of_a_large_vocabulary() -> None:
    rng = np.random.default_rng(0)
    many = affine.MAX_ONE_HOT + 2
    network = Network("gru", many, 3, 1, np.float64, rng)
    xs, ys = rng.integers(0, many, (2, T, B))
    state, tape = network.zero_state(B), network.new_tape(T, B)
    network.loss_and_grad(xs, ys, state, tape, scale=1)
    used = np.unique(xs)
    dWxh, Wxh = network.grads["0.Wxh"][:, used].copy(), network.params["0.Wxh"][:, used].copy()

    def loss() -> float:
        network.params["0.Wxh"][:, used] = Wxh
        nats, _ = network.replica().loss_and_grad(xs, ys, state, tape, scale=1)
        return float(nats.sum())

    assert np.count_nonzero(network.grads["0.Wxh"].any(0)) == len(used)
    assert_close(dWxh, numeric(loss, Wxh))


def test_forward_does_not_change_its_state() -> None:
    rng = np.random.default_rng(0)
    network = Network("lstm", V, H, 2, np.float64, rng)
    state = rng.standard_normal(network.zero_state(B).shape)
    before, xs = state.copy(), np.zeros((T, B), int)
    network.loss_and_grad(xs, xs, state, network.new_tape(T, B), scale=1)
    assert (state == before).all()


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_initial_loss_is_close_to_ln_V(cell: str) -> None:  # noqa: N802
    rng = np.random.default_rng(0)
    network = Network(cell, 65, 128, 2, np.float32, rng)
    xs, ys = rng.integers(0, 65, (2, 50, 20))
    nats, _ = network.loss_and_grad(
        xs, ys, network.zero_state(20), network.new_tape(50, 20), scale=1
    )
    assert nats.mean() == pytest.approx(math.log(65), abs=0.05)


def test_recurrent_weights_start_orthogonal() -> None:
    network = Network("gru", V, H, 2, np.float64, np.random.default_rng(0))
    for gate in network.params["1.Whh"].reshape(-1, H, H):
        np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-12)


def test_input_weights_start_with_variance_one() -> None:
    network = Network("gru", 65, 100, 2, np.float64, np.random.default_rng(0))
    assert network.params["0.Wxh"].std() == pytest.approx(1, rel=0.02)
    for name in ("1.Wxh", "Why"):
        assert 0.099 < np.abs(network.params[name]).max() <= 0.1
    assert not network.params["0.bh"].any()
    assert not network.params["by"].any()


def test_dropout_masks_keep_the_mean() -> None:
    network = Network("gru", V, 64, 2)
    masks = network.dropout_masks(np.random.default_rng(0), 50, 40, 0.75)
    assert masks.shape == (2, 50, 64, 40)
    assert masks.dtype == np.float32
    assert set(np.unique(masks)) == {0, np.float32(1 / 0.75)}
    assert masks.mean() == pytest.approx(1, abs=0.01)


def test_dropout_does_not_touch_the_recurrence() -> None:
    rng = np.random.default_rng(0)
    network = Network("gru", V, H, 1, np.float64, rng)
    xs, tape = rng.integers(0, V, (T, B)), network.new_tape(T, B)
    plain = network.forward(xs, network.zero_state(B), tape)
    masked = network.forward(xs, network.zero_state(B), tape, np.zeros((1, T, H, B)))
    assert (plain == masked).all()
    assert (tape.logits == network.params["by"][:, None]).all()


def test_copy_is_independent_and_can_change_dtype() -> None:
    network = Network("vanilla", V, H, 1, np.float32, np.random.default_rng(0))
    other = network.copy(np.float64)
    assert other.params.vector.dtype == np.float64
    assert (other.params.vector == network.params.vector).all()
    other.params["by"][:] = 1
    assert not network.params["by"].any()


def test_number_of_parameters() -> None:
    assert num_parameters("vanilla", 65, 100, 1) == 23_165  # min-char-rnn's
    assert num_parameters("lstm", 65, 128, 2) == 239_297  # char-rnn's default, with one bias
