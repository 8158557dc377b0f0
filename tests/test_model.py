"""The Python API: train, load, sample, nll, save."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charrnn
from charrnn.blas import find_library
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
    trained = charrnn.train(text, **OPTIONS)
    assert (trained.network.params.vector == model.network.params.vector).all()
    assert "".join(trained.sample(100, seed=3)) == "".join(model.sample(100, seed=3))
    assert trained.state.best == model.state.best


@pytest.mark.parametrize(("averaged", "name"), [(0, "last_weights"), (3, "average_weights")])
def test_last_weights_are_loaded_with_their_loss(run: Path, averaged: int, name: str) -> None:
    state, (_, arrays) = read_run(run), checkpoint.read_checkpoint(run)
    state.num_averaged = averaged
    checkpoint.write_checkpoint(run, state, {**arrays, "best_weights": arrays["best_weights"] / 2})
    model = charrnn.load(run, last=True)
    assert (model.network.params.vector == arrays[name]).all()
    assert model.state.best == {"step": 30, "val_loss": state.history[-1]["val_loss"]}
    assert model.state.test_loss is None  # it was measured with the best weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": "2"}, "invalid workers: '2'; must be an int from 1 to 1024"),
        ({"workers": 0}, "invalid workers: 0; must be an int from 1 to 1024"),
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


def test_existing_file_is_replaced_only_with_force(text: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {**OPTIONS, "max_steps": 2, "output": tmp_path / "a.npz"}
    model = charrnn.train(text, **options)
    with pytest.raises(UsageError, match=r"a\.npz already exists; use force=True to overwrite it"):
        charrnn.train(text, **options)
    with pytest.raises(UsageError, match="use force=True"):
        model.save(tmp_path / "a.npz")
    model.save(tmp_path / "a.npz", force=True)
    assert charrnn.load(tmp_path / "a.npz").state.kind == "model"
    charrnn.train(text, force=True, **options)
    assert charrnn.load(tmp_path / "a.npz").state.kind == "run"


def test_paths_are_read_and_names_are_no_texts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "corpus.txt"
    file.write_bytes(text.encode())
    wanted = charrnn.train(text, **OPTIONS).network.params.vector
    model = charrnn.train(file, **OPTIONS)
    assert (model.network.params.vector == wanted).all()
    assert charrnn.train([file], val=file, **OPTIONS).state.corpus["num_files"] == 1  # type: ignore
    with pytest.raises(UsageError, match=r"'corpus.txt' would be the text, but is a file; give"):
        charrnn.train("corpus.txt", **OPTIONS)
    with pytest.raises(UsageError, match="texts or paths, not both"):
        charrnn.train([file, "a text"], **OPTIONS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("hiden_size", "hidden_size"), ("lr", "learning_rate"), ("outptu", "output")],
)
def test_unknown_keyword_names_the_nearest_one(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"unknown option '{name}'; did you mean {meant}?"):
        charrnn.train("some text", **{name: 1})  # type: ignore[arg-type]


def test_callback_knows_what_the_bar_knows_and_ends_the_training(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    options: dict[str, Any] = {**OPTIONS, "max_steps": 20, "eval_every": 5}
    model = charrnn.train(text, on_step=seen.append, progress=True, **options)
    assert [p.step for p in seen] == [*range(1, 21)]
    assert {p.steps for p in seen} == {20}
    assert [p.step for p in seen if p.val_loss is not None] == [5, 10, 15, 20]
    assert [p.val_loss for p in seen if p.val_loss is not None] == [
        row["val_loss"] for row in model.history
    ]
    assert all(p.characters_per_second > 0 for p in seen)
    assert seen[-1].seconds_left == 0
    assert "step 20" in capsys.readouterr().err
    stopped = charrnn.train(text, on_step=lambda p: p.step == 7, **options)
    assert stopped.state.step == 7


def test_model_describes_itself(text: str, tmp_path: Path) -> None:
    model = charrnn.train(text, **{**OPTIONS, "seed": 3})
    assert model.config.seed == 3
    assert model.history[-1]["step"] == model.state.step
    assert set(model.baselines["val"]) >= {"uniform", "1-gram"}
    loss = f"validation {model.state.best['val_loss']:.4f} nats per character"
    assert re.fullmatch(
        rf"<charrnn.Model: gru 1x\d+, [\d,]+ parameters, step \d+, {loss}, "
        rf"trained on text>",
        repr(model),
    )
    html = model._repr_html_()
    assert html.startswith('<iframe sandbox=""')
    assert "&lt;svg" in html
    assert "<svg" not in html
    model.save(tmp_path / "exported.npz")
    exported = charrnn.load(tmp_path / "exported.npz")
    assert (exported.history, exported.baselines) == ([], {"val": {}, "test": {}})
    assert exported._repr_html_().startswith("<p>&lt;charrnn.Model: ")
    public = {name for name in dir(charrnn) if not name.startswith("__")}
    assert public == {"Config", "Model", "load", "train"}


def test_linear_algebra_is_limited_to_one_thread_meanwhile(text: str) -> None:
    library = find_library()
    if library is None:
        pytest.skip("the threads of this library cannot be set")
    before = library.get_threads()
    library.set_threads(2)
    try:
        if library.get_threads() != 2:
            pytest.skip("built without threads")
        inside: list[int] = []
        options: dict[str, Any] = {**OPTIONS, "max_steps": 2}
        model = charrnn.train(
            text, on_step=lambda _: inside.append(library.get_threads()), **options
        )
        assert inside == [1, 1]
        pieces = model.sample(5)
        next(pieces)
        assert library.get_threads() == 2  # between the characters
        model.nll("The")
        assert library.get_threads() == 2
    finally:
        library.set_threads(before)


def test_library_of_numpy_is_limited_beside_that_of_another_package(tmp_path: Path) -> None:
    folder = Path(np.__file__).parent.with_name("numpy.libs")
    names = [path.name for path in folder.glob("*openblas*")]
    if not names:
        pytest.skip("this NumPy comes without OpenBLAS")
    other = tmp_path / "libs"  # before that of NumPy in the order of names
    shutil.copytree(folder, other)
    (other / names[0]).rename(other / "libopenblas.so")
    code = f"""if True:
        import ctypes
        ctypes.CDLL({str(other / "libopenblas.so")!r})
        from charrnn.blas import find_library
        get_threads = find_library().get_threads
        expected = ctypes.CDLL({str(folder / names[0])!r})[get_threads.__name__]
        address = lambda function: ctypes.cast(function, ctypes.c_void_p).value
        assert address(get_threads) == address(expected)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not result.returncode, result.stderr


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


def test_unknown_characters_cost_the_same_or_are_an_error(model: charrnn.Model) -> None:
    with pytest.raises(UnknownCharacterError, match=r"'é' .*offset 1"):
        model.nll("Té", unknown="error")
    cost = model.nll("Téh")
    assert (cost[[0, 2]] == model.nll("Th")).all()
    assert cost[1] == np.log(0x110000)
    with pytest.raises(UsageError, match="invalid unknown: 'foo'; must be one of cost, error"):
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
    assert arrays.keys() == {"best_weights", "counts"}
    assert not {"command", "corpus", "history", "samples", "notes"} & vars(state).keys()
    weights = model.network.params.vector
    assert (charrnn.load(full).network.params.vector == weights).all()
    halved = charrnn.load(half).network.params.vector
    np.testing.assert_allclose(halved, weights, rtol=1e-3, atol=1e-7)
    assert halved.dtype == np.float32
    model.save(tmp_path / "small.npz", half=True, counts=False)
    assert checkpoint.read_checkpoint(tmp_path / "small.npz")[1].keys() == {"best_weights"}
    sizes = [path.stat().st_size for path in (tmp_path / "small.npz", half, full)]
    assert sizes[0] < sizes[1] < 0.8 * sizes[2]
    charrnn.load(half).save(tmp_path / "again.npz", half=True)
    assert (tmp_path / "again.npz").read_bytes() == half.read_bytes()
    with pytest.raises(CheckpointError, match="an exported model contains only one set of weights"):
        charrnn.load(full, last=True)
