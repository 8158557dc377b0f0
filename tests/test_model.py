"""The Python API: train, load, sample, nll, save."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charrnn
from charrnn.errors import CheckpointError, UnknownCharacterError, UsageError
from charrnn.storage import checkpoint
from tests import forge
from tests.conftest import read_run

OPTIONS: dict[str, Any] = {"hidden_size": 12, "max_steps": 30, "batch_size": 8, "seq_length": 16}


@pytest.fixture(scope="module")
def model(trained: Path) -> charrnn.Model:
    return charrnn.load(trained / "checkpoints" / "corpus.npz")


# --- train and load ---


def test_trained_model_equals_the_loaded_one(text: str, model: charrnn.Model) -> None:
    trained = charrnn.train(text, threads=2, **OPTIONS)
    assert (trained.network.params.vector == model.network.params.vector).all()
    assert "".join(trained.sample(100, seed=3)) == "".join(model.sample(100, seed=3))
    assert trained.state.best == model.state.best


def test_last_weights_are_loaded_with_their_loss(run: Path) -> None:
    state, (_, arrays) = read_run(run), checkpoint.read_checkpoint(run)
    checkpoint.write_checkpoint(run, state, {**arrays, "best_weights": arrays["best_weights"] / 2})
    model = charrnn.load(run, last=True)
    assert (model.network.params.vector == arrays["last_weights"]).all()
    assert model.state.best == {"step": 30, "val_loss": state.history[-1]["val_loss"]}
    assert model.state.test_loss is None  # it was measured with the best weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": "2"}, "invalid threads: '2'; must be an int from 1 to 1024"),
        ({"threads": 0}, "invalid threads: 0; must be an int from 1 to 1024"),
        ({"encoding": "latin-1"}, "encoding latin-1 needs a text of bytes, not a str"),
        ({"val": "a str", "encoding": "cp1252"}, "encoding cp1252 needs a text of bytes"),
        ({"cell": "transformer"}, "invalid cell: 'transformer'"),
    ],
)
def test_train_refuses_invalid_options(options: dict[str, Any], message: str) -> None:
    text = b"bytes" * 50 if "val" in options else "text" * 50
    with pytest.raises(UsageError, match=message):
        charrnn.train(text, **options)


def test_bytes_are_decoded_before_training() -> None:
    text = "für é\n" * 50
    small: dict[str, Any] = {"hidden_size": 4, "max_steps": 2}
    model = charrnn.train(text.encode("latin-1"), encoding="latin-1", **small)
    assert (model.nll(text) == charrnn.train(text, **small).nll(text)).all()


@pytest.mark.parametrize("name", ["hidden_size", "best_weights"])
def test_load_refuses_weights_that_do_not_fit(tmp_path: Path, name: str) -> None:
    state, weights = forge.model_state(), forge.ARRAYS["best_weights"]
    if name == "best_weights":
        weights = weights[:-1]
    else:
        state.config = charrnn.Config(hidden_size=65536, num_layers=64, unit="jamo")  # 824 GB
    checkpoint.write_checkpoint(tmp_path / "x.npz", state, {"best_weights": weights})
    with pytest.raises(CheckpointError, match=r"best_weights.npy has shape \(\d+,\), expected"):
        charrnn.load(tmp_path / "x.npz")


def test_init_from_keeps_the_weights_of_known_symbols(
    text: str, model: charrnn.Model, trained: Path, tmp_path: Path
) -> None:
    other, path = text.lower() + "#é", trained / "checkpoints" / "corpus.npz"
    model.save(tmp_path / "exported.npz")
    charrnn.train(other, output=tmp_path / "fresh.npz", **OPTIONS)
    fresh_loss = read_run(tmp_path / "fresh.npz").initial_loss
    for file in (path, tmp_path / "exported.npz"):
        options: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.0}
        options |= {"output": tmp_path / "new.npz", "force": True}
        new = charrnn.train(other, init_from=file, **options)
        assert new.vocabulary.symbols == "".join(sorted({*text, "é", "#"}))
        ids = new.vocabulary.ids_of(model.vocabulary.codes)
        assert (new.network.params["0.Wxh"][:, ids] == model.network.params["0.Wxh"]).all()
        assert (new.network.params["Why"][ids] == model.network.params["Why"]).all()
        assert (new.network.params["0.Whh"] == model.network.params["0.Whh"]).all()
        state = read_run(tmp_path / "new.npz")
        assert (state.init_from["file"], state.init_from["added"]) == (str(file), 2)
        assert state.init_from["unused"] == len(set(text) - set(other))
        assert state.initial_loss < fresh_loss - 0.1
    with pytest.raises(UsageError, match="hidden_size must be 12, as in the initial model, not 17"):
        charrnn.train(other, init_from=path, hidden_size=17)


# --- sample ---


def test_length_counts_new_characters(model: charrnn.Model) -> None:
    assert len("".join(model.sample(50, prime="The king"))) == 50
    assert list(model.sample(0)) == []
    assert len(list(model.sample(seed=0))) == 2000
    assert len("".join(itertools.islice(model.sample(10**9, seed=0), 10))) == 10  # lazily


def test_until_is_sampled_and_ends_each_text(model: charrnn.Model) -> None:
    whole = list(model.sample_batch(4, 300, seed=1))
    ended = list(model.sample_batch(4, 300, seed=1, until="."))
    for k in range(4):
        text = "".join(pieces[k] for pieces in whole)
        end = text.find(".")
        assert "".join(pieces[k] for pieces in ended) == (text if end < 0 else text[: end + 1])
    assert len(ended) < 300


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(prime=st.text(max_size=20))
def test_unknown_characters_of_a_prime_are_named_or_skipped(
    model: charrnn.Model, prime: str
) -> None:
    known = "".join(c for c in prime if c in model.vocabulary.symbols)
    skipped = "".join(model.sample(3, prime=prime, unknown="skip", seed=0))
    assert skipped == "".join(model.sample(3, prime=known, seed=0))
    if known != prime:
        with pytest.raises(UnknownCharacterError):
            model.sample(3, prime=prime)


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
def test_lone_surrogates_in_prime_and_stop_string(unit: str) -> None:
    model = charrnn.train("some text\n" * 30, hidden_size=4, max_steps=1, unit=unit)
    sample = model.sample(5, prime="t\ud800", unknown="skip", until="\udfff")
    assert len("".join(sample)) == 5
    with pytest.raises(UnknownCharacterError):
        model.sample(5, prime="t\ud800")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": -1}, "length must be at least 0, not -1"),
        ({"until": ""}, "the stop string must not be empty"),
        ({"temp": -1.0}, "temperature must be at least 0"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"unknown": "cost"}, "invalid unknown: 'cost'; must be one of error, skip"),
    ],
)
def test_sample_refuses_invalid_options(
    model: charrnn.Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        model.sample_batch(**{"num_samples": 1, **options})


# --- nll ---


def test_nll_is_a_value_per_character(text: str, model: charrnn.Model) -> None:
    nll = model.nll(text[:500])
    assert nll.shape == (500,)
    assert (nll > 0).all()
    assert model.nll("").shape == (0,)
    # the first character follows a newline, and so it does here
    assert model.nll("The")[0] == pytest.approx(model.nll("\nThe")[1], rel=0.5)


def test_nll_matches_the_sampled_distribution(model: charrnn.Model) -> None:
    most_likely = "".join(model.sample(1, temp=0))
    nll = [model.nll(c)[0] for c in model.vocabulary.symbols]
    assert np.argmin(nll) == model.vocabulary.symbols.index(most_likely)
    assert np.exp(-np.array(nll)).sum() == pytest.approx(1, rel=1e-5)


def test_unknown_characters_are_an_error_skipped_or_cost_the_same(model: charrnn.Model) -> None:
    with pytest.raises(UnknownCharacterError, match=r"'é' .*offset 1"):
        model.nll("Té")
    assert (model.nll("Téh", unknown="skip") == model.nll("Th")).all()
    cost = model.nll("Téh", unknown="cost")
    assert (cost[[0, 2]] == model.nll("Th")).all()
    assert cost[1] == np.log(0x110000)
    with pytest.raises(
        UsageError, match="invalid unknown: 'foo'; must be one of error, skip, cost"
    ):
        model.nll("T", unknown="foo")


def test_bytes_for_a_model_of_characters_are_a_type_error(model: charrnn.Model) -> None:
    for call in (model.nll, model.nll_lines, lambda prime: model.sample(5, prime=prime)):
        with pytest.raises(TypeError, match="bytes"):
            call(b"text")


# --- save ---


def test_exported_model_has_no_training_state(model: charrnn.Model, tmp_path: Path) -> None:
    full, half = tmp_path / "full.npz", tmp_path / "half.npz"
    model.save(full)
    model.save(half, half=True)
    state, arrays = checkpoint.read_checkpoint(full)
    assert state.kind == "model"
    assert arrays.keys() == {"best_weights"}
    assert not {"command", "corpus", "history", "samples", "notes"} & vars(state).keys()
    weights = model.network.params.vector
    assert (charrnn.load(full).network.params.vector == weights).all()
    halved = charrnn.load(half).network.params.vector
    np.testing.assert_allclose(halved, weights, rtol=1e-3, atol=1e-7)
    assert halved.dtype == np.float32
    assert half.stat().st_size < 0.7 * full.stat().st_size
    charrnn.load(half).save(tmp_path / "again.npz", half=True)
    assert (tmp_path / "again.npz").read_bytes() == half.read_bytes()
    with pytest.raises(CheckpointError, match="an exported model contains only one set of weights"):
        charrnn.load(full, last=True)
