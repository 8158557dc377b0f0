"""Captions: texts about the rows of an array of vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.captioner import Captioner
from charrnn.storage.checkpoint import read_checkpoint
from charrnn.tasks.text import align, word_f1
from tests.conftest import Cli

SIZE = ("--hidden-size", "24", "--batch-size", "10", "--workers", "1", "-q")
WORDS = ["red", "green", "blue", "white"]


def write_pictures(n: int = 120, shape: tuple[int, ...] = (4,)) -> None:
    """Write vectors whose largest number is named by the caption, and the captions."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, n)
    rows = 100 + 0.1 * rng.standard_normal((n, *shape))
    rows[np.arange(n), ..., kinds] += 2
    np.save("vectors.npy", rows.astype(np.float32))
    Path("captions.txt").write_text("".join(f"{WORDS[k]} it is\n" for k in kinds))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures()


TRAIN = ("train", "captions.txt", "--features", "vectors.npy", *SIZE)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("how", ["first", "each"])
def test_captions_are_learned_and_kept_in_order(cli: Cli, how: str) -> None:
    cli(*TRAIN, "--feature-input", how, "--max-steps", "200", "--lr", "0.02", "-o", "m.npz")
    captions = Path("captions.txt").read_text().splitlines()
    for more in ((), ("--beam", "3")):
        written = cli("predict", "m.npz", "vectors.npy", *more).stdout.decode().splitlines()
        assert written == captions
    lines = cli("predict", "m.npz", "vectors.npy", "--json").stdout.decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["row"], row["written"]) for row in rows] == [*enumerate(captions)]
    found = json.loads(
        cli("eval", "m.npz", "captions.txt", "--features", "vectors.npy", "--json").stdout
    )
    assert (found["exact"], found["character_error_rate"], found["word_f1"]) == (1, 0, 1)
    characters = sum(len(caption) + 1 for caption in captions)
    nats = -sum(row["log_probability"] for row in rows) / characters
    assert 0 < found["loss"] == pytest.approx(nats, rel=1e-4)
    found = json.loads(cli("eval", "m.npz", "--split", "val", "--json").stdout)
    assert found["exact"] == 1
    cli("export", "m.npz", "-o", "exported.npz")
    assert cli("predict", "exported.npz", "vectors.npy").stdout.decode().splitlines() == captions


@pytest.mark.usefixtures("pictures")
def test_a_resumed_run_gives_the_same_weights(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "8", "-o", "whole.npz")
    cli(*TRAIN, "--max-steps", "8", "--stop-after", "3", "-o", "part.npz")
    cli("train", "captions.txt", "-o", "part.npz", "--resume", "-q")
    (_, whole), (state, part) = (read_checkpoint(Path(p)) for p in ("whole.npz", "part.npz"))
    for name, array in whole.items():
        assert (array == part[name]).all(), name
    assert state.features
    assert state.features["file"][0] == "vectors.npy"
    assert (state.features["rows"], state.features["shape"]) == (120, [4])


@pytest.mark.usefixtures("pictures")
def test_changed_features_are_refused_when_a_run_is_resumed(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "8", "--stop-after", "3", "-o", "m.npz")
    rows = np.load("vectors.npy")
    rows[5, 1] += 1
    np.save("vectors.npy", rows)
    resume = "train", "captions.txt", "-o", "m.npz", "--resume", "-q"
    assert "the contents of vectors.npy changed" in cli(*resume, rc=4).stderr.decode()
    np.save("vectors.npy", rows[1:])
    assert "vectors.npy changed from" in cli(*resume, rc=4).stderr.decode()


@pytest.mark.usefixtures("pictures")
def test_bad_input_is_refused_in_one_line(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "2", "-o", "m.npz")
    np.save("wide.npy", np.zeros((3, 5)))
    np.save("regions.npy", np.zeros((3, 2, 4)))
    np.save("short.npy", np.load("vectors.npy")[1:])
    Path("plain.txt").write_text("a\tb\n" * 100)
    given: list[tuple[tuple[str, ...], int, str]] = [
        (("predict", "m.npz", "wide.npy"), 3, "a row has 5 numbers, the model reads 4 numbers"),
        (("predict", "m.npz", "regions.npy"), 3, "a row has 2 regions of 4 numbers, the model"),
        (("predict", "m.npz", "captions.txt"), 3, "not an array of numbers"),
        (("predict", "m.npz"), 2, "give a file of vectors"),
        (("eval", "m.npz", "captions.txt"), 2, "give those of FILE with --features"),
        (("eval", "m.npz", "captions.txt", "--features", "short.npy"), 3, "has 119 rows"),
        (("eval", "m.npz", "--split", "val", "--features", "short.npy"), 2, "has its own"),
        (("train", "captions.txt", "--features", "short.npy"), 3, "120 lines, but short.npy has"),
        (("train", "captions.txt", "--features", "no.npy"), 3, "no.npy"),
        ((*TRAIN, "--attention"), 3, "one vector in each row; --attention looks at regions"),
        ((*TRAIN, "--predict", "next"), 2, "does not read --features"),
        ((*TRAIN, "--val-file", "captions.txt"), 2, "cannot be combined with --features"),
        (("train", "plain.txt", "--predict", "text", "--feature-input", "each"), 2, "needs --feat"),
    ]
    for command, code, message in given:
        result = cli(*command, rc=code)
        assert message in result.stderr.decode(), command
        assert len(result.stderr.strip().splitlines()) <= 2, command


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("how", ["first", "each"])
def test_each_symbol_that_is_written_is_the_most_likely_one(cli: Cli, how: str) -> None:
    cli(*TRAIN, "--feature-input", how, "--max-steps", "1", "-o", "m.npz")
    model = charrnn.load("m.npz")
    assert isinstance(model.network, Captioner)
    model.network.params.vector[:] *= 3
    model.use_features("vectors.npy")
    v, (text,) = model.vocabulary, model.predict([""], rows=[7])
    ids = np.concatenate([v.start_id, v.encode(text)])[:20]
    marked = model.network.vectors.mark(ids, np.array([len(ids)]), np.array([7]), len(v))
    tape = model.network.new_tape(len(ids), 1)
    model.network.forward(marked[:, None], model.network.zero_state(1), tape)
    best = tape.logits[:, :, 0].argmax(1)
    assert len(ids) > 3
    assert best[:-1].tolist() == ids[1:].tolist()


@pytest.mark.parametrize("regions", [False, True])
def test_weights_go_from_a_language_model_to_captions_and_back(
    tmp_path: Path, monkeypatch: Any, cli: Cli, regions: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(shape=(3, 4) if regions else (4,))
    plain = "train", "captions.txt", "--documents", "line", *SIZE, "--max-steps", "9"
    still = "--max-steps", "1", "--lr", "1e-12", "--force"
    captions = *TRAIN, *(("--attention",) if regions else ()), *still
    cli(*plain, "-o", "language.npz")
    cli(*captions, "--init-from", "language.npz", "-o", "captions.npz")
    cli(*captions, "--init-from", "captions.npz", "-o", "again.npz")
    cli(*plain[:4], "-q", *still, "--init-from", "captions.npz", "-o", "back.npz")
    names = ("language", "captions", "again", "back")
    params = [charrnn.load(f"{name}.npz").network.params for name in names]
    for name in params[0]:
        for other in params[1:]:
            # captions end with a symbol of their own, the last one, and Why also reads z
            common = tuple(slice(n) for n in params[0][name].shape)
            wanted, found = params[0][name], other[name][common]
            np.testing.assert_allclose(found, wanted, atol=1e-6, err_msg=name)
    for name in params[1]:
        np.testing.assert_allclose(params[2][name], params[1][name], atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("pictures")
def test_a_text_without_an_end_is_cut_where_its_own_source_says(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "1", "-o", "m.npz")
    model = charrnn.load("m.npz")
    model.network.params["by"][model.vocabulary.start_id] = -1e6  # never ends
    model.use_features("vectors.npy")
    alone = model.predict(["red"], rows=[0])
    assert len(alone[0]) == 4 * 4 + 1000
    both = model.predict(["red", "red it is, " * 3], rows=[0, 0])
    assert [len(text) for text in both] == [1016, 4 * 34 + 1000]
    assert both[0] == alone[0]


@pytest.mark.usefixtures("pictures")
def test_the_command_that_is_named_after_a_run_predicts(cli: Cli) -> None:
    done = cli(*TRAIN[:-1], "--max-steps", "2", "-o", "m.npz").stderr.decode().splitlines()
    command = done[-1].split()
    assert command == ["charrnn", "predict", "m.npz", "vectors.npy"]
    assert cli(*command[1:]).stdout.count(b"\n") == 120


def write_regions(n: int = 200) -> None:
    """Write pictures of four regions with two colors, and the places of these as the captions.

    Every picture has the same mean.
    """
    rng = np.random.default_rng(0)
    places = np.array([rng.permutation(4)[:2] for _ in range(n)])
    rows = np.zeros((n, 4, 2))
    rows[np.arange(n), places[:, 0], 0] = rows[np.arange(n), places[:, 1], 1] = 1
    np.save("regions.npy", rows)
    Path("places.txt").write_text("".join(f"red {a} blue {b}\n" for a, b in places))


REGIONS = (
    "train",
    "places.txt",
    "--features",
    "regions.npy",
    *SIZE,
    "--lr",
    "0.01",
    "--patience",
    "0",
)


def test_attention_finds_what_the_mean_does_not_have(
    tmp_path: Path, monkeypatch: Any, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    write_regions()
    found = []
    for name, more in (("mean", ()), ("attention", ("--attention",))):
        cli(*REGIONS, *more, "--feature-input", "each", "--max-steps", "1000", "-o", f"{name}.npz")
        result = cli("eval", f"{name}.npz", "--split", "test", "--json")
        found.append(json.loads(result.stdout)["exact"])
    assert found[0] < 0.5
    assert found[1] > 0.9
    written = cli("predict", "attention.npz", "regions.npy", "--beam", "3").stdout
    wanted = Path("places.txt").read_text().splitlines()
    right = [a == b for a, b in zip(written.decode().splitlines(), wanted, strict=True)]
    assert sum(right) > 0.9 * len(wanted)


def test_a_resumed_run_with_attention_gives_the_same_weights(
    tmp_path: Path, monkeypatch: Any, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    write_regions()
    train = *REGIONS, "--attention", "--max-steps", "8"
    cli(*train, "-o", "whole.npz")
    cli(*train, "--stop-after", "3", "-o", "part.npz")
    cli("train", "places.txt", "-o", "part.npz", "--resume", "-q")
    (_, whole), (state, part) = (read_checkpoint(Path(p)) for p in ("whole.npz", "part.npz"))
    for name, array in whole.items():
        assert (array == part[name]).all(), name
    assert state.features
    assert state.features["shape"] == [4, 2]


def test_the_shares_of_the_regions_are_those_of_each_symbol(
    tmp_path: Path, monkeypatch: Any, cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    write_regions()
    cli(*REGIONS, "--attention", "--max-steps", "2", "-o", "m.npz")
    model = charrnn.load("m.npz")
    model.use_features("regions.npy")
    shares = [align(model.predictor, "", "red 1 blue 2", row).p for row in (0, 2)]
    assert shares[0].shape == (13, 4)
    np.testing.assert_allclose(shares[0].sum(1), 1, rtol=1e-5)
    assert (shares[0] != shares[1]).all()
    asked = align(model.predictor, "red", "red 1 blue 2", 3)
    assert (len(asked.read), len(asked.written), asked.p.shape) == (4, 13, (13, 4))


def test_word_f1_counts_words_in_any_order() -> None:
    assert word_f1("a b b", "b a c") == pytest.approx(2 / 3)
    assert word_f1("", "") == 1
    assert word_f1("", "a") == 0


def test_a_model_predicts_about_an_array(tmp_path: Path, monkeypatch: Any, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(shape=(3, 4))
    cli(*TRAIN, "--max-steps", "200", "--lr", "0.02", "-o", "m.npz")
    model, rows = charrnn.load("m.npz"), np.load("vectors.npy")[:5]
    assert model.use_features(rows) == 5
    wanted = Path("captions.txt").read_text().splitlines()[:5]
    assert model.predict([""] * 5, rows=range(5)) == wanted
