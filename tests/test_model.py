import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charrnn
from charrnn import checkpoint
from charrnn.errors import CheckpointError, UnknownCharacterError, UsageError

OPTIONS: dict[str, Any] = {"hidden_size": 12, "max_steps": 30, "batch_size": 8, "seq_length": 16}


@pytest.fixture(scope="module")
def path(trained: Path) -> Path:
    return trained / "checkpoints" / "corpus.npz"


@pytest.fixture(scope="module")
def model(path: Path) -> charrnn.Model:
    return charrnn.load(path)


def test_train_gives_the_model_of_the_command(text: str, model: charrnn.Model) -> None:
    trained = charrnn.train(text, threads=2, **OPTIONS)
    assert (trained.stack.p.vector == model.stack.p.vector).all()
    assert "".join(trained.sample(100, seed=3)) == "".join(model.sample(100, seed=3))
    assert trained.header["best"]["val_loss"] == model.header["best"]["val_loss"]


# --- sampling ---


def test_length_counts_new_characters(model: charrnn.Model) -> None:
    assert len("".join(model.sample(50, prime="A king"))) == 50
    assert list(model.sample(0)) == []
    assert len(list(model.sample(seed=0))) == 2000
    assert len(list(itertools.islice(model.sample(10**9, seed=0), 10))) == 10  # generated lazily


def test_until_ends_each_sample_separately(model: charrnn.Model) -> None:
    whole = list(model.samples(4, 300, seed=1))
    ended = list(model.samples(4, 300, seed=1, until="."))
    for stream in range(4):
        text = "".join(step[stream] for step in whole)
        got = "".join(step[stream] for step in ended)
        end = text.find(".")
        assert got == (text if end < 0 else text[: end + 1])
    assert len(ended) < 300


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(prime=st.text(max_size=20))
def test_unknown_characters_of_a_prime_are_named_or_left_out(
    model: charrnn.Model, prime: str
) -> None:
    known = "".join(c for c in prime if c in model.vocabulary.symbols)
    got = "".join(model.sample(3, prime=prime, unknown="skip", seed=0))
    assert got == "".join(model.sample(3, prime=known, seed=0))
    if known != prime:
        with pytest.raises(UnknownCharacterError):
            model.sample(3, prime=prime)


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
def test_lone_surrogates_are_unknown_characters(unit: str) -> None:
    model = charrnn.train("some text\n" * 30, hidden_size=4, max_steps=1, unit=unit)
    sample = model.sample(5, prime="t\ud800", unknown="skip", until="\udfff")
    assert len("".join(sample)) == 5
    with pytest.raises(UnknownCharacterError):
        model.sample(5, prime="t\ud800")


@pytest.mark.parametrize(
    "options", [{"length": -1}, {"until": ""}, {"temp": -1.0}, {"num_samples": 0}]
)
def test_options_outside_their_range_are_rejected(
    model: charrnn.Model, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        model.samples(**{"num_samples": 1, **options})


# --- scoring ---


def test_score_is_a_value_for_each_character(text: str, model: charrnn.Model) -> None:
    nats = model.score(text[:500])
    assert nats.shape == (500,)
    assert (nats > 0).all()
    assert model.score("").shape == (0,)
    # the first character is scored as if it followed a newline
    assert model.score("A king")[0] == pytest.approx(model.score("\nA king")[1], rel=0.5)
    with pytest.raises(UnknownCharacterError, match=r"'é' .*offset 1"):
        model.score("aé")
    assert (model.score("aén", unknown="skip") == model.score("an")).all()


def test_scores_are_those_of_the_distribution_that_is_sampled(model: charrnn.Model) -> None:
    nats = np.array([model.score(c)[0] for c in model.vocabulary.symbols])
    assert model.vocabulary.symbols[nats.argmin()] == "".join(model.sample(1, temp=0))
    assert np.exp(-nats).sum() == pytest.approx(1, rel=1e-5)


# --- files ---


def test_exported_model_has_no_training_state(
    model: charrnn.Model, path: Path, tmp_path: Path
) -> None:
    full, half, again = (tmp_path / f"{name}.npz" for name in ("full", "half", "again"))
    model.save(full)
    model.save(half, half=True)
    header, arrays = checkpoint.load(full)
    assert arrays.keys() == {"best_weights"}
    assert header["kind"] == "model"
    assert not header.keys() & {"command", "corpus", "history", "samples", "notes"}
    weights = model.stack.p.vector
    assert (charrnn.load(full).stack.p.vector == weights).all()
    np.testing.assert_allclose(charrnn.load(half).stack.p.vector, weights, rtol=1e-3, atol=1e-7)
    assert charrnn.load(half).stack.p.vector.dtype == np.float32
    assert half.stat().st_size < 0.7 * full.stat().st_size
    charrnn.load(half).save(again, half=True)
    assert again.read_bytes() == half.read_bytes()
    with pytest.raises(CheckpointError, match="best weights alone"):
        charrnn.load(full, last=True)


def test_last_weights_are_loaded_with_their_own_losses(path: Path) -> None:
    model = charrnn.load(path, last=True)
    assert (model.stack.p.vector == checkpoint.load(path)[1]["last_weights"]).all()
    assert model.header["best"] == {"step": 30, "val_loss": model.header["history"][-1]["val_loss"]}
    assert model.header["test_loss"] is None  # which is that of the best weights


def test_init_from_keeps_the_weights_of_known_symbols(
    text: str, model: charrnn.Model, path: Path, tmp_path: Path
) -> None:
    other = text.lower() + "#é"
    model.save(tmp_path / "exported.npz")
    fresh = charrnn.train(other, **OPTIONS)
    for file in (path, tmp_path / "exported.npz"):
        new = charrnn.train(other, init_from=file, max_steps=3, learning_rate=0.0)
        assert new.vocabulary.symbols == "".join(sorted({*text, "é", "#"}))
        rows = [new.vocabulary.symbols.index(symbol) for symbol in model.vocabulary.symbols]
        assert (new.stack.p["0.Wxh"][:, rows] == model.stack.p["0.Wxh"]).all()
        assert (new.stack.p["Why"][rows] == model.stack.p["Why"]).all()
        assert (new.stack.p["0.Whh"] == model.stack.p["0.Whh"]).all()
        origin = new.header["init_from"]
        assert (origin["file"], origin["added"]) == (str(file), 2)
        assert origin["unused"] == len(set(text) - set(other))
        assert new.header["initial_loss"] < fresh.header["initial_loss"] - 0.1
    with pytest.raises(UsageError, match=r"hidden_size is 12 in .* cannot be 17"):
        charrnn.train(other, init_from=path, hidden_size=17)


@pytest.mark.parametrize("change", ["size", "vocabulary", "type", "key", "weights", "dtype"])
def test_damaged_headers_and_weights_are_rejected(path: Path, tmp_path: Path, change: str) -> None:
    header, arrays = checkpoint.load(path)
    weights = arrays["best_weights"]
    if change == "vocabulary":
        del header["vocabulary"]
    elif change == "weights":
        weights = weights[:-1]
    elif change == "dtype":
        weights = weights.astype(int)
    else:
        changes: dict[str, Any] = {
            "size": {"hidden_size": 13},
            "type": {"hidden_size": "12"},
            "key": {"colour": "red"},
        }
        header["config"] = {**header["config"], **changes[change]}
    checkpoint.save(tmp_path / "x.npz", header, {"best_weights": weights})
    with pytest.raises(CheckpointError, match="damaged"):
        charrnn.load(tmp_path / "x.npz")
