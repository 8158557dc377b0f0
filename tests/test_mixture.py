import dataclasses
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.analysis.surprisal import Learned, score_text
from charrnn.arrays import Ids
from charrnn.config import Config
from charrnn.counts import Counts, number_ngrams, prune
from charrnn.errors import CheckpointError
from charrnn.mixture import (
    LearningMixture,
    MixedLanes,
    Mixture,
    bayes_log_shares,
    fit_gate,
    mix,
    network_share,
    predict_text,
)
from charrnn.network import Network
from charrnn.scoring import contiguous_scores
from charrnn.storage import checkpoint, ngrams
from charrnn.storage.header import InvalidCheckpoint
from charrnn.storage.state import State
from charrnn.text.corpus import Corpus
from charrnn.training.loop import train_steps
from charrnn.training.run import Run, begin, resume, save
from tests.conftest import Cli, read_run

V, ORDER = 6, 8


def make_counts(ids: Ids) -> Counts:
    return Counts(V, prune(list(number_ngrams(ids, V))))


@pytest.fixture
def predictions() -> tuple[Any, Any, Any]:
    """Features and losses of a text that repeats itself and has noise."""
    rng = np.random.default_rng(0)
    ids = np.where(rng.random(3000) < 0.7, np.tile([0, 1, 2, 3, 2, 1], 500), rng.choice(V, 3000))
    network = Network("gru", V, 5, 1, np.float64, rng)
    network.params.vector *= 2
    scores = contiguous_scores(network, ids[1000:], ids[:1000])
    nll, features = predict_text(
        make_counts(ids[:1000]), ids[1000:], ids[:1000], scores[1], learn=True
    )
    return features, scores[0], nll


def test_mixture_is_the_weighted_sum_of_probabilities(predictions: Any) -> None:
    features, network_nll, counts_nll = predictions
    gate = np.random.default_rng(1).normal(0, 0.1, features.shape[1])
    share = 1 / (1 + np.exp(-(features @ gate)))
    np.testing.assert_allclose(network_share(gate, features), share, rtol=1e-12)
    p = share * np.exp(-network_nll) + (1 - share) * np.exp(-counts_nll)
    np.testing.assert_allclose(mix(gate, features, network_nll, counts_nll), -np.log(p), rtol=1e-10)


def test_fitted_gate_is_better_than_every_fixed_share(predictions: Any) -> None:
    features, network_nll, counts_nll = predictions
    gate = fit_gate(*predictions)
    loss = mix(gate, *predictions).mean()
    shares = np.linspace(0, 1, 101)[:, None]
    fixed = -np.log(shares * np.exp(-network_nll) + (1 - shares) * np.exp(-counts_nll)).mean(1)
    assert loss < fixed.min() - 0.001
    # no small change of a weight helps
    scale = np.sqrt((features**2).mean(0))
    for i in np.flatnonzero(scale):
        step = np.zeros(len(gate))
        step[i] = 0.05 / scale[i]
        for changed in (gate + step, gate - step):
            assert mix(changed, *predictions).mean() > loss - 1e-4


def test_gate_can_be_fitted_to_any_losses() -> None:
    features = np.ones((50, 15)) + 1e-13 * np.random.default_rng(0).random((50, 15))
    for network, counts in ((0.0, 0.0), (1e4, 1e-9), (1e-9, 1e4), (800.0, 900.0)):
        losses = np.full(50, network), np.full(50, counts)
        nll = mix(fit_gate(features, *losses), features, *losses)
        assert nll.mean() < min(network, counts) + 0.7


def test_features_are_known_before_the_symbol(predictions: Any) -> None:
    ids = np.tile([0, 1, 2, 3, 2, 1], 50)
    one, other = (
        predict_text(make_counts(ids), np.append(ids[:9], last), ids[:7], np.zeros(10), learn=True)[
            1
        ]
        for last in (0, 5)
    )
    np.testing.assert_array_equal(one, other)
    assert one.shape == (10, 7 + ORDER)
    assert (one[:, 7:].sum(1) == 1).all()


@pytest.mark.parametrize("num_lanes", [1, 3])
def test_lanes_are_mixed_as_a_text_is(num_lanes: int) -> None:
    rng = np.random.default_rng(0)
    ids = rng.choice(V, 400, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
    network = Network("gru", V, 5, 1, np.float64, rng)
    mixture = Mixture(make_counts(ids), rng.normal(0, 0.2, 7 + ORDER))
    text = rng.choice(V, 20)
    lanes = MixedLanes(mixture, text[:-1], num_lanes)
    tape = network.new_tape(20, 1)
    network.forward(text[:, None], network.zero_state(1), tape)
    logits = np.repeat(tape.logits[-1], num_lanes, axis=1)
    log_p = lanes(np.repeat(text[-1], num_lanes), logits)
    np.testing.assert_allclose(np.exp(log_p).sum(0), 1, rtol=1e-12)
    for w in range(V):
        scores = contiguous_scores(network, np.array([w]), text)
        counts_nll, features = predict_text(
            mixture.counts, np.array([w]), text, scores[1], learn=False
        )
        wanted = mix(mixture.gate, features, scores[0], counts_nll)
        np.testing.assert_allclose(-log_p[w], np.repeat(wanted, num_lanes), rtol=1e-8)


def test_mixture_is_never_much_worse_than_a_part_of_it() -> None:
    rng = np.random.default_rng(0)
    ids = np.tile(rng.choice(V, 20), 60)
    network = Network("gru", V, 5, 1, np.float64, rng)
    scores = contiguous_scores(network, ids[300:], ids[:300])
    for sign in (-50, 50):  # gates that always take the same part
        gate = np.zeros(7 + ORDER)
        gate[7:] = sign
        learner = LearningMixture(Mixture(make_counts(ids[:300]), gate))
        counts_nll, mixed = learner.predict_text(ids[300:700], ids[:300], scores[:, :400])
        _, rest = learner.predict_text(ids[700:], ids[:700], scores[:, 400:])
        best = min(counts_nll.sum(), scores[0, :400].sum())
        assert best - 1e-9 < mixed.sum() < best + 4.1
        assert rest.mean() < 0.1

        # what was paid before is kept
        whole = LearningMixture(Mixture(make_counts(ids[:300]), gate))
        together = whole.predict_text(ids[300:], ids[:300], scores)[1]
        np.testing.assert_allclose(np.append(mixed, rest), together, rtol=1e-8, atol=1e-12)


def test_shares_follow_from_what_was_paid() -> None:
    rng = np.random.default_rng(0)
    nlls, paid = rng.exponential(1, (3, 30)), np.array([0.0, 2, 1])
    log_shares, total = bayes_log_shares(nlls, paid)
    for t in range(30):
        weights = np.exp(-paid - nlls[:, :t].sum(1))
        np.testing.assert_allclose(np.exp(log_shares[:, t]), weights / weights.sum(), rtol=1e-10)
    np.testing.assert_allclose(total, paid + nlls.sum(1))
    assert bayes_log_shares(nlls[:, :0], paid)[0].shape == (3, 0)


# --- of a run ---


def trained(text: str, **options: Any) -> Run:
    sizes = {
        "hidden_size": 8,
        "seq_length": 16,
        "batch_size": 8,
        "max_steps": 60,
        "sample_every": 0,
    }
    run = begin(Corpus("text", text), Config(**{**sizes, **options}))
    for _ in train_steps(run):
        pass
    return run


def test_mixture_of_a_run_beats_its_parts(text: str) -> None:
    model = charrnn.train(text, hidden_size=16, max_steps=100, batch_size=16)
    mixing = model.state.mixing
    assert mixing
    assert mixing["mixed_loss"]
    assert mixing["counts_loss"]
    assert model.state.test_loss
    assert mixing["mixed_loss"] < 1.01 * min(mixing["counts_loss"], model.state.test_loss)
    nll = {name: model.nll(text[:500], **how).mean() for name, how in HOW.items()}
    assert nll["both"] < 1.1 * nll["mixed"] < 1.1 * nll["network"]
    assert model.nll(text[:500], mix=True)[0] == pytest.approx(model.nll(text[:1], mix=True)[0])


HOW: dict[str, dict[str, Any]] = {
    "network": {},
    "mixed": {"mix": True},
    "both": {"mix": True, "adapt": True},
}


def test_model_that_cannot_mix_says_why(text: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 4, "max_steps": 3}
    reason = "can neither mix nor adapt: the gate and the rates are fitted at the end of a run"
    with pytest.raises(CheckpointError, match=reason):
        charrnn.train(text, val_fraction=0, **sizes).nll(text, mix=True)
    model = charrnn.train(text, optimizer="sgd", **sizes)
    assert math.isfinite(model.nll(text[:99], mix=True).mean())
    with pytest.raises(CheckpointError, match="cannot adapt: a run with sgd has no second moments"):
        model.nll(text, adapt=True)
    model.save(tmp_path / "a.npz", counts=False)
    with pytest.raises(CheckpointError, match="has no counts of n-grams to mix with"):
        list(charrnn.load(tmp_path / "a.npz").sample(5, mix=True))
    charrnn.train(text, **sizes).save(tmp_path / "b.npz")
    exported = charrnn.load(tmp_path / "b.npz")
    assert (exported.nll(text[:99], mix=True) > 0).all()
    with pytest.raises(CheckpointError, match=r"b\.npz: cannot adapt: an exported model has no"):
        exported.nll(text, adapt=True)


def test_changed_file_is_not_mixed(text: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"hidden_size": 4, "output": tmp_path / "a.npz", "force": True}
    charrnn.train(text, max_steps=3, **options)
    model = charrnn.load(tmp_path / "a.npz")
    charrnn.train(text, max_steps=4, **options)
    with pytest.raises(CheckpointError, match=r"a\.npz: has changed since it was loaded"):
        model.nll(text, mix=True)


def test_mixed_samples_are_repeatable_and_spell_better(cli: Cli, run: Path, text: str) -> None:
    words = set(re.findall("[a-z]+", text))

    def sample(*options: str) -> str:
        return cli("sample", "--length", "600", "--seed", "3", *options).stdout.decode()

    mixed = sample("--mix")
    assert sample("--mix") == mixed != sample()
    shares = [
        np.mean([word in words for word in re.findall("[a-z]+", each)])
        for each in (mixed, sample("--no-mix"))
    ]
    assert shares[0] > shares[1] + 0.1
    one = sample("--mix", "--num-samples", "33", "--workers", "2")
    assert len(one) > 33 * 600


def test_average_is_of_the_last_weights(text: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "seq_length": 16, "batch_size": 8, "max_steps": 60}
    run, weights = begin(Corpus("text", text), Config(**sizes)), []
    for step in train_steps(run):
        if step.step > 42:
            weights.append(run.network.params.vector.copy())
    assert len(weights) == 18
    np.testing.assert_allclose(run.average_weights, np.mean(weights, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_better_of_average_and_last_weights_is_kept(text: str, schedule: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "seq_length": 16, "batch_size": 8, "max_steps": 60}
    sizes |= {"lr_schedule": schedule, "learning_rate": 0.1 if schedule == "constant" else 0.01}
    run = begin(Corpus("text", text), Config(**sizes))
    for _ in train_steps(run):
        pass
    candidates = run.average_weights, run.network.params.vector
    average, last = (
        run.splits.val.scores(run.network_with(weights))[0].sum() / run.splits.val.characters
        for weights in candidates
    )
    assert (run.state.num_averaged > 0) == (average <= last) == (schedule == "constant")
    kept = candidates[0 if average <= last else 1]
    assert (run.best_weights == kept).all()
    assert run.state.best == {"step": 60, "val_loss": pytest.approx(min(average, last), abs=1e-6)}


def test_average_and_counts_survive_an_interruption(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    whole = trained(text)
    run = begin(Corpus("text", text), dataclasses.replace(whole.config))
    for step in train_steps(run):
        if step.step == 50:
            break
    save(run, path)
    assert read_run(path).num_averaged == 8
    again = resume(path, Corpus("text", text))
    for _ in train_steps(again):
        pass
    assert (again.average_weights == whole.average_weights).all()
    assert again.state.mixing == whole.state.mixing
    assert again.state.counts == whole.state.counts


@pytest.mark.parametrize("mask", [None, "numbers"])
def test_lines_are_scored_by_counts_that_learn(text: str, mask: str | None) -> None:
    model = charrnn.train(text, hidden_size=8, max_steps=40, mask=mask, seed=1)
    lines = [*text.splitlines(keepends=True)[:5], "zz é 12 qxv\n"] * 2
    whole = model.score_lines("".join(lines), learner=model.learning_mixture())
    learner = model.learning_mixture()
    one_by_one = [model.score_lines(line, learner=learner).nll[0] for line in lines]
    np.testing.assert_allclose(whole.nll, one_by_one, rtol=1e-5)
    assert (whole.nll[6:] < whole.nll[:6]).all()  # the same lines again
    assert whole.nll[0] == pytest.approx(model.nll(lines[0], mix=True).mean(), rel=1e-5)
    untouched = model.score_lines("".join(lines), learner=model.learning_mixture())
    np.testing.assert_array_equal(untouched.score, whole.score)


def test_score_and_show_mix_on_request(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    source = Path("corpus.txt").read_text()[:300]
    Path("new.txt").write_text(source)
    for options in (("--per", "file"), ("--per", "file", "--adapt")):
        row = json.loads(cli("score", "new.txt", "--json", "--mix", *options).stdout)
        nll = model.nll(source, mix=True, adapt="--adapt" in options).mean()
        assert row["bits"] == pytest.approx(nll / math.log(2))
    lines = [
        json.loads(row) for row in cli("score", "new.txt", "--json", "--mix").stdout.splitlines()
    ]
    live = cli("score", "-", "--json", "--mix", stdin=source.encode()).stdout.splitlines()
    assert [json.loads(row)["bits"] for row in live] == pytest.approx(
        [r["bits"] for r in lines], rel=1e-5
    )
    cli("score", "new.txt", "--mix", "--quantile", "0.5")
    shown = [cli("show", "new.txt", "--color", "never", *mix).stderr for mix in ([], ["--mix"])]
    bits = [float(re.findall(rb"([0-9.]+) bits per character", err)[0]) for err in shown]
    assert bits[1] < bits[0]
    scored = score_text(model, source, Learned(model.static_mixture))
    ids, context = model.vocabulary.encode(source), model.vocabulary.start_id
    scores = contiguous_scores(model.network, ids, context)
    nll, features = predict_text(model.counts, ids, context, scores[1], learn=False)
    wanted = mix(model.static_mixture.gate, features, scores[0], nll) / math.log(2)
    np.testing.assert_allclose(scored.bits[1:], wanted[1:], rtol=1e-4)


def test_score_and_show_adapt_on_request(cli: Cli, run: Path) -> None:
    model, source = charrnn.load(run), Path("corpus.txt").read_text()[:300]
    source += "\N{SNOWMAN}" + source + "\N{SNOWMAN}"  # unknown
    Path("new.txt").write_text(source, encoding="utf-8")

    # line by line: from a file as on a pipe, with and without the n-grams
    def bits_of_lines(*args: str, stdin: bytes = b"") -> list[float]:
        rows = cli("score", "--json", *args, stdin=stdin).stdout.splitlines()
        return [json.loads(row)["bits"] for row in rows]

    still = bits_of_lines("new.txt")
    adapted, mixed = (bits_of_lines("new.txt", "--adapt", *more) for more in ([], ["--mix"]))
    for wanted, more in ((adapted, []), (mixed, ["--mix"])):
        live = bits_of_lines("-", "--adapt", *more, stdin=source.encode())
        assert live == pytest.approx(wanted, rel=1e-5)
    assert sum(mixed) < sum(adapted) < sum(still)
    cli("score", "new.txt", "--adapt", "--quantile", "0.5")

    # all of it
    scored = score_text(model, source, Learned(adaptive=model.adaptive_network()))
    nll = model.nll(source, adapt=True) / math.log(2)
    np.testing.assert_allclose(scored.bits, nll, rtol=1e-5)
    assert (scored.p > 0).all()
    shown = [
        cli("show", "new.txt", "--color", "never", *adapt).stderr for adapt in ([], ["--adapt"])
    ]
    bits = [float(re.findall(rb"([0-9.]+) bits per character", err)[0]) for err in shown]
    assert bits[1] < bits[0]
    assert b"mutually exclusive" in cli("show", "new.txt", "--adapt", "--mix", rc=2).stderr


# --- the n-grams of a file ---


def test_counts_are_unpacked_as_they_were_packed() -> None:
    for size in (V, 300, 70_000):
        ids = np.random.default_rng(0).choice([0, 1, 2, size - 1], 400)
        stored = prune(list(number_ngrams(ids, size)))
        record, data = ngrams.pack(stored, size)
        counts, wanted = ngrams.unpack(record, data, size), Counts(size, stored)
        for a, b in zip(counts.levels, wanted.levels, strict=True):
            for name, array in vars(a).items():
                np.testing.assert_array_equal(array, getattr(b, name))


def damaged(change: Any) -> InvalidCheckpoint:
    ids = np.random.default_rng(0).choice(4, 400)
    stored = prune(list(number_ngrams(ids, V)))
    stored[2] = stored[2]._replace(**{k: f(getattr(stored[2], k)) for k, f in change.items()})
    with pytest.raises(InvalidCheckpoint) as e:
        ngrams.unpack(*ngrams.pack(stored, V), V)
    return e.value


@pytest.mark.parametrize(
    "change",
    [
        {"symbols": lambda a: a[::-1]},
        {"symbols": lambda a: a + 3},
        {"children": lambda a: a + 1},
        {"children": lambda a: a * 0},
        {"dropped": lambda a: a + 6},
        {"discounts": lambda a: a * 0},
        {"discounts": lambda a: a + 1},
        {"discounts": lambda a: np.array([0, 1.5, 1, 1])},
    ],
)
def test_inconsistent_counts_are_refused(change: Any) -> None:
    assert "the n-grams in counts.npy are inconsistent" in str(damaged(change))


def test_bytes_that_are_no_counts_are_refused() -> None:
    record, data = ngrams.pack(prune(list(number_ngrams(np.zeros(20, int), V))), V)
    bomb = np.frombuffer(zlib.compress(bytes(10**7)), np.uint8)
    for forged, message in (
        (data[:-1], "the size that"),
        (np.append(data, np.uint8(0)), "the size that"),
        (bomb, "the size that"),
        (data[::-1].copy(), "the expected format"),
    ):
        with pytest.raises(InvalidCheckpoint, match=message):
            ngrams.unpack(record, forged, V)


def test_damaged_counts_are_reported(cli: Cli, run: Path) -> None:
    state, arrays = checkpoint.read_checkpoint(run)
    assert isinstance(state, State)
    assert state.counts
    state.counts["sizes"][0] += 1
    checkpoint.write_checkpoint(run, state, arrays)
    err = cli("eval", run, "corpus.txt", rc=4).stderr.decode()
    assert "damaged: counts.npy does not have the size that the header implies" in err
    assert cli("eval", run, "corpus.txt", "--no-mix").stdout


def test_run_with_damaged_counts_is_not_resumed(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    run = begin(Corpus("text", text), Config(hidden_size=8, max_steps=9))
    assert run.state.counts
    run.state.counts["discounts"][0] = (2.0, 2.0, 2.0, 2.0)
    save(run, path)
    with pytest.raises(CheckpointError, match=r"a\.npz: damaged: the n-grams in counts\.npy"):
        resume(path, Corpus("text", text))
