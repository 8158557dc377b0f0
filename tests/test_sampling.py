import itertools
from typing import Any

import numpy as np
import pytest

from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.sampling import CHUNK_STEPS, generate_ids, num_processes, sample_logits
from charrnn.text.vocabulary import Vocabulary
from tests.conftest import random_network

LOGITS = np.log(np.array([[0.5, 0.2, 0.2, 0.1]]))


def frequencies(n: int = 40_000, **options: Any) -> np.ndarray:
    """Return how often each of four symbols is sampled; the uniform numbers are evenly spread."""
    uniforms = (np.arange(n) + 0.5) / n
    ids = sample_logits(np.repeat(LOGITS, n, axis=0), uniforms, **{"temp": 1.0, **options})
    return np.bincount(ids, minlength=4) / n


def test_symbols_are_sampled_by_their_probability() -> None:
    np.testing.assert_allclose(frequencies(), [0.5, 0.2, 0.2, 0.1], atol=1e-4)


def test_temperature_is_a_power_of_the_probability() -> None:
    p = np.array([0.5, 0.2, 0.2, 0.1]) ** 2
    np.testing.assert_allclose(frequencies(temp=0.5), p / p.sum(), atol=1e-4)
    np.testing.assert_allclose(frequencies(temp=1e6), [0.25] * 4, atol=1e-4)


def test_top_k_and_top_p_keep_the_most_likely() -> None:
    np.testing.assert_allclose(frequencies(top_k=2), [5 / 7, 2 / 7, 0, 0], atol=1e-4)
    np.testing.assert_allclose(frequencies(top_k=9), [0.5, 0.2, 0.2, 0.1], atol=1e-4)
    np.testing.assert_allclose(frequencies(top_p=0.6), [5 / 7, 2 / 7, 0, 0], atol=1e-4)
    np.testing.assert_allclose(frequencies(top_p=0.4), [1, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(frequencies(top_p=1.0), [0.5, 0.2, 0.2, 0.1], atol=1e-4)
    np.testing.assert_allclose(frequencies(top_k=3, top_p=0.5), [1, 0, 0, 0], atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e300])
@pytest.mark.parametrize("temp", [0, 5e-324, 1e-300, 1e-9, 1e-3, 1, 1e3, 1e6])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_every_temperature_gives_a_valid_id(scale: float, temp: float, u: float) -> None:
    logits = scale * np.array([[-1.0, 1.0, 0.5, 1.0, -1e3]])
    for options in ({}, {"top_k": 2}, {"top_p": 0.9}):
        (i,) = sample_logits(logits, np.array([u]), temp, **options)
        assert 0 <= i < 5
        if temp <= 1e-9:
            assert i in (1, 3)
        if temp == 0:
            assert i == 1


def test_top_k_applies_at_a_huge_temperature() -> None:
    for logits in (np.array([[-1.0, 1.0, 0.5]]), np.array([[-1.0, 1.0, 0.5]] * 2)):
        for u in (0.0, 0.4, 0.6, 0.99):
            assert set(sample_logits(logits, np.full(len(logits), u), 1e300, top_k=2)) <= {1, 2}


def test_probability_zero_is_never_sampled() -> None:
    logits = np.array([[-1e9, 0.0, -1e9, 0.0, -1e9]])
    for u in (0.0, 0.5, np.nextafter(0.5, 0), 1 - 2**-53):
        assert sample_logits(logits, np.array([u]), 1.0)[0] in (1, 3)


def network_and_vocabulary() -> tuple[Network, Vocabulary]:
    v = Vocabulary.from_text("abcdefg\n")
    return Network("gru", len(v), 16, 2, np.float32, np.random.default_rng(3)), v


def text(n: int = 60, seed: int = 5, **options: Any) -> list[str]:
    network, v = network_and_vocabulary()
    id_stream = generate_ids(network, v, np.random.default_rng(seed), **options)
    return [v.decode(np.array(ids)) for ids in zip(*itertools.islice(id_stream, n), strict=True)]


def test_same_seed_same_text() -> None:
    assert text() == text()
    assert text() != text(seed=6)
    assert text(num_samples=3) == text(num_samples=3)
    assert len(set(text(num_samples=3))) == 3


@pytest.mark.parametrize(
    "length", [0, 1, 2, CHUNK_STEPS, CHUNK_STEPS + 1, CHUNK_STEPS + 2, 3 * CHUNK_STEPS]
)
def test_prime_is_read_exactly_or_else_the_start_symbol(length: int) -> None:
    network, v = network_and_vocabulary()
    for name in (
        "0.Wxh",
        "1.Wxh",
        "Why",
    ):  # so that every character matters; Whh unchanged, or rounding would grow
        network.params[name][:] *= 5
    prime = np.random.default_rng(length).integers(0, len(v), length)
    id_stream = generate_ids(network, v, np.random.default_rng(0), prime=prime, temp=0)
    read = [*(prime if length else v.encode("\n"))]
    for _ in range(20):
        tape = network.new_tape(len(read), 1)
        network.forward(np.array(read)[:, None], network.zero_state(1), tape)
        read.append(next(id_stream)[0])
        assert read[-1] == tape.logits[-1, :, 0].argmax()


def test_argmax_streams_are_equal() -> None:
    a, b = text(temp=0, num_samples=2)
    assert a == b == text(temp=0, seed=1)[0]


@pytest.mark.parametrize(
    "options",
    [{"temp": -1}, {"temp": np.nan}, {"temp": np.inf}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}],
)
def test_options_outside_their_range_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        text(**options)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_sample_what_one_does(workers: int) -> None:
    network, v = random_network("gru", 2), Vocabulary.from_text("abcdefg")
    streams = [
        generate_ids(network, v, np.random.default_rng(0), num_samples=50, workers=n, top_k=5)
        for n in (1, workers)
    ]
    one, several = (np.array([*itertools.islice(stream, 70)]) for stream in streams)
    assert one.shape == (70, 50)
    assert (one == several).all()
    assert num_processes(50, workers) == workers
    assert [num_processes(n, 4) for n in (1, 31, 32, 1000)] == [1, 1, 2, 4]
