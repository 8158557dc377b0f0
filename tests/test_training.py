"""Runs: the same seed gives the same run, in one invocation or several; best weights; recovery."""

from __future__ import annotations

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
from charrnn import scoring
from charrnn.analysis import ngram
from charrnn.arrays import Array, Ids
from charrnn.config import CELLS, Config
from charrnn.counts import number_ngrams
from charrnn.errors import CheckpointError, NotFiniteError, SaveError
from charrnn.network import Network
from charrnn.optim import OPTIMIZERS
from charrnn.scoring import contiguous_scores
from charrnn.storage import checkpoint
from charrnn.storage.state import Plan
from charrnn.text.corpus import Corpus
from charrnn.training import loop, samples
from charrnn.training.loop import overfit_loss, train_steps, train_with_saves
from charrnn.training.parallel import DataParallel
from charrnn.training.run import Run, begin, resume, save
from charrnn.training.samples import longest_copy

SMALL: dict[str, Any] = {
    "hidden_size": 12,
    "seq_length": 9,
    "batch_size": 4,
    "max_steps": 60,
    "eval_every": 10,
}


def new_run(text: str, **options: Any) -> Run:
    return begin(Corpus("text", text), Config(**{**SMALL, **options}))


def train(run: Run, path: Path | None = None, **options: Any) -> Run:
    for _ in train_with_saves(run, path, **options):
        pass
    return run


def arrays_of(run: Run) -> list[Array]:
    return [run.network.params.vector, run.best_weights, run.optimizer_state, run.hidden_state]


def assert_same(a: Run, b: Run) -> None:
    """Two runs are equal, bit for bit, but for the time that they took."""
    for x, y in zip(arrays_of(a), arrays_of(b), strict=True):
        assert (x == y).all()
    x, y = (json.loads(json.dumps(vars(run.state), default=vars)) for run in (a, b))
    for state in (x, y):
        for key in ("train_seconds", "sha256", "arrays"):
            del state[key]
        for row in state["history"]:
            del row["seconds"]
    assert x == y


# --- resuming ---


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_interrupted_run_matches_uninterrupted_run(
    text: str, tmp_path: Path, optimizer: str
) -> None:
    text, path = text[:700], tmp_path / "run.npz"  # 17 steps per epoch, the last one shorter
    options: dict[str, Any] = {"optimizer": optimizer, "dropout": 0.3, "num_layers": 2}
    options |= {"cell": "lstm", "val_fraction": 0.15, "test_fraction": 0.1, "sample_every": 7}
    whole = train(new_run(text, **options))
    run = new_run(text, **options)
    for n in (7, 13, 25):
        train(run, path, stop_after=n)
        run = resume(path, Corpus("text", text))
    train(run, path)
    assert_same(run, whole)
    assert_same(resume(path, Corpus("text", text)), whole)
    assert whole.state.step == 60
    assert whole.state.epoch > 3
    assert [row["step"] for row in whole.state.history] == [10, 20, 30, 40, 50, 60]
    steps = [sample["step"] for sample in whole.state.samples]
    assert steps == [1, 7, 14, 21, 28, 35, 42, 49, 56, 60]


def test_resume_repeats_no_sample_and_no_count(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(new_run(text, max_steps=3), tmp_path / "run.npz")
    monkeypatch.delattr(Network, "init_parameters")
    monkeypatch.delattr(ngram, "ngram_losses")
    assert_same(run, resume(tmp_path / "run.npz", Corpus("text", text)))


def test_resume_refuses_another_text_and_exported_model(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    train(new_run(text, max_steps=1), path)
    message = (
        r"a different text \(changed \(formerly text\) changed from .* use --init-from .* -o NEW"
    )
    with pytest.raises(CheckpointError, match=message):
        resume(path, Corpus("changed", text + "!"))
    with pytest.raises(CheckpointError, match="the validation text has changed"):
        resume(path, Corpus("text", text), val=Corpus("val", text))
    with pytest.raises(CheckpointError, match="was trained on a text in memory, which is in no"):
        resume(path)
    charrnn.load(path).save(path, force=True)
    with pytest.raises(CheckpointError, match="an exported model, which cannot be resumed"):
        resume(path, Corpus("text", text))


@pytest.mark.parametrize("name", sorted(checkpoint.ARRAYS["run"]))
def test_resume_refuses_damage(text: str, tmp_path: Path, name: str) -> None:
    path, corpus = tmp_path / "run.npz", Corpus("text", text)
    train(new_run(text, max_steps=1), path)
    state, arrays = checkpoint.read_checkpoint(path)
    for wrong in (arrays[name][..., :-1], arrays[name].astype(np.float64)):
        checkpoint.write_checkpoint(path, state, {**arrays, name: wrong})
        with pytest.raises(CheckpointError, match=rf"damaged: {name}(\.npy has shape| is float64)"):
            resume(path, corpus)
    state.step += 1
    checkpoint.write_checkpoint(path, state, arrays)
    with pytest.raises(CheckpointError, match="plans or position are inconsistent with the text"):
        resume(path, corpus)


def test_longer_plan_is_recorded(text: str, tmp_path: Path) -> None:
    path, corpus = tmp_path / "run.npz", Corpus("text", text)
    train(new_run(text), path)
    assert resume(path, corpus).state.finished
    run = resume(path, corpus, max_steps=90, workers=2)
    assert not run.state.finished
    assert run.state.notes[-1].startswith("from step 60: 2 workers instead of 1 worker")
    train(run)
    assert run.state.step == 90
    assert [(plan["from_step"], plan["steps"]) for plan in run.state.plans] == [(0, 60), (60, 90)]


# --- one run ---


def test_same_seed_gives_the_same_weights(text: str) -> None:
    run = train(new_run(text))
    assert_same(run, train(new_run(text)))
    other = train(new_run(text, seed=1))
    assert (run.network.params.vector != other.network.params.vector).any()


def test_sampling_and_evaluating_change_nothing(text: str) -> None:
    a = train(new_run(text, sample_every=3, eval_every=7))
    b = train(new_run(text, sample_every=0, eval_every=60))
    assert (a.network.params.vector == b.network.params.vector).all()
    assert len(a.state.samples) == 21
    assert not b.state.samples


def test_every_step_drops_other_outputs(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(text, dropout=0.5)
    used: list[bytes] = []
    dropout_masks = run.network.dropout_masks

    def masks(*args: Any) -> Array:
        result = dropout_masks(*args)
        used.append(result.tobytes())
        return result

    monkeypatch.setattr(run.network, "dropout_masks", masks)
    list(itertools.islice(train_steps(run), 5))
    assert len(set(used)) == len(used) == 5


def test_best_weights_have_the_lowest_validation_loss() -> None:
    noise = "".join(np.random.default_rng(0).choice(list("abcdef"), 2000))  # it can only overfit
    run = train(new_run(noise, hidden_size=32, learning_rate=0.02, max_steps=100, eval_every=5))
    state, losses = run.state, [row["val_loss"] for row in run.state.history]
    best_loss = min(loss for loss in losses if loss is not None)
    step = state.history[losses.index(best_loss)]["step"]
    assert state.best == {"step": step, "val_loss": best_loss}
    assert step < 100
    assert (run.model_weights != run.network.params.vector).any()
    best = run.network.copy()
    best.params.vector[:] = run.model_weights
    for split, loss in ((run.splits.val, best_loss), (run.splits.test, state.test_loss)):
        assert contiguous_scores(best, split.ids, split.context)[0].mean() == loss
        assert len(split.ids) == 100


def test_last_weights_are_used_before_the_first_evaluation(text: str, tmp_path: Path) -> None:
    run = train(new_run(text), tmp_path / "run.npz", stop_after=3)
    assert (run.model_weights == run.network.params.vector).all()
    model = charrnn.load(tmp_path / "run.npz")
    assert (model.network.params.vector == run.network.params.vector).all()
    assert model.state.best == {"step": 3, "val_loss": None}


def test_evaluation_has_the_mean_training_loss_since_the_last(text: str) -> None:
    run = new_run(text)
    losses = []
    for step in train_steps(run):
        losses.append(step.loss)
        if step.evaluation:
            mean = np.mean(losses[-10:])
            assert step.evaluation["train_loss"] == pytest.approx(mean, rel=1e-12)
            assert step.evaluation["characters_seen"] == 36 * step.step
    assert len(losses) == 60
    assert run.state.initial_loss == losses[0]
    assert losses[0] == pytest.approx(math.log(len(run.vocabulary)), abs=0.1)


def test_epochs_and_max_steps_plan_the_run(text: str) -> None:
    def plan(**options: Any) -> Plan:
        return new_run(text[:1000], **{"max_steps": None, "eval_every": None, **options}).plan

    steps_per_epoch = math.ceil(math.ceil(999 / 4) / 9)
    assert plan(epochs=2)["steps"] == 2 * steps_per_epoch
    assert plan(epochs=2, max_steps=10)["steps"] == 10
    assert plan(epochs=0.1, max_steps=10)["steps"] == 3
    assert plan(batch_size=50, seq_length=50)["steps"] == 4000
    expected = {"from_step": 0, "steps": 100, "eval_every": 5, "sample_every": 10}
    assert plan(max_steps=100) == expected


def test_characters_at_step_counts_the_characters_read(text: str) -> None:
    run = new_run(text[:500])
    read = list(itertools.accumulate(step.characters for step in train_steps(run)))
    assert read == [run.characters_at_step(i) for i in range(1, 61)]


@pytest.mark.parametrize("n", [2, 3, 31, 100, 2000])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_small_text_trains_with_a_note(text: str, n: int, cell: str) -> None:
    sizes = {"batch_size": 64, "seq_length": 64, "max_steps": 3, "eval_every": None}
    run = train(new_run(text[:n], cell=cell, **sizes))
    assert run.state.step == 3
    assert any("small text: batch size reduced from 64 to" in note for note in run.state.notes)
    measured = run.state.best["val_loss"] is not None
    assert measured == (len(run.splits.val.ids) > 0) == (n == 2000)


def test_single_symbol_costs_nothing() -> None:
    assert train(new_run("a" * 10_000, max_steps=2)).state.best["val_loss"] == 0


@pytest.mark.parametrize("unit", ["char", "jamo"])
def test_baselines_are_measured_on_val_and_test_splits(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(np.random.default_rng(0).choice(list("가나다 각"), 4000))

    def run_of(**options: Any) -> Run:
        return begin(Corpus("text", text, unit=unit), Config(unit=unit, **options))

    run = run_of()
    splits, baselines, V = run.splits, run.state.baselines, len(run.vocabulary)
    context = splits.train[:]
    for losses, split in ((baselines["val"], splits.val), (baselines["test"], splits.test)):
        grams = list(number_ngrams(splits.train[:], V))
        orders = ngram.ngram_losses(grams, [(split.ids, context)], V)
        expected = {f"{n}-gram": nll[0].sum() / 200 for n, nll in enumerate(orders, 1)}
        expected["uniform"] = math.log(V) * len(split.ids) / 200
        assert losses == pytest.approx(expected)
        context = np.concatenate([context, split.ids])
    assert len(baselines["val"]) == len(baselines["test"]) == 9

    assert run_of(val_fraction=0).state.baselines["val"] == {}
    none = run_of(val_fraction=0, test_fraction=0)
    assert none.state.baselines == {"val": {}, "test": {}}
    for module in ("training.notes", "tasks.split"):
        monkeypatch.setattr(f"charrnn.{module}.COUNTED_SYMBOLS", 500)
    few = run_of()
    assert "the n-gram baselines use only the first 500 symbols" in few.state.notes
    assert few.state.baselines["val"]["6-gram"] > baselines["val"]["6-gram"]
    assert few.state.baselines["val"]["uniform"] == baselines["val"]["uniform"]


@pytest.mark.parametrize("unit", ["char", "byte", "jamo", "word"])
@pytest.mark.parametrize("documents", [None, "line", "file"])
def test_losses_are_per_character_and_the_same_for_every_caller(
    unit: str, documents: str | None
) -> None:
    rng = np.random.default_rng(0)
    words = ["가나다", "한글은", "é", "the", "각각"]
    texts = ["".join(" ".join(rng.choice(words, 3)) + "\n" for _ in range(5)) for _ in range(40)]
    corpus = Corpus("text", *texts, unit=unit, documents=documents)
    options: dict[str, Any] = {"unit": unit, "documents": documents, "dtype": "float64"}
    sizes: dict[str, Any] = {"hidden_size": 6, "seq_length": 8, "batch_size": 4, "max_steps": 4}
    run = train(begin(corpus, Config(val_fraction=0.1, **options, **sizes)))

    # the splits are whole documents, and are measured per character
    whole = "".join(texts)
    data: Any = whole.encode() if unit == "byte" else whole
    splits, best_loss = run.state.corpus["split_characters"], run.state.best["val_loss"]
    assert sum(splits.values()) == len(data)  # type: ignore[arg-type]
    val = data[splits["train"] : splits["train"] + splits["val"]]
    if documents:
        assert val[-1:] in ("\n", b"\n")
    ratio = len(run.splits.train) / splits["train"]
    initial_loss = ratio * math.log(len(run.vocabulary))
    assert run.state.initial_loss == pytest.approx(initial_loss, rel=0.1)

    # the same text has the same loss as the split
    run.network.params.vector[:] = run.model_weights
    model = charrnn.Model(run.network, run.vocabulary, run.state)
    if documents == "line":
        assert model.nll(val).mean() == pytest.approx(best_loss, rel=1e-12)
    elif documents == "file":  # a single text has no end symbol
        assert model.nll(val).mean() < best_loss
    else:
        context = data[max(splits["train"] - 200, 0) : splits["train"]]
        nll = model.nll(context + val)[len(context) :]
        assert nll.mean() == pytest.approx(best_loss, rel=0.01)
        assert run.state.symbols_seen == 4 * 32


# --- recovery from non-finite values ---


class Poisoned(DataParallel):
    """Gives a NaN loss, with a gradient and a state to match, at some steps, counted from 1."""

    step: ClassVar[int]
    bad: ClassVar[set[int]]

    def loss_and_grad(
        self, xs: Ids, ys: Ids, state: Array, masks: Array | None, num_targets: int
    ) -> float:
        loss = super().loss_and_grad(xs, ys, state, masks, num_targets)
        Poisoned.step += 1
        if Poisoned.step not in Poisoned.bad:
            return loss
        state[:], self.network.grads.vector[:] = np.nan, np.inf
        return math.nan


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The steps, from 1, whose loss becomes NaN."""
    Poisoned.bad = set()
    monkeypatch.setattr(loop, "DataParallel", Poisoned)
    return Poisoned.bad


def poisoned(run: Run) -> Run:
    Poisoned.step = run.state.step
    return run


def test_batch_with_a_nonfinite_loss_is_skipped(text: str, bad: set[int]) -> None:
    bad.add(13)
    run = poisoned(new_run(text, sample_every=0))
    stream = train_steps(run)
    before = list(itertools.islice(stream, 12))
    weights, optimizer_state = run.network.params.vector.copy(), run.optimizer_state.copy()
    step = next(stream)
    assert not any(step.messages for step in before)
    assert step.messages == (
        f"step 13: loss nan, gradient norm inf; skipped this batch and halved the learning rate to "
        f"{run.learning_rate:.2g}",
    )
    assert (run.network.params.vector == weights).all()
    assert (run.optimizer_state == optimizer_state).all()
    assert not run.hidden_state.any()
    assert run.learning_rate == 0.5 * 8e-3 * 0.5 * (1 + math.cos(math.pi * 13 / 60))
    event = {"step": 13, "reason": "loss nan, gradient norm inf", "restored": False}
    assert run.state.nonfinite_events == [event]
    rest = list(stream)
    assert len(rest) == 47
    assert not any(step.messages for step in rest)
    row = run.state.history[1]
    mean = np.mean([step.loss for step in (*before[10:], *rest[:7])])
    assert row["step"] == 20
    assert row["train_loss"] == pytest.approx(mean, rel=1e-12)


def test_third_consecutive_nonfinite_batch_restores_best_weights(text: str, bad: set[int]) -> None:
    bad |= {12, 13, 15, 16, 17}
    run = poisoned(new_run(text))
    messages = [step.messages for step in itertools.islice(train_steps(run), 16)]
    assert [len(of_step) for of_step in messages[10:]] == [0, 1, 1, 0, 1, 1]
    assert not any("restored" in line for of_step in messages for line in of_step)
    best = run.model_weights.copy()
    assert run.model_step == 10
    stream = train_steps(poisoned(run))
    (line,) = next(stream).messages
    assert "; restored the weights of step 10, reset the optimizer and halved the" in line
    assert (run.network.params.vector == best).all()
    assert not run.optimizer_state.any()
    assert not run.hidden_state.any()
    assert run.state.nonfinite_streak == 0
    # the optimizer's first step is its first again: Adam's is as long as the learning rate
    rate = run.learning_rate
    next(stream)
    assert np.abs(run.network.params.vector - best).max() == pytest.approx(rate, rel=1e-3)


def test_nonfinite_weights_are_restored_immediately(text: str) -> None:
    """A learning rate that makes the weights infinite is halved until it does not."""
    options: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1e19, "clip_norm": 0.0}
    run = new_run(text, cell="lstm", **options)
    messages = [line for step in train_steps(run) for line in step.messages]
    assert messages
    assert all("the weights became non-finite in this update" in line for line in messages)
    assert all(event["restored"] for event in run.state.nonfinite_events)
    assert run.state.step == 60
    assert all(np.isfinite(a).all() for a in arrays_of(run))


@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_resume_after_nonfinite_batches_matches_uninterrupted_run(
    text: str, tmp_path: Path, bad: set[int], val_fraction: float
) -> None:
    bad |= {1, 5, 6, 7, 12, 13, 14, 31}
    options: dict[str, Any] = {"val_fraction": val_fraction, "dropout": 0.2}
    whole = train(poisoned(new_run(text, **options)))
    events = whole.state.nonfinite_events
    assert [event["step"] for event in events if event["restored"]] == [7, 14]
    path, run = tmp_path / "run.npz", new_run(text, **options)
    for n in (5, 1, 5, 1, 1, 3, 1):
        train(poisoned(run), path, stop_after=n)
        run = resume(path, Corpus("text", text))
    assert_same(train(poisoned(run), path), whole)


def test_tenth_nonfinite_event_ends_the_run_with_a_save(
    text: str, tmp_path: Path, bad: set[int]
) -> None:
    bad |= set(range(12, 40))
    path = tmp_path / "run.npz"
    message = r"giving up at step 21 after 10 non-finite events .* try a lower --learning-rate"
    with pytest.raises(NotFiniteError, match=message):
        train(poisoned(new_run(text)), path)
    saved = resume(path, Corpus("text", text))
    row = saved.state.history[-1]
    assert (saved.state.step, row["step"], row["grad_norm"]) == (21, 20, None)
    assert row["train_loss"] is not None  # of the previous step
    with pytest.raises(NotFiniteError):  # every time
        next(train_steps(saved))


def test_nonfinite_validation_loss_restores_best_weights(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "contiguous_scores", lambda *_: np.array([[np.inf], [0]]))
    run = new_run(text, max_steps=20)
    messages = [line for step in train_steps(run) for line in step.messages]
    reasons = [line.partition(";")[0] for line in messages]
    assert reasons == ["step 10: validation loss inf", "step 20: validation loss inf"]
    assert [row["val_loss"] for row in run.state.history] == [None, None]
    assert run.state.test_loss is None


def test_nonfinite_weights_are_not_saved(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run = new_run(text, val_fraction=0, test_fraction=0)
    stream = train_with_saves(run, path, stop_after=3)
    list(itertools.islice(stream, 3))
    run.network.params["by"][0] = np.inf
    with pytest.raises(NotFiniteError, match="not saved: 'last_weights' has non-finite values"):
        next(stream)
    assert resume(path, Corpus("text", text)).state.step == 0


# --- saving ---


def test_saves_follow_the_clock(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, save_seconds = 0.0, 0.5
    saved: list[int] = []

    def save_slowly(run: Run, *_: object) -> None:
        nonlocal now
        saved.append(run.state.step)
        now += save_seconds

    def saves(**options: Any) -> list[int]:
        nonlocal now
        now = 0.0
        saved.clear()
        for _ in train_with_saves(new_run(text, max_steps=30), tmp_path / "run.npz", **options):
            now += 10
        return saved

    monkeypatch.setattr(loop, "save", save_slowly)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert saves() == [0, 7, 13, 19, 25, 30]
    assert saves(save_every=25.0) == [0, *range(4, 30, 3), 30]
    assert saves(save_every=0.0) == [*range(31)]
    save_seconds = 2.0  # 100 times of it are between two saves
    assert saves() == [0, 21, 30]


def test_failed_save_is_reported_and_retried(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, corpus = tmp_path / "run.npz", Corpus("text", text)
    failing = range(5, 20)

    def save_or_fail(run: Run, path: Path, *_: object) -> None:
        if run.state.step in failing:
            raise SaveError(f"{path}: could not be saved (no space left on device)")
        save(run, path)

    monkeypatch.setattr(loop, "save", save_or_fail)
    steps = train_with_saves(new_run(text), path, save_every=0)
    messages = {step.step: step.messages for step in steps if step.messages}
    assert list(messages) == [*failing]
    assert messages[5] == (
        f"{path}: could not be saved (no space left on device); "
        f"the last successful save is step 4; will retry in 0 s",
    )
    assert resume(path, corpus).state.step == 60
    failing = range(60, 61)
    with pytest.raises(SaveError):
        train(new_run(text), path, save_every=0)
    assert resume(path, corpus).state.step == 59
    failing = range(1)
    with pytest.raises(SaveError):  # before any work is lost
        next(train_with_saves(new_run(text), path))


def test_stop_ends_an_invocation_with_a_save(text: str, tmp_path: Path) -> None:
    run = new_run(text)
    train(run, tmp_path / "run.npz", stop=lambda: run.state.step == 7)
    assert resume(tmp_path / "run.npz", Corpus("text", text)).state.step == 7


def test_long_history_is_thinned_but_keeps_the_best_row(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_HISTORY_ROWS", 20)
    monkeypatch.setattr(samples, "MAX_SAMPLES", 10)
    losses = iter([2.0] * 13 + [1.0] + [3.0] * 100)  # the best at step 14, of even index
    monkeypatch.setattr(loop, "_loss", lambda *_: next(losses))
    run = train(new_run(text, eval_every=1, sample_every=1, patience=0))
    rows = [row["step"] for row in run.state.history]
    assert len(rows) <= 21
    assert rows == sorted(rows)
    assert {1, 14, 60} <= set(rows)
    assert run.state.best == {"step": 14, "val_loss": 1.0}
    steps = [sample["step"] for sample in run.state.samples]
    assert len(steps) <= 10
    assert (steps[0], steps[-1]) == (1, 60)


# --- learning ---


def test_hello_is_learned_perfectly() -> None:
    """After "hello" comes "hello": only the first characters of a text are uncertain."""
    sizes: dict[str, Any] = {"hidden_size": 24, "seq_length": 25, "batch_size": 8}
    run = train(new_run("hello" * 400, cell="vanilla", max_steps=400, eval_every=400, **sizes))
    assert (run.state.best["val_loss"] or 1) < 0.01
    ids = run.vocabulary.encode("hello" * 20)
    nll = contiguous_scores(run.network, ids, run.vocabulary.encode("o"))[0]
    assert nll[5:].max() < 0.01


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_markov_chain_is_learned_to_its_entropy(cell: str) -> None:
    """The loss on a second-order chain is within 3% of its entropy, and no lower than chance."""
    rng = np.random.default_rng(7)
    V, n = 4, 120_000
    P = rng.dirichlet(np.full(V, 0.5), (V, V))  # P[a, b, c] = p(c | a b)
    u, symbols = rng.random(n), np.zeros(n, int)
    cdf = P.cumsum(-1)
    for i in range(2, n):
        symbols[i] = np.searchsorted(cdf[symbols[i - 2], symbols[i - 1]], u[i])
    text = "".join("abcd"[i] for i in symbols.clip(max=V - 1))
    sizes: dict[str, Any] = {"hidden_size": 32, "seq_length": 20, "batch_size": 32}
    plan: dict[str, Any] = {"max_steps": 600, "learning_rate": 0.01, "eval_every": 200}
    run = train(new_run(text, cell=cell, **sizes, **plan))
    # the entropy rate: the entropy of the next symbol under the stationary distribution of pairs
    law = np.full((V, V), 1 / V**2)
    for _ in range(2000):
        law = np.einsum("ab,abc->bc", law, P)
    surprisal = -np.log(np.where(P > 0, P, 1))
    entropy = float((law[..., None] * P * surprisal).sum())
    variance = float((law[..., None] * P * surprisal**2).sum()) - entropy**2
    m, loss = len(run.splits.val.ids), run.state.best["val_loss"] or 0
    assert entropy - 5 * math.sqrt(variance / m) < loss < 1.03 * entropy


# --- min-char-rnn ---


def naive_training(
    ids: Ids, p: dict[str, Array], n: int, T: int, lr: float
) -> tuple[list[float], dict[str, Array]]:
    """Train as min-char-rnn does: one lane, the sum over T, elements clipped at 5, Adagrad."""
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


def test_vanilla_cell_follows_min_char_rnn(monkeypatch: pytest.MonkeyPatch) -> None:
    H, T, n, V = 100, 25, 100, 65
    rng = np.random.default_rng(0)
    symbols = "".join(chr(33 + i) for i in range(V))
    words = ["".join(rng.choice(list(symbols), 5)) for _ in range(12)]
    text = (symbols + "".join(rng.choice(words, 200)))[:1001]  # 40 whole batches in an epoch
    sizes: dict[str, Any] = {"hidden_size": H, "seq_length": T, "batch_size": 1, "max_steps": n}
    # at min-char-rnn's rate of .1 the first steps are chaotic: rounding grows beyond a tolerance
    rates: dict[str, Any] = {"optimizer": "adagrad", "learning_rate": 0.01}
    rates |= {"lr_schedule": "constant", "clip_norm": 0, "clip_value": 5}
    splits: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0, "dtype": "float64"}
    run = new_run(text, cell="vanilla", **sizes, **rates, **splits)
    network = run.network
    shapes = {name: network.params[f"0.{name}"].shape for name in ("Wxh", "Whh", "bh")}
    shapes |= {name: network.params[name].shape for name in ("Why", "by")}
    p: dict[str, Array] = {name: rng.normal(0, 0.01, shape) for name, shape in shapes.items()}
    p["bh"][:] = p["by"][:] = 0

    def mine(name: str) -> Array:
        return network.params[name if name in ("Why", "by") else f"0.{name}"]

    for name, a in p.items():
        mine(name)[:] = a

    # min-char-rnn sums the loss, so its gradient is clipped at other values than the mean's
    loss_and_grad = network.loss_and_grad
    monkeypatch.setattr(
        network, "loss_and_grad", lambda *args, **kw: loss_and_grad(*args, **{**kw, "scale": 1})
    )
    losses, expected = naive_training(run.vocabulary.encode(text), p, n, T, 0.01)
    got = [T * step.loss for step in train_steps(run)]
    np.testing.assert_allclose(got, losses, rtol=0, atol=1e-10)
    for name, a in expected.items():
        np.testing.assert_allclose(mine(name), a, rtol=0, atol=1e-10)
    assert losses[0] == pytest.approx(25 * math.log(65), abs=0.05)
    assert losses[0] - losses[-1] > 1


# --- hints at the end ---


def test_longest_copy_of_last_sample_in_training_split() -> None:
    hangul = "가나다 각구\n나는 누구냐?\n"
    texts = {"char": "one two three four five\n", "byte": "ünf\n", "jamo": hangul}
    for unit, text in texts.items():
        run = begin(Corpus("text", text * 50, unit=unit), Config(unit=unit, hidden_size=4))
        assert longest_copy(run) == 0  # there is no sample yet
        part = text * (run.splits.train_characters // len(text))
        shown = part.encode().decode("latin-1") if unit == "byte" else part
        for piece in (shown[3:70], shown[4:5]):
            run.state.samples = [{"step": 1, "text": f"{'@' * 9}{piece}@@"}]
            assert longest_copy(run) == len(piece)
    # in jamo: a syllable that has another one in the text is not counted
    run.state.samples = [{"step": 1, "text": "다 가"}]
    assert longest_copy(run) == 2
    # the validation split is not searched, nor is text beyond the limit
    run = begin(Corpus("text", "ab" * 950 + "cdefg" * 20), Config(hidden_size=4, test_fraction=0))
    run.state.samples = [{"step": 1, "text": "babacdefgcdefg"}]
    assert longest_copy(run) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "COPY_SEARCH_SYMBOLS", 3)
        assert longest_copy(run) == 3


def test_overfitting_is_detected_from_the_losses(text: str) -> None:
    run = new_run(text)
    rows = [(10, 1.2, 1.5), (20, 1.0, 1.0), (30, 0.9, 1.04), (40, 0.8, 1.06)]
    keys = ("step", "train_loss", "val_loss")
    history: Any = [dict(zip(keys, row, strict=True)) for row in rows]
    run.state.history, run.state.best = history, {"step": 20, "val_loss": 1.0}
    assert overfit_loss(run) == 1.06
    last = history[-1]
    for key, loss in (("val_loss", 1.05), ("train_loss", 1.0), (keys[1], None), (keys[2], None)):
        history[-1] = {**last, key: loss}
        assert overfit_loss(run) is None, (key, loss)
    history[-1] = last
    del history[1]  # thinned
    assert overfit_loss(run) == 1.06


# --- memory ---


def peak_growth(T: int = 4, B: int = 64, H: int = 128, **options: Any) -> int:
    """Return by how many bytes the memory grows, at most, in three steps."""
    text = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 100_000)))
    sizes: dict[str, Any] = {"seq_length": T, "batch_size": B, "hidden_size": H}
    plan: dict[str, Any] = {"max_steps": 100, "eval_every": 100, "sample_every": 0}
    config, val = Config(**sizes, **plan, **options), Corpus("val", text[:100])
    steps = train_steps(begin(Corpus("text", text), config, val=val, workers=1))
    list(itertools.islice(steps, 3))
    tracemalloc.start()
    try:
        next(steps)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        list(itertools.islice(steps, 3))
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options",
    [*({"cell": cell} for cell in sorted(CELLS)), {"dropout": 0.5}, {"num_layers": 2}],
    ids=str,
)
def test_step_allocates_no_array_of_hidden_units(options: dict[str, Any]) -> None:
    # NumPy's own buffers take 100 KB at any size; a number per hidden unit and lane takes more
    usual = peak_growth(**options)
    assert usual < 128_000
    assert abs(peak_growth(H=512, **options) - usual) < 4096
    # with the steps and lanes only a few numbers for each grow: its ids, its loss
    assert peak_growth(T=16, **options) - usual < 64 * 12 * 64
    assert peak_growth(B=256, **options) - usual < 64 * 4 * 192


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_update_allocates_a_block_at_most(optimizer: str) -> None:
    assert peak_growth(optimizer=optimizer, H=512) < 400_000  # of 3 MB of parameters


def test_weight_decay_is_decoupled_from_the_gradient(text: str) -> None:
    options: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.5, "max_steps": 1}
    initial = new_run(text, **options).network.params.vector
    plain, decayed = (
        train(new_run(text, weight_decay=decay, **options)).network.params.vector
        for decay in (0.0, 0.1)
    )
    assert np.abs(initial).max() > 0.1
    np.testing.assert_allclose(plain - decayed, 0.5 * 0.1 * initial, atol=1e-6)
