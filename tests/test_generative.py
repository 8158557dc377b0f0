"""Labels by the likelihood of a text: the network, Bayes' rule, and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.bidirectional import make_network
from charrnn.conditional import Conditional
from charrnn.config import CELLS, Config
from charrnn.errors import UsageError
from charrnn.loss import log_softmax
from charrnn.storage.state import TaskRecord
from charrnn.tasks.base import Predictor
from charrnn.tasks.generative import Generative
from charrnn.tasks.line_corpus import new_record
from charrnn.tasks.lines import load_line_task
from charrnn.text.batches import Position, document_batches
from charrnn.text.vocabulary import Vocabulary
from tests import forge
from tests.conftest import Cli, assert_gradients_match, assert_lanes_match_alone, read_run
from tests.test_tasks import SIZE, labelled, tab_lines

T, B, V, H, O = 5, 3, 7, 4, 5
LENGTHS = [5, 2, 4]
END = 0x110000 + 67
HOW = ("--predict", "label", "--generative", *SIZE)


def random_network(cell: str = "gru", num_layers: int = 1) -> Conditional:
    network = Conditional(cell, V, H, num_layers, np.float64, num_outputs=O)
    rng = np.random.default_rng(num_layers)
    network.params.vector[:] = 0.7 * rng.standard_normal(len(network.params.vector))
    return network


def random_batch(rng: np.random.Generator) -> tuple[Any, Any]:
    """Return ids and targets of lanes that end at different steps; two have the same label."""
    xs, ys = rng.integers(0, O, (T, B)), rng.integers(0, O, (T, B))
    xs[0] = [5, 6, 5]
    for lane, n in enumerate(LENGTHS):
        xs[n:, lane], ys[n:, lane] = 0, -1
    return xs, ys


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("num_layers", [1, 2])
def test_gradients_match_central_differences(cell: str, num_layers: int) -> None:
    rng = np.random.default_rng(0)
    xs, ys = random_batch(rng)
    assert_gradients_match(random_network(cell, num_layers), xs, ys, rng, num_layers == 2)


def test_a_padded_lane_gives_what_it_gives_alone() -> None:
    network, (xs, ys) = random_network("lstm", 2), random_batch(np.random.default_rng(0))
    assert_lanes_match_alone(network, xs, ys, network.zero_state(B), LENGTHS)


def test_the_label_is_read_at_every_step() -> None:
    network = random_network()
    network.params["0.Whh"][:] = 0  # nothing is remembered
    network.params["0.Wxh"][:, 5:] = [[1, -1]]
    xs, tape = np.array([[5, 6], [1, 1], [2, 2]]), network.new_tape(3, 2)
    network.forward(xs, network.zero_state(2), tape)
    assert (np.abs(np.diff(tape.logits, axis=2)).max(1) > 1e-3).all()


def test_options_that_make_no_sense_together_are_refused() -> None:
    assert type(make_network(Config(predict="label", generative=True), V)) is Conditional
    for predict in ("next", "tags", "text"):
        with pytest.raises(UsageError, match="--generative: only a label can be found"):
            Config(predict=predict, generative=True)
    with pytest.raises(UsageError, match="cannot be combined with --bidirectional: what predicts"):
        Config(predict="label", generative=True, bidirectional=True)


def test_lines_begin_with_their_labels() -> None:
    config = Config(predict="label", generative=True, val_fraction=0.1, batch_size=4)
    task, pairs = load_line_task(config), labelled(60)
    corpus = task.read("corpus", config, tab_lines(pairs))
    vocabulary = Vocabulary(corpus.store.codes, END)
    splits, end = task.make_splits(corpus, None, config, vocabulary), vocabulary.start_id[0]
    assert splits.document_ends is not None
    how = 4, splits.fit_batches(config)["seq_length"], Position(), 0, None, slice(None)
    stream = document_batches(splits.train, splits.document_ends, *how, splits.targets, 0)
    a, seen = corpus.split_offsets[0], list[tuple[str, str]]()
    while len(seen) < a:
        batch = next(stream)
        for x, y in zip(batch.xs.T, batch.ys.T, strict=True):
            y = y[y >= 0]
            if not len(y):  # an empty lane
                continue
            assert (x[1 : len(y)] == y[:-1]).all()
            assert y[-1] == end
            label = corpus.record["outputs"][x[0] - len(vocabulary)]
            seen.append((vocabulary.decode(y[:-1]), label))
    assert sorted(seen) == sorted(line[:2] for line in corpus.lines[:a])
    shares = dict(zip(corpus.record["outputs"], task.record_of(corpus)["shares"], strict=True))
    rare = [line.target for line in corpus.lines[:a]].count("rest")
    assert shares["rest"] == pytest.approx((rare + 0.1) / (a + 0.3))


def test_labels_are_predicted_by_bayes_rule() -> None:
    vocabulary, shares = Vocabulary([97, 98, 99, 100, END], END), [0.7, 0.3]
    network: Any = random_network()
    record: TaskRecord = {**new_record(["x", "y"]), "shares": shares}
    predictor = Predictor(network, vocabulary, record, np.empty(0, np.uint8))
    texts = ["ab", "", "dcba", "ab?", "b"] * 900  # of several groups
    found = Generative().log_probs(predictor, texts)
    for text, row in zip(texts[:5], found, strict=False):
        symbols = [vocabulary.id(ord(c)) for c in text]
        ids = [4 if i is None else i for i in symbols]
        ys = np.array([*(-1 if i is None else i for i in symbols), 4])[:, None]
        scores = []
        for label in (5, 6):
            tape, xs = network.new_tape(len(ys), 1), np.array([label, *ids])[:, None]
            nats, _ = network.loss_and_grad(xs, ys, network.zero_state(1), tape, scale=1)
            scores.append(np.log(shares[label - 5]) - nats.sum())
        np.testing.assert_allclose(row, log_softmax(np.array(scores)), atol=1e-9)
    np.testing.assert_allclose(found[5:10], found[:5], atol=1e-9)


def test_labels_from_training_to_evaluation(cli: Cli) -> None:
    Path("kinds.tsv").write_text(tab_lines(labelled(200)))
    cli("train", "kinds.tsv", *HOW, "--max-steps", "200", "--test-fraction", "0.2")
    run = Path("checkpoints/kinds.npz")
    state = read_run(run)
    assert state.measures["model"]["accuracy"] > 0.9 > state.measures["majority"]["accuracy"]
    assert state.task["outputs"] == ["digit", "rest", "vowel"]
    assert sum(state.task["shares"]) == pytest.approx(1)
    row = json.loads(cli("eval", run, "--split", "test", "--json").stdout)
    assert row["others"].keys() == {"majority", "naive Bayes", "network alone"}
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert row[name] == pytest.approx(state.measures["model"][name])

    # the answer depends neither on a second column nor on the lines around it
    out = cli("predict", run, "-", "--top", "3", stdin=b"aeo\tdigit\n12\n").stdout
    alone = cli("predict", run, "-", "--top", "3", stdin=b"12").stdout
    assert out.splitlines()[1] == alone.strip()
    assert [line.split(b"\t")[0] for line in out.splitlines()] == [b"vowel", b"digit"]
    cli("export", run, "-o", "small.npz", "--half", "--no-counts")
    assert cli("predict", "small.npz", stdin=b"12\n").stdout.startswith(b"digit\t")
    done = cli("sample", run, rc=2)
    assert b"predicts label, and this needs a language model" in done.stderr

    # a header that says something else is refused
    for record, field in (("config", "generative"), ("task", "shares"), ("task", "outputs")):
        header = forge.header_of(run.read_bytes())
        header[record][field] = [] if record == "task" else False
        Path("forged.npz").write_bytes(forge.sealed(run.read_bytes(), header))
        assert b"invalid task." in cli("predict", "forged.npz", stdin=b"", rc=4).stderr


def test_initial_weights_are_matched_by_symbol_and_label(cli: Cli) -> None:
    pairs = labelled(60)
    Path("kinds.tsv").write_text(tab_lines(pairs))
    Path("texts.txt").write_text("".join(f"{text}\n" for text, _ in pairs))
    Path("two.tsv").write_text(tab_lines([p for p in pairs if p[1] != "digit"] + [("Q", "rest")]))
    cli("train", "texts.txt", "-o", "language.npz", "--max-steps", "3", *SIZE)
    cli("train", "kinds.tsv", "-o", "kinds.npz", "--max-steps", "3", *HOW)
    how = ("--predict", "label", "--generative", "--max-steps", "1", "--lr", "0", "-q")
    for initial, names in (("language", []), ("kinds", ["rest", "vowel"])):
        cli("train", "two.tsv", *how, "-o", f"{initial}.2.npz", "--init-from", f"{initial}.npz")
        old, new = charrnn.load(f"{initial}.npz"), charrnn.load(f"{initial}.2.npz")
        wanted, found = old.network.params, new.network.params
        for c in "ae":
            i, j = old.vocabulary.id(ord(c)), new.vocabulary.id(ord(c))
            assert (wanted["0.Wxh"][:, i] == found["0.Wxh"][:, j]).all()
            assert (wanted["Why"][i] == found["Why"][j]).all()
        for label in names:
            i, j = (
                len(model.vocabulary) + model.state.task["outputs"].index(label)  # type: ignore
                for model in (old, new)
            )
            assert (wanted["0.Wxh"][:, i] == found["0.Wxh"][:, j]).all()
    back = ("--init-from", "kinds.npz", "--max-steps", "1", "-q")
    cli("train", "texts.txt", "-o", "back.npz", *back)
    assert cli("sample", "back.npz", "-n", "20").stdout
