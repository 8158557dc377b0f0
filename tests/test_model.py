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
def text() -> str:
    return "".join(f"{i} plus {i % 7} is {i + i % 7}.\n" for i in range(400))


@pytest.fixture(scope="module")
def run(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "run.npz"
    charrnn.train(text, output=path, **OPTIONS)
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> charrnn.Model:
    return charrnn.load(run)


def test_train_and_load_give_the_same_model(text: str, model: charrnn.Model) -> None:
    trained = charrnn.train(text, **OPTIONS)
    assert (trained.stack.p.vector == model.stack.p.vector).all()
    assert "".join(trained.sample(100, seed=3)) == "".join(model.sample(100, seed=3))
    assert trained.header["best"]["val_loss"] == model.header["best"]["val_loss"]


def test_length_counts_new_characters(model: charrnn.Model) -> None:
    assert len("".join(model.sample(50, prime="1 plus"))) == 50
    assert list(model.sample(0)) == []
    assert len(list(model.sample(seed=0))) == 2000


def test_until_is_drawn_and_ends_each_text_by_itself(model: charrnn.Model) -> None:
    whole = list(model.samples(4, 300, seed=1))
    ended = list(model.samples(4, 300, seed=1, until="."))
    for stream in range(4):
        text = "".join(step[stream] for step in whole)
        got = "".join(step[stream] for step in ended)
        end = text.find(".")
        assert got == (text if end < 0 else text[: end + 1])
    assert len(ended) < 300


def test_score_is_a_value_for_each_character(text: str, model: charrnn.Model) -> None:
    nats = model.score(text[:500])
    assert nats.shape == (500,)
    assert (nats > 0).all()
    assert model.score("").shape == (0,)
    # the first character follows a newline: it is scored as in the text, where it does
    assert model.score("1 plus")[0] == pytest.approx(model.score("\n1 plus")[1], rel=0.5)


def test_score_of_a_drawn_text_is_its_probability(model: charrnn.Model) -> None:
    """A text's score is that of the distribution which it is drawn from: at the likeliest, the least surprise."""
    drawn = "".join(model.sample(1, temp=0))
    others = [model.score(c)[0] for c in model.vocabulary.symbols]
    assert np.argmin(others) == model.vocabulary.symbols.index(drawn)
    assert np.exp(-np.array(others)).sum() == pytest.approx(1, rel=1e-5)


def test_unknown_characters(model: charrnn.Model) -> None:
    with pytest.raises(UnknownCharacterError, match=r"'é' .*offset 1"):
        model.score("1é")
    with pytest.raises(UnknownCharacterError):
        model.sample(5, prime="é")
    assert (model.score("1é2", unknown="skip") == model.score("12")).all()
    skipped = model.sample(20, prime="1é2", seed=0, unknown="skip")
    assert "".join(skipped) == "".join(model.sample(20, prime="12", seed=0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(prime=st.text(max_size=20))
def test_a_prime_in_any_language_is_named_or_left_out(model: charrnn.Model, prime: str) -> None:
    known = "".join(c for c in prime if c in model.vocabulary.symbols)
    got = "".join(model.sample(3, prime=prime, unknown="skip", seed=0))
    assert got == "".join(model.sample(3, prime=known, seed=0))
    if known != prime:
        with pytest.raises(UnknownCharacterError):
            model.sample(3, prime=prime)


@pytest.mark.parametrize("options", [{"length": -1}, {"until": ""}, {"temp": -1.0}, {"num_samples": 0}])
def test_options_outside_their_range(model: charrnn.Model, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        model.samples(**{"num_samples": 1, **options})


def test_an_export_holds_the_weights_and_nothing_of_the_run(model: charrnn.Model, run: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "full.npz")
    model.save(tmp_path / "half.npz", half=True)
    header, arrays = checkpoint.load(tmp_path / "full.npz")
    assert arrays.keys() == {"best_weights"}
    assert header["kind"] == "model"
    assert not header.keys() & {"command", "corpus", "history", "samples", "notes"}
    full, half = charrnn.load(tmp_path / "full.npz"), charrnn.load(tmp_path / "half.npz")
    assert (full.stack.p.vector == model.stack.p.vector).all()
    np.testing.assert_allclose(half.stack.p.vector, model.stack.p.vector, rtol=1e-3, atol=1e-7)
    assert half.stack.p.vector.dtype == np.float32
    assert (tmp_path / "half.npz").stat().st_size < 0.7 * (tmp_path / "full.npz").stat().st_size
    charrnn.load(tmp_path / "half.npz").save(tmp_path / "again.npz", half=True)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "half.npz").read_bytes()
    with pytest.raises(CheckpointError, match="best weights alone"):
        charrnn.load(tmp_path / "full.npz", last=True)


def test_last_weights(run: Path) -> None:
    _, arrays = checkpoint.load(run)
    model = charrnn.load(run, last=True)
    assert (model.stack.p.vector == arrays["last_weights"]).all()
    assert model.header["best"] == {"step": 30, "val_loss": model.header["history"][-1]["val_loss"]}
    assert model.header["test_loss"] is None  # that of the best weights is not theirs


def test_damaged_headers_and_weights(run: Path, tmp_path: Path) -> None:
    header, arrays = checkpoint.load(run)
    path = tmp_path / "x.npz"
    config = {**header["config"], "hidden_size": 13}
    for changed, weights in [
        ({**header, "config": config}, arrays["best_weights"]),
        ({k: v for k, v in header.items() if k != "vocabulary"}, arrays["best_weights"]),
        ({**header, "config": {**config, "hidden_size": "12"}}, arrays["best_weights"]),
        ({**header, "config": {**config, "colour": "red"}}, arrays["best_weights"]),
        (header, arrays["best_weights"][:-1]),
        (header, arrays["best_weights"].astype(int)),
    ]:
        checkpoint.save(path, changed, {"best_weights": weights})
        with pytest.raises(CheckpointError, match="damaged"):
            charrnn.load(path)


def test_streams_are_lazy(model: charrnn.Model) -> None:
    assert len("".join(itertools.islice(model.sample(10**9, seed=0), 10))) == 10
