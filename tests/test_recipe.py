"""The recipe: what is chosen for a text and an effort, and how a run ends in time."""

import time
from pathlib import Path
from typing import Any

import pytest

import charrnn
from charrnn.cli.common import Duration
from charrnn.config import PRESETS
from charrnn.errors import UsageError
from charrnn.storage.state import State
from charrnn.training.deadline import Deadline
from charrnn.training.recipe import SIZES, choose_options
from tests.conftest import Cli, read_run

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("characters", "effort", "hidden_size", "batch", "dropout"),
    [
        (5_000, 1, 512, (8, 32), 0.5),
        (50_000, 0.1, 256, (8, 32), 0.2),
        (250_000, 1, 512, (16, 64), 0.2),
        (MEGABYTE, 0.1, 128, (32, 64), 0),
        (MEGABYTE, 1, 512, (32, 64), 0),
        (3 * MEGABYTE, 1, 256, (64, 64), 0),
        (3 * MEGABYTE, 5, 512, (64, 64), 0.1),
        (100 * MEGABYTE, 20, 512, (64, 64), 0),
        (50_000, 1e-6, SIZES[0], (8, 32), 0),
    ],
)
def test_choice(
    characters: int, effort: float, hidden_size: int, batch: tuple[int, int], dropout: float
) -> None:
    options = choose_options(characters, 80, effort, {})
    assert options["hidden_size"] == hidden_size
    assert (options["batch_size"], options["seq_length"]) == batch
    assert options["dropout"] == dropout


@pytest.mark.parametrize("characters", [MEGABYTE, 10 * MEGABYTE])
def test_more_effort_is_more_work(characters: int) -> None:
    chosen = [choose_options(characters, 80, effort, {}) for effort in PRESETS.values()]
    symbols = [each["epochs"] * characters for each in chosen]
    for effort, n, options in zip(PRESETS.values(), symbols, chosen, strict=True):
        H = options["hidden_size"]
        work = n / 10**7 * (3 * 256**2 * (H / 256) ** 1.85 + 80 * H) / (256 * (3 * 256 + 80))
        assert work == pytest.approx(effort, rel=0.01) or n == pytest.approx(6 * characters, 0.01)
        assert n < 6.01 * characters
    sizes = [options["hidden_size"] for options in chosen]
    assert sizes == sorted(sizes)
    rates = [options["learning_rate"] for options in chosen]
    assert max(rates) == rates[0] == 8e-3


@pytest.mark.parametrize("characters", [5, 5_000, 40_000])
def test_the_shortest_texts_are_read_often(characters: int) -> None:
    options = choose_options(characters, 80, 1, {})
    assert options["max_steps"] == 1000
    assert "epochs" not in options


def test_large_vocabulary_is_work() -> None:
    assert choose_options(640_000, 80, 1, {})["hidden_size"] == 512
    options = choose_options(640_000, 1500, 1, {})
    assert options["hidden_size"] == 384
    same_size = choose_options(640_000, 80, 1, {"hidden_size": 384})
    assert options["epochs"] < 0.6 * same_size["epochs"]


def test_batches_of_short_lines_have_more_of_them() -> None:
    assert choose_options(MEGABYTE // 5, 80, 1, {})["batch_size"] == 16
    assert choose_options(MEGABYTE // 5, 80, 1, {}, 7.0)["batch_size"] == 64


def test_weight_decay_is_for_adam() -> None:
    assert choose_options(MEGABYTE, 80, 1, {})["weight_decay"] == 0.03
    assert choose_options(MEGABYTE, 80, 1, {"weight_decay": 0.1})["weight_decay"] == 0.1
    assert "weight_decay" not in choose_options(MEGABYTE, 80, 1, {"optimizer": "sgd"})


def test_given_options_are_kept() -> None:
    given = {"hidden_size": 100, "batch_size": 7, "dropout": 0.3, "learning_rate": 0.1}
    options = choose_options(100 * MEGABYTE, 80, 1, given)
    assert given.items() <= options.items()
    assert options["epochs"] == pytest.approx(0.51)
    assert "epochs" not in choose_options(MEGABYTE, 80, 1, {"max_steps": 3})
    assert "learning_rate" not in choose_options(MEGABYTE, 80, 1, {"optimizer": "sgd"})


@pytest.mark.parametrize(
    ("options", "hidden_size", "note"),
    [
        ({}, 512, "chosen for this text and preset small: hidden size 512, batch size 8,"),
        ({"preset": "tiny"}, 256, "chosen for this text and preset tiny: hidden size 256,"),
        ({"batch_size": 4}, 256, None),
        (
            {"preset": "tiny", "batch_size": 4},
            256,
            "preset tiny: hidden size 256, sequence length 32",
        ),
    ],
)
def test_model_options_switch_the_recipe_off(
    text: str, options: dict[str, Any], hidden_size: int, note: str | None
) -> None:
    model = charrnn.train(text, max_steps=1, val_fraction=0, test_fraction=0, **options)
    assert model.config.hidden_size == hidden_size
    notes = [each for each in vars(model.state)["notes"] if "chosen" in each]
    if note is None:
        assert not notes
    else:
        assert note in notes[0]


def test_initial_model_switches_the_default_recipe_off(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    charrnn.train(text, hidden_size=8, max_steps=1).save(path)
    quick: dict[str, Any] = {"init_from": path, "max_steps": 1}
    assert charrnn.train(text, **quick).config.batch_size == 64
    model = charrnn.train(text, **quick, preset="tiny")
    assert (model.config.hidden_size, model.config.dropout) == (8, 0.5)


def test_deadline_follows_the_speed(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    now, state = 100.0, read_run(run)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    state.plans[-1].update(steps=200, eval_every=10)
    deadline = Deadline(at=200.0)
    deadline.start(0)

    # ten steps of a second and an evaluation of five: 85 seconds are left, ten of them to close
    state.history, state.step = [state.history[0]], 10
    now = 115.0
    assert deadline.revise(state, 5.0, lambda: 10.0) == 10 + 50
    # the next ones take two seconds each: 60 are left, ten of them to close, 2.5 for each step
    state.history, state.step = state.history * 2, 20
    now = 140.0
    assert deadline.revise(state, 5.0, lambda: 0.0) == 20 + 20
    deadline.start(10)
    now, deadline.max_steps = 150.0, 22
    assert deadline.revise(state, 5.0, lambda: 0.0) == 22
    now = 1000.0
    assert deadline.revise(state, 5.0, lambda: 0.0) == 21


def test_time_is_a_plan_that_is_revised(
    corpus: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    revised: list[int] = []

    def revise(_: Deadline, state: State, eval_seconds: float, closing: Any) -> int:
        assert eval_seconds > 0
        assert closing() > eval_seconds
        revised.append(state.step)
        return state.step + 3

    monkeypatch.setattr(Deadline, "revise", revise)
    result = cli("train", corpus, "--time", "3s", "--hidden-size", "16", "-o", "a.npz")
    state = read_run(Path("a.npz"))
    assert state.finished
    assert state.step == state.plans[-1]["steps"] == revised[0] + 3
    assert len(revised) == len(state.history) - 1 == 1
    assert b"characters per second with 16 units" in result.stderr


@pytest.mark.parametrize("value", ["10", "90s", "1.5m", "1h"])
def test_durations(value: str) -> None:
    seconds = {"10": 10, "90s": 90, "1.5m": 90, "1h": 3600}
    assert Duration().convert(value, None, None) == seconds[value]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--time", "ten"], "'ten' is not a duration; give one such as 90s, 10m or 1h"),
        (["--time", "0s"], "'0s' is not a duration"),
        (["--time", "1m", "--preset", "tiny"], "--time and --preset are mutually exclusive"),
        (["--time", "1m", "--max-steps", "9"], "--time and --max-steps are mutually exclusive"),
        (["--time", "1m", "--resume"], "--time cannot be used with --resume"),
    ],
)
def test_bad_goals_are_refused(corpus: Path, cli: Cli, args: list[str], message: str) -> None:
    assert message in cli("train", corpus, *args, rc=2).stderr.decode()


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), "10m", True])
def test_bad_seconds_are_refused(text: str, seconds: Any) -> None:
    with pytest.raises(UsageError, match="invalid seconds"):
        charrnn.train(text, seconds=seconds)
    with pytest.raises(UsageError, match="invalid preset"):
        charrnn.train(text, preset="huge")
