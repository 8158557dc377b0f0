import itertools
import json
import math
import time
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import charrnn
from charrnn import checkpoint, ngram, scoring, training
from charrnn.arrays import Array, Ids
from charrnn.config import CELLS, Config
from charrnn.corpus import Corpus
from charrnn.errors import CheckpointError, NotFiniteError, SaveError, TextError, UsageError
from charrnn.optim import OPTIMIZERS
from charrnn.scoring import contiguous_nll
from charrnn.stack import Stack
from charrnn.team import DataParallel
from charrnn.training import Run, fit, steps

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "seq_length": 9,
    "batch_size": 4,
    "max_steps": 60,
    "eval_every": 10,
}


def trained(text: str, path: Path | None = None, **options: Any) -> Run:
    run = Run(Corpus("text", text), Config(**{**SMALL, **options}))
    for _ in fit(run, path):
        pass
    return run


def same(a: Run, b: Run) -> None:
    """Two runs are equal, bit for bit, but for the time that they took."""
    for x, y in zip(a.arrays().values(), b.arrays().values(), strict=True):
        assert (x == y).all()
    x, y = (json.loads(json.dumps(run.header())) for run in (a, b))
    for header in (x, y):
        del header["train_seconds"]
        for row in header["history"]:
            del row["seconds"]
    assert x == y


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("sittings", [(1,), (7, 13), (10, 20, 25)])
def test_a_run_in_sittings_is_the_run_in_one(
    text: str, tmp_path: Path, optimizer: str, sittings: tuple[int, ...]
) -> None:
    text = text[:700]  # an epoch is 17 windows, the last of them short
    options: dict[str, Any] = {"optimizer": optimizer, "dropout": 0.3, "num_layers": 2, "cell": "lstm"}
    options |= {"val_fraction": 0.15, "test_fraction": 0.1, "sample_every": 7}
    whole = trained(text, **options)
    path = tmp_path / "run.npz"
    run = Run(Corpus("text", text), Config(**{**SMALL, **options}))
    for n in sittings:
        for _ in fit(run, path, stop_after=n):
            pass
        run = Run.restore(path, Corpus("text", text))
    for _ in fit(run, path):
        pass
    same(run, whole)
    same(Run.restore(path, Corpus("text", text)), whole)
    assert whole.step == 60
    assert whole.epoch > 3
    assert [row["step"] for row in whole.history] == [10, 20, 30, 40, 50, 60]
    assert [s["step"] for s in whole.samples] == [1, 7, 14, 21, 28, 35, 42, 49, 56, 60]


def test_same_seed_same_weights(text: str) -> None:
    same(trained(text), trained(text))
    assert (trained(text).stack.p.vector != trained(text, seed=1).stack.p.vector).any()


def test_sampling_and_evaluating_disturb_nothing(text: str) -> None:
    a = trained(text, sample_every=3, eval_every=7)
    b = trained(text, sample_every=0, eval_every=60)
    assert (a.stack.p.vector == b.stack.p.vector).all()
    assert len(a.samples) == 21
    assert not b.samples


def test_every_step_drops_other_units(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(Corpus("text", text), Config(**{**SMALL, "dropout": 0.5}))
    drawn: list[Array] = []
    draw = run.stack.dropout_masks

    def masks(*args: Any) -> Array:
        drawn.append(draw(*args).copy())
        return drawn[-1]

    monkeypatch.setattr(run.stack, "dropout_masks", masks)
    for _ in itertools.islice(steps(run), 5):
        pass
    assert len({mask.tobytes() for mask in drawn}) == len(drawn) == 5


def test_best_is_the_lowest_validation_loss_and_the_test_loss_is_its() -> None:
    noise = "".join(np.random.default_rng(0).choice(list("abcdef"), 2000))  # all there is to learn is by heart
    run = trained(noise, hidden_size=32, learning_rate=0.02, max_steps=100, eval_every=5)
    losses = [row["val_loss"] for row in run.history]
    assert run.best_loss == min(losses)
    assert run.best_step == run.history[losses.index(min(losses))]["step"] < 100
    assert (run.best != run.stack.p.vector).any()
    best = run.stack.copy()
    best.p.vector[:] = run.best
    assert contiguous_nll(best, run.val, run.val_context).mean() == run.best_loss
    assert contiguous_nll(best, run.test, run.test_context).mean() == run.test_loss
    assert len(run.val) == len(run.test) == 100


def test_before_the_first_evaluation_the_last_weights_are_the_best(text: str, tmp_path: Path) -> None:
    run = Run(Corpus("text", text), Config(**SMALL))
    for _ in fit(run, tmp_path / "run.npz", stop_after=3):
        pass
    header, arrays = checkpoint.load(tmp_path / "run.npz")
    assert header["best"]["val_loss"] is None
    assert (arrays["last_weights"] == run.best).all()
    model = charrnn.load(tmp_path / "run.npz")
    assert (model.stack.p.vector == run.stack.p.vector).all()
    assert model.header["best"] == {"step": 3, "val_loss": None}


def test_training_loss_of_a_row_is_the_mean_since_the_last(text: str) -> None:
    run = Run(Corpus("text", text), Config(**SMALL))
    losses = []
    for step in steps(run):
        losses.append(step.loss)
        if step.evaluation:
            assert step.evaluation["train_loss"] == pytest.approx(np.mean(losses[-10:]), rel=1e-12)
            assert step.evaluation["characters_seen"] == 36 * step.step
    assert len(losses) == 60


def test_the_first_loss_is_beside_ln_of_the_vocabulary(text: str) -> None:
    run = trained(text, max_steps=1)
    assert run.first_loss == pytest.approx(math.log(len(run.vocabulary)), abs=0.1)


def test_plan_epochs_and_max_steps_the_earlier_ends_it(text: str) -> None:
    def planned(**options: Any) -> dict[str, int]:
        return Run(
            Corpus("text", text[:1000]), Config(**{**SMALL, "max_steps": None, "eval_every": None, **options})
        ).plan

    per_epoch = math.ceil(math.ceil(999 / 4) / 9)
    assert planned(epochs=2)["steps"] == 2 * per_epoch
    assert planned(epochs=2, max_steps=10)["steps"] == 10
    assert planned(epochs=0.1, max_steps=10)["steps"] == 3
    assert planned(batch_size=50, seq_length=50)["steps"] == 4000
    assert planned(max_steps=100) == {"from_step": 0, "steps": 100, "eval_every": 5, "sample_every": 10}


def test_a_longer_plan_is_recorded(text: str, tmp_path: Path) -> None:
    run = trained(text, tmp_path / "run.npz")
    run = Run.restore(tmp_path / "run.npz", Corpus("text", text))
    assert run.finished
    run.extend(90)
    assert not run.finished
    for _ in fit(run, None):
        pass
    assert run.step == 90
    assert [(p["from_step"], p["steps"]) for p in run.plans] == [(0, 60), (60, 90)]


def test_characters_counts_what_is_read(text: str) -> None:
    run = Run(Corpus("text", text[:500]), Config(**SMALL))
    read = list(itertools.accumulate(step.characters for step in steps(run)))
    assert read == [run.characters(i) for i in range(1, 61)]


# --- What is not finite. ---


class Poisoned(DataParallel):
    """Gives a loss that is not a number at some steps, counted from 1, with a gradient and a state to match."""

    step: ClassVar[int]
    bad: ClassVar[set[int]]

    def loss_and_grad(
        self, xs: Ids, ys: Ids, state: Array, masks: Array | None, num_targets: int
    ) -> float:
        loss = super().loss_and_grad(xs, ys, state, masks, num_targets)
        Poisoned.step += 1
        if Poisoned.step not in Poisoned.bad:
            return loss
        state[:], self.replicas[0].stack.d.vector[:] = np.nan, np.inf
        return math.nan


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The steps, from 1, whose loss is made to be not a number."""
    Poisoned.bad = set()
    monkeypatch.setattr(training, "DataParallel", Poisoned)
    return Poisoned.bad


def began(run: Run) -> Run:
    Poisoned.step = run.step
    return run


def test_a_window_that_is_not_finite_is_left_out(text: str, bad: set[int]) -> None:
    bad.add(13)
    run = began(Run(Corpus("text", text), Config(**SMALL, sample_every=0)))
    stream = steps(run)
    before = list(itertools.islice(stream, 12))
    p, memory = run.stack.p.vector.copy(), run.memory.copy()
    step = next(stream)
    assert not any(step.told for step in before)
    assert step.told == (
        f"step 13: the loss is nan and the gradient's norm inf; "
        f"the learning rate is halved to {run.learning_rate:.2g}, and this window left out",
    )
    assert (run.stack.p.vector == p).all()
    assert (run.memory == memory).all()
    assert not run.state.any()
    assert run.learning_rate == 0.5 * 8e-3 * 0.5 * (1 + math.cos(math.pi * 13 / 60))
    assert run.trouble == [{"step": 13, "reason": "the loss is nan and the gradient's norm inf", "restored": False}]
    rest = list(stream)
    assert len(rest) == 47
    assert not any(step.told for step in rest)
    row = run.history[1]
    assert row["step"] == 20
    assert row["train_loss"] == pytest.approx(np.mean([step.loss for step in (*before[10:], *rest[:7])]), rel=1e-12)


def test_the_third_in_a_row_brings_the_best_weights_back(text: str, bad: set[int]) -> None:
    bad |= {12, 13, 15, 16, 17}
    run = began(Run(Corpus("text", text), Config(**SMALL)))
    told = [step.told for step in itertools.islice(steps(run), 16)]
    assert [bool(lines) for lines in told[10:]] == [False, True, True, False, True, True]
    assert not any("are back" in line for lines in told for line in lines)
    best = run.best.copy()
    assert run.best_step == 10
    stream = steps(began(run))
    (line,) = next(stream).told
    assert line.endswith("the weights of step 10 are back, and the optimizer begins anew")
    assert (run.stack.p.vector == best).all()
    assert not run.memory.any()
    assert not run.state.any()
    assert (run.streak, run.since) == (0, 17)
    # the optimizer's first step is its first again: Adam's is as long as the learning rate
    rate = run.learning_rate
    next(stream)
    assert np.abs(run.stack.p.vector - best).max() == pytest.approx(rate, rel=1e-3)


def test_weights_that_are_spoilt_come_back_at_once(text: str) -> None:
    """A learning rate that makes the weights infinite is halved until it does not."""
    run = Run(Corpus("text", text), Config(**SMALL, optimizer="sgd", learning_rate=1e19, clip_norm=0.0, cell="lstm"))
    told = [line for step in steps(run) for line in step.told]
    assert told
    assert all("the norm of the weights is not finite after the update" in line for line in told)
    assert all(trouble["restored"] for trouble in run.trouble)
    assert run.step == 60
    assert all(np.isfinite(a).all() for a in run.arrays().values())


@pytest.mark.parametrize("sittings", [(11, 1, 1, 3, 1), (2, 20)])
@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_a_run_in_trouble_goes_on_as_if_it_had_not_been_stopped(
    text: str, tmp_path: Path, bad: set[int], sittings: tuple[int, ...], val_fraction: float
) -> None:
    bad |= {1, 5, 6, 7, 12, 13, 14, 31}
    options: dict[str, Any] = {"val_fraction": val_fraction, "dropout": 0.2}
    whole = began(Run(Corpus("text", text), Config(**SMALL, **options)))
    list(fit(whole, None))
    assert [t["step"] for t in whole.trouble if t["restored"]] == [7, 14]
    path = tmp_path / "run.npz"
    run = Run(Corpus("text", text), Config(**SMALL, **options))
    for n in sittings:
        list(fit(began(run), path, stop_after=n))
        run = Run.restore(path, Corpus("text", text))
    list(fit(began(run), path))
    same(run, whole)


def test_the_tenth_time_ends_it_with_a_save(text: str, tmp_path: Path, bad: set[int]) -> None:
    bad |= set(range(12, 40))
    path = tmp_path / "run.npz"
    told: list[str] = []
    stream = fit(began(Run(Corpus("text", text), Config(**SMALL))), path)
    with pytest.raises(NotFiniteError, match=r"for the 10th time, at step 21; a lower --learning-rate"):
        told.extend(line for step in stream for line in step.told)
    saved = Run.restore(path, Corpus("text", text))
    assert saved.step == 21
    assert saved.history[-1]["step"] == 20
    assert saved.history[-1]["train_loss"] > 0  # of the step before
    assert saved.history[-1]["grad_norm"] is None
    with pytest.raises(NotFiniteError):  # and again, as often as one tries
        next(steps(saved))


def test_a_validation_loss_that_is_not_finite(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "contiguous_nll", lambda *_: np.array([np.inf]))
    run = Run(Corpus("text", text), Config(**{**SMALL, "max_steps": 20}))
    told = [line for step in steps(run) for line in step.told]
    assert [line.partition(";")[0] for line in told] == [f"step {n}: the validation loss is inf" for n in (10, 20)]
    assert [row["val_loss"] for row in run.history] == [None, None]
    assert run.test_loss is None
    json.dumps(run.header(), allow_nan=False)


def test_weights_that_are_not_finite_reach_no_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run = Run(Corpus("text", text), Config(**{**SMALL, "val_fraction": 0, "test_fraction": 0}))
    stream = fit(run, path, stop_after=3)
    for _ in range(3):
        next(stream)
    run.stack.p["by"][0] = np.inf
    with pytest.raises(NotFiniteError, match="not saved: a number in 'last_weights' is not finite"):
        next(stream)
    assert Run.restore(path, Corpus("text", text)).step == 0


def test_a_learning_rate_far_too_large_ends_with_a_message(text: str) -> None:
    with pytest.raises(NotFiniteError):
        trained(text, optimizer="sgd", learning_rate=1e38, clip_norm=0, lr_schedule="constant", cell="vanilla")


# --- Saving. ---


def test_saves_come_by_the_clock(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = 0.0, 0.5
    saved: list[int] = []

    def save(run: Run, _: Path) -> None:
        nonlocal now
        saved.append(run.step)
        now += took

    monkeypatch.setattr(Run, "save", save)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for save_every, wanted in ((None, [0, 7, 13, 19, 25, 30]), (25.0, [0, *range(4, 30, 3), 30]), (0.0, [*range(31)])):
        saved.clear()
        now = 0.0
        run = Run(Corpus("text", text), Config(**{**SMALL, "max_steps": 30}))
        for _ in fit(run, tmp_path / "run.npz", save_every=save_every):
            now += 10
        assert saved == wanted
    # a save that takes long is made less often: 100 times 2 s
    saved.clear()
    took = 2.0
    for _ in fit(Run(Corpus("text", text), Config(**{**SMALL, "max_steps": 30})), tmp_path / "run.npz"):
        now += 10
    assert saved == [0, 21, 30]


def test_a_save_that_fails_is_told_and_tried_again(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, honest = tmp_path / "run.npz", Run.save
    failing = range(5, 20)

    def save(run: Run, path: Path) -> None:
        if run.step in failing:
            raise SaveError(f"{path}: could not be saved (no space left on device)")
        honest(run, path)

    monkeypatch.setattr(Run, "save", save)
    run = Run(Corpus("text", text), Config(**SMALL))
    told = {step.step: step.told for step in fit(run, path, save_every=0) if step.told}
    assert list(told) == [*failing]
    assert told[5] == (
        f"{path}: could not be saved (no space left on device); the file holds step 4, and the next try is in 0 s",
    )
    assert Run.restore(path, Corpus("text", text)).step == 60
    failing = range(60, 61)
    with pytest.raises(SaveError):
        list(fit(Run(Corpus("text", text), Config(**SMALL)), path, save_every=0))
    assert Run.restore(path, Corpus("text", text)).step == 59
    failing = range(1)
    with pytest.raises(SaveError):  # at once, while nothing is lost
        next(fit(Run(Corpus("text", text), Config(**SMALL)), path))


def test_stop_ends_a_sitting_with_a_save(text: str, tmp_path: Path) -> None:
    run = Run(Corpus("text", text), Config(**SMALL))
    assert len(list(fit(run, tmp_path / "run.npz", stop=lambda: run.step == 7))) == 7
    assert Run.restore(tmp_path / "run.npz", Corpus("text", text)).step == 7


def test_a_long_history_is_thinned(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROWS", 20)
    monkeypatch.setattr(training, "SAMPLES", 10)
    run = trained(text, tmp_path / "run.npz", eval_every=1, sample_every=1)
    rows = [row["step"] for row in run.history]
    assert len(rows) <= 20
    assert rows[0] == 1
    assert rows[-1] == 60
    assert rows == sorted(rows)
    assert len(run.samples) <= 10
    assert (run.samples[0]["step"], run.samples[-1]["step"]) == (1, 60)


def test_resume_refuses_another_text_and_bare_weights(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    trained(text, path, max_steps=1)
    with pytest.raises(CheckpointError, match=r"another text: changed \(formerly text\) changed from .* --init-from"):
        Run.restore(path, Corpus("changed", text + "!"))
    with pytest.raises(CheckpointError, match=r"the validation text is another"):
        Run.restore(path, Corpus("text", text), val=Corpus("val", text))
    charrnn.load(path).save(path)
    with pytest.raises(CheckpointError, match="weights alone"):
        Run.restore(path, Corpus("text", text))


@pytest.mark.parametrize("name", ["best_weights", "last_weights", "optimizer_state", "hidden_state"])
def test_resume_refuses_arrays_of_the_wrong_shape(text: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.npz"
    trained(text, path, max_steps=1)
    header, arrays = checkpoint.load(path)
    for wrong in ({name: arrays[name][..., :-1]}, {name: arrays[name].astype(np.float64)}):
        checkpoint.save(path, header, {**arrays, **wrong})
        with pytest.raises(CheckpointError, match="wrong shape or type"):
            Run.restore(path, Corpus("text", text))
    checkpoint.save(path, header, {k: a for k, a in arrays.items() if k != name})
    with pytest.raises(CheckpointError, match=name):
        Run.restore(path, Corpus("text", text))


def test_a_validation_text_of_its_own(text: str) -> None:
    run = Run(Corpus("text", text), Config(**SMALL), val=Corpus("val", "The king é.\n"))
    assert len(run.val) == 12
    assert "é" in run.vocabulary.symbols
    assert len(run.train) == len(text) - 5 * len(text) // 100 - (5 * len(text) % 100 > 0)
    assert run.corpus["split_characters"] == {"train": len(run.train), "val": 12, "test": len(text) - len(run.train)}


def test_a_validation_text_of_many_files_names_the_first(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_LISTED_FILES", 2)
    run = Run(Corpus("text", text), Config(**SMALL), val=Corpus("val", "The king.", "The queen.", "The sea."))
    assert run.header()["corpus"]["val_files"] == ["val", "val"]


@pytest.mark.parametrize("n", [2, 3, 31, 100, 1000])
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_small_texts_train_and_say_that_they_are_small(text: str, n: int, cell: str) -> None:
    run = trained(text[:n], cell=cell, batch_size=64, seq_length=64, max_steps=3, eval_every=None)
    assert run.step == 3
    assert any("a small text" in note for note in run.notes)
    assert (run.best_step == 3) == (run.best_loss == math.inf) or n == 1000
    assert (run.header()["best"]["val_loss"] is None) == (not len(run.val))


def test_a_single_symbol_costs_nothing() -> None:
    run = trained("a" * 10_000, max_steps=2)
    assert run.best_loss == 0


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "transformer"},
        {"hidden_size": 0},
        {"hidden_size": 1.5},
        {"hidden_size": True},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"learning_rate": -1.0},
        {"learning_rate": float("inf")},
        {"seed": -1},
        {"max_steps": 0},
        {"unit": "byte", "encoding": "latin-1"},
    ],
)
def test_options_outside_their_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Config(**options)


def test_a_text_that_the_other_parts_use_up(text: str) -> None:
    with pytest.raises(TextError, match="nothing is left to train on"):
        trained(text[:131], val_fraction=0.5, test_fraction=0.49)


def test_rnn_is_vanilla() -> None:
    assert Config(cell="rnn") == Config(cell="vanilla")


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
@pytest.mark.parametrize("by", [None, "line", "file"])
def test_losses_are_for_each_character_and_the_same_for_every_caller(tmp_path: Path, unit: str, by: str | None) -> None:
    rng = np.random.default_rng(0)
    words = ["가나다", "한글은", "é", "the", "각각"]
    texts = ["".join(" ".join(rng.choice(words, 3)) + "\n" for _ in range(5)) for _ in range(40)]
    options: dict[str, Any] = {"unit": unit, "documents": by, "dtype": "float64", "val_fraction": 0.1, "max_steps": 4}
    run = Run(
        Corpus("text", *texts, unit=unit, documents=by), Config(hidden_size=6, seq_length=8, batch_size=4, **options)
    )
    for _ in fit(run, tmp_path / "run.npz"):
        pass
    whole = "".join(texts)
    data: str | bytes = whole.encode() if unit == "byte" else whole
    parts = run.corpus["split_characters"]
    assert sum(parts.values()) == len(data)
    val = data[parts["train"] : parts["train"] + parts["val"]]
    if by:  # parts hold whole lines
        assert val[-1:] in ("\n", b"\n")
    model = charrnn.load(tmp_path / "run.npz")
    if by == "line":
        assert model.score(val).mean() == pytest.approx(run.best_loss, rel=1e-12)
    elif by == "file":  # but for the end of each, which a text alone does not have
        n = sum(text in whole for text in texts if text.encode() in (val if isinstance(val, bytes) else val.encode()))
        assert n > 1
        assert model.score(val).mean() < run.best_loss
    else:
        context = data[max(parts["train"] - 200, 0) : parts["train"]]
        primed = model.score(context + val)[len(context) :]  # type: ignore[operator]
        assert primed.mean() == pytest.approx(run.best_loss, rel=0.01)
    assert run.ratio == pytest.approx(len(run.train) / parts["train"])
    assert run.first_loss == pytest.approx(run.ratio * math.log(len(run.vocabulary)), rel=0.1)
    assert run.read == 4 * 32 if by is None else run.read > 0


# --- It learns what it must. ---


def test_hello_is_learned_to_the_floor() -> None:
    """After "hello" comes "hello": every character is certain, but the first of a text whose state is zero."""
    run = trained(
        "hello" * 400, cell="vanilla", hidden_size=24, seq_length=25, batch_size=8, max_steps=400, eval_every=400
    )
    assert run.history[-1]["val_loss"] < 0.01
    ids = run.vocabulary.encode("hello" * 20)
    nats = contiguous_nll(run.stack, ids, run.vocabulary.encode("o"))
    assert nats[5:].max() < 0.01


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_a_markov_chain_is_learned_to_its_entropy(cell: str) -> None:
    """On a second-order chain of known entropy the loss comes within 3% of it, and no lower than chance allows."""
    rng = np.random.default_rng(7)
    V, n = 4, 120_000
    P = rng.dirichlet(np.full(V, 0.5), (V, V))  # P[a, b, c] = p(c | a b)
    u, symbols = rng.random(n), np.zeros(n, int)
    cdf = P.cumsum(-1)
    for i in range(2, n):
        symbols[i] = np.searchsorted(cdf[symbols[i - 2], symbols[i - 1]], u[i])
    text = "".join("abcd"[i] for i in symbols.clip(max=V - 1))
    run = trained(
        text, cell=cell, hidden_size=32, seq_length=20, batch_size=32, max_steps=600, learning_rate=0.01, eval_every=200
    )
    # the entropy rate: that of the next symbol, over the stationary law of pairs
    law = np.full((V, V), 1 / V**2)
    for _ in range(2000):
        law = np.einsum("ab,abc->bc", law, P)
    surprise = -np.log(np.where(P > 0, P, 1))
    entropy = float((law[..., None] * P * surprise).sum())
    variance = float((law[..., None] * P * surprise**2).sum()) - entropy**2
    m = len(run.val)
    assert run.best_loss < 1.03 * entropy
    assert run.best_loss > entropy - 5 * math.sqrt(variance / m)


# --- min-char-rnn, told again, naively. ---


def naive(ids: Ids, p: dict[str, Array], n: int, T: int, lr: float) -> tuple[list[float], dict[str, Array]]:
    """Train as min-char-rnn does: one lane, the sum over T, elements clipped at 5, Adagrad; in float64."""
    p = {name: a.copy() for name, a in p.items()}
    m = {name: np.zeros_like(a) for name, a in p.items()}
    V, H = p["Why"].shape
    losses, at, h = [], 0, np.zeros(H)
    for _ in range(n):
        if at + T >= len(ids):
            at, h = 0, np.zeros(H)
        xs, hs, ps, loss = {}, {-1: h}, {}, 0.0
        for t in range(T):
            xs[t] = np.zeros(V)
            xs[t][ids[at + t]] = 1
            hs[t] = np.tanh(p["Wxh"] @ xs[t] + p["Whh"] @ hs[t - 1] + p["bh"])
            y = p["Why"] @ hs[t] + p["by"]
            ps[t] = np.exp(y) / np.exp(y).sum()
            loss -= math.log(ps[t][ids[at + t + 1]])
        d = {name: np.zeros_like(a) for name, a in p.items()}
        dhnext = np.zeros(H)
        for t in reversed(range(T)):
            dy = ps[t].copy()
            dy[ids[at + t + 1]] -= 1
            d["Why"] += np.outer(dy, hs[t])
            d["by"] += dy
            dh = p["Why"].T @ dy + dhnext
            draw = (1 - hs[t] ** 2) * dh
            d["bh"] += draw
            d["Wxh"] += np.outer(draw, xs[t])
            d["Whh"] += np.outer(draw, hs[t - 1])
            dhnext = p["Whh"].T @ draw
        for name in p:
            d[name] = np.clip(d[name], -5, 5)
            m[name] += d[name] ** 2
            p[name] -= lr * d[name] / np.sqrt(m[name] + 1e-8)
        losses.append(loss)
        h = hs[T - 1]
        at += T
    return losses, p


def test_the_vanilla_cell_follows_min_char_rnn() -> None:
    H, T, n, V = 100, 25, 100, 65
    rng = np.random.default_rng(0)
    symbols = "".join(chr(33 + i) for i in range(V))
    words = ["".join(rng.choice(list(symbols), 5)) for _ in range(12)]
    text = (symbols + "".join(rng.choice(words, 200)))[:1001]  # two and a half passes, each of 40 whole windows
    config = Config(
        cell="vanilla", hidden_size=H, seq_length=T, batch_size=1, optimizer="adagrad", learning_rate=0.01,
        lr_schedule="constant", clip_norm=0, clip_value=5, max_steps=n, val_fraction=0, test_fraction=0,
        dtype="float64",
    )  # fmt: skip
    run = Run(Corpus("text", text), config)
    # at min-char-rnn's own rate of .1 the first steps are chaotic: rounding alone grows past any tolerance
    p: dict[str, Array] = {name: rng.normal(0, 0.01, run.stack.p[f"0.{name}"].shape) for name in ("Wxh", "Whh", "bh")}
    p |= {name: rng.normal(0, 0.01, run.stack.p[name].shape) for name in ("Why", "by")}
    p["bh"][:] = p["by"][:] = 0
    for name, a in p.items():
        run.stack.p[name if name in ("Why", "by") else f"0.{name}"][:] = a

    # the mean's gradient clips elsewhere than the sum's: min-char-rnn's is the sum
    losses, wanted = naive(run.vocabulary.encode(text), p, n, T, 0.01)
    got = [T * step.loss for step in summed_steps(run)]
    np.testing.assert_allclose(got, losses, rtol=0, atol=1e-10)
    for name, a in wanted.items():
        mine = run.stack.p[name if name in ("Why", "by") else f"0.{name}"]
        np.testing.assert_allclose(mine, a, rtol=0, atol=1e-10)
    assert losses[0] == pytest.approx(25 * math.log(65), abs=0.05)
    assert losses[0] - losses[-1] > 1


def summed_steps(run: Run) -> Any:
    """Return the run's steps with min-char-rnn's gradient, that of the sum over the window."""
    loss_and_grad = run.stack.loss_and_grad

    def summed(*args: Any, **options: Any) -> Any:
        return loss_and_grad(*args, **{**options, "scale": 1})

    run.stack.loss_and_grad = summed  # type: ignore[method-assign]
    return steps(run)


def peak(T: int = 4, B: int = 64, H: int = 256, **options: Any) -> int:
    """Return by how many bytes the memory grows, at most, while five steps are made."""
    text = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 100_000)))
    sizes: dict[str, Any] = {"seq_length": T, "batch_size": B, "hidden_size": H}
    plan: dict[str, Any] = {"max_steps": 100, "eval_every": 100, "sample_every": 0}
    training = steps(Run(Corpus("text", text), Config(**sizes, **plan, **options), val=Corpus("val", text[:100])))
    list(itertools.islice(training, 3))
    tracemalloc.start()
    try:
        next(training)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        list(itertools.islice(training, 3))
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options", [*({"cell": cell} for cell in sorted(CELLS)), {"dropout": 0.5}, {"num_layers": 2}], ids=str
)
def test_a_step_allocates_no_array_of_units(options: dict[str, Any]) -> None:
    # NumPy's own buffers come to 100 KB whatever the sizes; one number for each unit and lane is more, at 1,024 units.
    usual = peak(**options)
    assert usual < 128_000
    assert abs(peak(H=1024, **options) - usual) < 4096
    # What grows with the steps and lanes is a few numbers for each: its ids, its loss; not one for each unit.
    assert peak(T=16, **options) - usual < 64 * 12 * 64
    assert peak(B=256, **options) - usual < 64 * 4 * 192


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_an_update_allocates_a_block_at_most(optimizer: str) -> None:
    assert peak(optimizer=optimizer, H=512) < 400_000  # of 3 MB of parameters


@pytest.mark.parametrize("unit", ["char", "jamo"])
def test_the_ladders_are_those_of_the_parts(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(np.random.default_rng(0).choice(list("가나다 각"), 4000))
    run = Run(Corpus("text", text, unit=unit), Config(unit=unit))
    ids = np.concatenate([run.train[:], run.val, run.test])
    ends = np.cumsum([len(run.train), len(run.val), len(run.test)])
    for ladder, start, end in ((run.ladder, *ends[:2]), (run.ladder_test, *ends[1:])):
        scores = list(ngram.ngram_losses(run.train[:], [(ids[start:end], ids[:start])], len(run.vocabulary)))
        wanted = {f"{n}-gram": losses[0].sum() / 200 for n, losses in enumerate(scores, 1)}
        assert ladder == pytest.approx({"uniform": math.log(len(run.vocabulary)) * (end - start) / 200} | wanted)
    assert len(run.ladder) == len(run.ladder_test) == 7

    none = Run(Corpus("text", text, unit=unit), Config(unit=unit, val_fraction=0))
    assert none.ladder == {}
    assert none.ladder_test.keys() == run.ladder.keys()
    none = Run(Corpus("text", text, unit=unit), Config(unit=unit, val_fraction=0, test_fraction=0))
    assert none.ladder == none.ladder_test == {}
    assert not any("counts" in note for note in none.notes)
    monkeypatch.setattr(training, "COUNTED", 500)
    few = Run(Corpus("text", text, unit=unit), Config(unit=unit))
    assert "the counts are those of the first 500 symbols" in few.notes
    assert few.ladder["6-gram"] > run.ladder["6-gram"]
    assert few.ladder["uniform"] == run.ladder["uniform"]


def test_a_resume_draws_and_counts_nothing_anew(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(text, tmp_path / "run.npz", max_steps=3)
    monkeypatch.delattr(Stack, "init_parameters")
    monkeypatch.delattr(ngram, "ngram_losses")
    same(run, Run.restore(tmp_path / "run.npz", Corpus("text", text)))
