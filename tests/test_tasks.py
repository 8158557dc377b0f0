"""The tasks other than the next symbol: reading, splits, training, prediction, evaluation."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.attentive import Attentive
from charrnn.config import Config
from charrnn.drawing.alignment import SHARE_SCALE
from charrnn.errors import TextError, UsageError
from charrnn.loss import log_softmax
from charrnn.network import Network
from charrnn.storage.header import InvalidCheckpoint, parse, serialize
from charrnn.tasks.base import Predictor
from charrnn.tasks.label import LabelPrediction, measure_labels
from charrnn.tasks.layouts import Line, read_files
from charrnn.tasks.line_corpus import Lines, new_record
from charrnn.tasks.lines import load_line_task
from charrnn.tasks.naive_bayes import (
    NaiveBayes,
    count_ngrams,
    fit_scale,
    pack_counts,
    unpack_counts,
)
from charrnn.tasks.tags import CountTagger
from charrnn.tasks.text import align, edit_distance, write_texts
from charrnn.text.batches import Position, batches_per_epoch, document_batches
from charrnn.text.vocabulary import Vocabulary
from tests import forge
from tests.conftest import ENV, Cli, read_run

SIZE = ("--hidden-size", "12", "--batch-size", "8", "--workers", "1", "-q")
LABELS = {"vowel": "aeiou", "digit": "0123456789", "rest": "xyzw"}


def labelled(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return texts of some characters with the kind of these as their label."""
    rng = random.Random(seed)
    labels = rng.choices(list(LABELS), weights=[6, 3, 1], k=n)
    return [("".join(rng.choices(LABELS[name], k=rng.randint(1, 6))), name) for name in labels]


def read(predict: str, *texts: str, **options: Any) -> Lines:
    config = Config(predict=predict, **options)
    return load_line_task(config).read("corpus", config, *texts)


def tab_lines(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"{text}\t{target}\n" for text, target in pairs)


# --- layouts ---


def test_every_layout_gives_the_same_lines(tmp_path: Path) -> None:
    pairs = [("Zoë, a", "x,y"), ('b "c"', "z w"), ("d", "x,y"), ("", "z w")]
    tabs = tab_lines(pairs)
    rows = [{"n": i, "label": label, "text": text} for i, (text, label) in enumerate(pairs)]
    objects = "".join(json.dumps(row) + "\n" for row in rows)
    table = 'n,label,text\n0,"x,y","Zoë, a"\n1,z w,"b ""c"""\n2,"x,y",d\n3,z w,\n'
    columns = "text,label"
    for text, chosen in (
        (tabs, None),
        (tabs.removesuffix("\n"), None),
        (tabs.replace("\n", "\r\n"), None),
        ("\ufeff" + tabs, None),
        (objects, columns),
        (table, columns),
    ):
        lines = read_files([("f", text)], chosen, by_file=False)
        assert [(line.text, line.target, line.problem) for line in lines] == [
            (*pair, "") for pair in pairs
        ]
    fasttext = "__label__x a b\n__label__y c\n"
    assert [line[:2] for line in read_files([("f", fasttext)], None, True)] == [
        ("a b", "x"),
        ("c", "y"),
    ]
    files = [("dir/x.txt", "a b\n\nc\n"), ("dir/y.txt", "d")]
    found = [(line.text, line.target, line.number) for line in read_files(files, None, True)]
    assert found == [("a b", "x", 1), ("c", "x", 3), ("d", "y", 1)]


@pytest.mark.parametrize(
    ("predict", "bad", "problem"),
    [
        ("label", "no tab", "it has no TAB"),
        ("label", "empty\t", "its label is empty"),
        ("label", "__label__x\ta", None),
        ("label", f"{'a' * 4001}\tx", "it has 4,001 characters, more than 4,000"),
        ("tags", "abc\tNV", "it has 3 characters and 2 tags"),
        ("tags", "\t", "it has no text"),
        ("text", "abc", "it has no TAB"),
    ],
)
def test_bad_lines_are_named_or_left_out(predict: str, bad: str, problem: str | None) -> None:
    good = "ab\tAB\ncd\tCD\n" * 3
    text = good + bad + "\n" + good
    if problem is None:
        assert len(read(predict, text).lines) == 13
        return
    with pytest.raises(TextError) as e:
        read(predict, text)
    hint = "(1 bad line of 13); --skip-bad leaves such lines out"
    assert str(e.value) == f"corpus, line 7: {problem} {hint}"
    corpus = read(predict, text, skip_bad=True)
    assert len(corpus.lines) == 12
    assert corpus.notes == [f"left out 1 bad line of 13: corpus, line 7: {problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"text": "a"}', "it has no 'label' that is a text or a number"),
        ("{text", "it is not a JSON object"),
        ('{"text": "\\ud800", "label": "x"}', "it has a lone surrogate"),
    ],
)
def test_bad_json_lines_are_named(text: str, problem: str) -> None:
    with pytest.raises(TextError, match=f"corpus, line 1: {problem}"):
        read(
            "label",
            text + '\n{"text": "b", "label": 1}\n{"text": 2, "label": "y"}\n',
            columns="text,label",
        )


def test_texts_that_cannot_be_learned_from_are_refused() -> None:
    for predict, text, message in (
        ("label", "a\tx\nb\tx\n", "only one label, 'x'"),
        ("label", "a\nb\n", "corpus, line 1: it has no TAB"),
        ("tags", "ab\tXX\n", "no two different tags"),
        ("text", "\n", "has no line to learn from"),
    ):
        with pytest.raises(TextError, match=message):
            read(predict, text)
    with pytest.raises(TextError, match="has no column 'label'; its first line names: text, x"):
        read("label", "text,x\na,b\n", columns="text,label")
    with pytest.raises(UsageError, match="must be two, as in text,label"):
        Config(predict="label", columns="text")


def test_options_of_other_tasks_are_refused_with_the_reason() -> None:
    for options, message in (
        ({"columns": "a,b"}, "--predict next does not read --columns: a text has no columns"),
        ({"predict": "label", "documents": "line"}, "does not read --documents: every line"),
        ({"predict": "tags", "seq_length": 9}, "does not read --seq-length: every line is read"),
    ):
        with pytest.raises(UsageError, match=message):
            Config(**options)


# --- splits ---


def test_splits_are_stratified_and_drawn_by_the_seed() -> None:
    pairs = [(f"{i}", "rare" if i % 10 == 0 else "common") for i in range(400)]
    how: dict[str, Any] = {"val_fraction": 0.1, "test_fraction": 0.2}
    corpus = read("label", tab_lines(pairs), **how)
    a, b = corpus.split_offsets
    parts = corpus.lines[:a], corpus.lines[a:b], corpus.lines[b:]
    assert [len(part) for part in parts] == [280, 40, 80]
    counts = [Counter(line.target for line in part)["rare"] for part in parts]
    assert sum(counts) == 40
    assert counts[1] == pytest.approx(4, abs=1)
    assert counts[2] == pytest.approx(8, abs=1)
    assert sorted(int(line.text) for line in corpus.lines) == list(range(400))
    assert read("label", tab_lines(pairs), **how).lines == corpus.lines
    assert read("label", tab_lines(pairs), seed=1, **how).lines != corpus.lines


def test_batches_have_whole_lines_and_their_targets() -> None:
    corpus = read("label", tab_lines(labelled(60)), val_fraction=0.1)
    config = Config(predict="label", val_fraction=0.1, batch_size=8)
    vocabulary = Vocabulary(corpus.store.codes, 0x110000 + 67)
    splits = load_line_task(config).make_splits(corpus, None, config, vocabulary)
    shape = splits.fit_batches(config)
    B, T, steps = shape["batch_size"], shape["seq_length"], shape["steps_per_epoch"]
    assert splits.document_ends is not None
    assert (B, T) == (8, 7)
    assert steps == batches_per_epoch(splits.document_ends, B, T)
    how = Position(), 0, [0, 4], slice(None), splits.targets, -1
    stream = document_batches(splits.train, splits.document_ends, B, T, *how)
    seen = []
    for batch in itertools.islice(stream, steps):
        assert batch.reset.all()
        assert batch.num_targets == (batch.ys >= 0).sum()
        for x, y in zip(batch.xs.T, batch.ys.T, strict=True):
            x, y = x[x >= 0], y[: (x >= 0).sum()]
            assert (y[:-1] < 0).all()
            if len(x):
                seen.append((vocabulary.decode(x), corpus.record["outputs"][y[-1]]))
    train = corpus.lines[: corpus.split_offsets[0]]
    assert sorted(seen) == sorted((line.text, line.target) for line in train)


# --- tags ---


@pytest.mark.parametrize(
    ("text", "per", "tags", "positions"),
    [
        ("ab\tXY\ncd\tYX", "character", ["X", "Y"], [0, 1]),
        ("ab cd\tN V\nef\tN", "word", ["N", "V"], [1, 4]),
        ("a b\tA B\nc d\tC D", "character", [" ", "A", "B", "C", "D"], [0, 1, 2]),
        ("ab\tN1 N2\ncd\tN2 N1", "symbol", ["N1", "N2"], [0, 1]),
    ],
)
def test_how_tags_are_written_is_found(
    text: str, per: str, tags: list[str], positions: list[int]
) -> None:
    corpus = read("tags", text, val_fraction=0.0, test_fraction=0.0)
    assert corpus.record == new_record(tags, per)
    first = corpus.lines[0]
    codes, targets = load_line_task(Config(predict="tags")).encode(
        *first[:2], corpus.record, "char"
    )
    assert len(codes) == len(first.text) + 1
    assert np.flatnonzero(targets >= 0).tolist() == positions


def test_a_tag_is_that_of_the_last_byte_or_jamo_of_a_character() -> None:
    record = new_record(["X", "Y"], "character")
    for unit, positions in (("byte", [2, 3]), ("jamo", [2, 3])):
        _, targets = load_line_task(Config(predict="tags")).encode("한a", "XY", record, unit)
        assert np.flatnonzero(targets >= 0).tolist() == positions


def test_counted_tags_back_off_to_shorter_contexts() -> None:
    lines = [Line("a b", "X Y", "f", 1), Line("c b", "X Z", "f", 2), Line("d b", "X Y", "f", 3)]
    tagger = CountTagger(lines, "word", 1)
    assert tagger.tag("c b") == ["X", "Z"]
    assert tagger.tag("q b") == ["X", "Y"]


# --- measures ---


def test_measures_of_labels() -> None:
    found, truth = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    f1 = (2 * 1 / 3 + 2 * 1 / 4 + 0) / 3
    assert measure_labels(found, truth) == {"accuracy": 0.5, "macro_f1": pytest.approx(f1)}
    rows = [LabelPrediction(["a", "b"], np.log([p, 1 - p])) for p in (0.5, 0.25, 0.25)]
    lines = [Line("", label, "f", 1) for label in ("a", "b", "unknown")]
    measures = load_line_task(Config(predict="label")).measure(rows, lines)
    assert measures["accuracy"] == pytest.approx(2 / 3)
    assert measures["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)


def test_edit_distance() -> None:
    for a, b, n in (("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("ab", "ba", 2)):
        assert edit_distance(a, b) == edit_distance(b, a) == n


def test_naive_bayes_is_that_of_counted_ngrams() -> None:
    pairs = labelled(50)
    texts, labels = [text for text, _ in pairs], [label for _, label in pairs]
    names = sorted(set(labels))
    bayes = NaiveBayes(count_ngrams(texts, [names.index(label) for label in labels], 3))

    def grams(text: str) -> set[str]:
        line = f"<{text}>"
        return {line[i : i + n] for n in range(1, 6) for i in range(len(line) - n + 1)}

    counts = {name: Counter[str]() for name in names}
    for text, label in pairs:
        counts[label].update(grams(text))
    distinct = len({gram for c in counts.values() for gram in c})
    for text in ("ae1", "zzz", "q"):
        scores = []
        for name in names:
            total = sum(counts[name].values()) + 0.1 * distinct
            p = [(counts[name][gram] + 0.1) / total for gram in grams(text)]
            scores.append(np.log(labels.count(name) + 0.1) + np.log(p).sum())
        np.testing.assert_allclose(
            bayes.log_probs([text])[0], log_softmax(np.array(scores)), atol=0.02
        )


def test_packed_counts_are_restored_and_damaged_ones_refused() -> None:
    counts = count_ngrams(["ab", "b"], [0, 2], 3)
    assert (unpack_counts(pack_counts(counts), 3) == counts).all()
    packed = pack_counts(counts)
    for data, C in ((packed[:-9], 3), (packed, 4), (np.zeros(9, np.uint8), 3)):
        with pytest.raises(InvalidCheckpoint, match=r"counts\.npy"):
            unpack_counts(data, C)


def test_the_scale_of_log_probabilities_has_the_lowest_loss() -> None:
    rng = np.random.default_rng(0)
    logp = log_softmax(rng.standard_normal((500, 4)))
    ys = np.array([rng.choice(4, p=p) for p in np.exp(log_softmax(0.3 * logp))])
    scales, rows = np.arange(0.01, 1, 0.01), np.arange(500)
    losses = {scale: -log_softmax(scale * logp)[rows, ys].mean() for scale in scales}
    assert fit_scale(logp, ys) == pytest.approx(min(losses, key=losses.__getitem__), abs=0.01)


# --- writing ---


@pytest.mark.parametrize("kind", [Network, Attentive])
def test_a_wide_beam_finds_the_most_likely_text(kind: type[Network]) -> None:
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary([97, 98, 0x110000 + 67], 0x110000 + 67)
    network = kind("gru", 3, 5, 1, np.float64, rng)
    network.params.vector[:] = 1.5 * rng.standard_normal(len(network.params.vector))
    network.params["by"][2] = 2.0
    predictor = Predictor(network, vocabulary, new_record([]), np.empty(0, np.uint8))
    sources = [np.array([0, 1, 2]), np.array([1, 2])]

    def log_prob(source: Any, text: tuple[int, ...]) -> float:
        xs = np.array([*source, *text])[:, None]
        ys = np.array([*[-1] * (len(source) - 1), *text, 2])[:, None]
        tape = network.new_tape(len(xs), 1)
        nats, _ = network.loss_and_grad(xs, ys, network.zero_state(1), tape, scale=1)
        return -float(nats.sum())

    texts = [t for n in range(7) for t in itertools.product([0, 1], repeat=n)]
    found = write_texts(predictor, sources, 64)
    greedy = write_texts(predictor, sources, 1)
    for source, (ids, logp), (first, of_first) in zip(sources, found, greedy, strict=True):
        assert tuple(ids) == max(texts, key=lambda t: log_prob(source, t))
        assert of_first <= logp == pytest.approx(log_prob(source, tuple(ids)), abs=1e-12)
        assert of_first == pytest.approx(log_prob(source, tuple(first)), abs=1e-12)
    alone = [write_texts(predictor, [source], 1)[0][0].tolist() for source in sources]
    assert [ids.tolist() for ids, _ in greedy] == alone


# --- the command line ---


@pytest.mark.parametrize("bidirectional", [False, True])
def test_labels_from_training_to_evaluation(cli: Cli, bidirectional: bool) -> None:
    pairs, both = labelled(200), ["--bidirectional"] if bidirectional else []
    Path("kinds.tsv").write_text(tab_lines(pairs))
    how = ("--predict", "label", "--max-steps", "150", *both, *SIZE)
    cli("train", "kinds.tsv", *how, "--val-fraction", "0.1", "--test-fraction", "0.2")
    run = Path("checkpoints/kinds.npz")
    state = read_run(run)
    assert state.task["outputs"] == ["digit", "rest", "vowel"]
    assert state.corpus["split_characters"] == {"train": 140, "val": 20, "test": 40}
    assert state.measures["model"]["accuracy"] > 0.9 > state.measures["majority"]["accuracy"]
    assert state.samples == []

    # the answer does not depend on a second column, the order or the number of lines
    texts = [text for text, _ in pairs[:30]]
    out = cli("predict", run, "-", stdin=tab_lines(pairs[:30]).encode()).stdout.decode()
    answers = [line.split("\t") for line in out.splitlines()]
    assert sum(answer[0] == label for answer, (_, label) in zip(answers, pairs, strict=False)) > 25
    alone = cli("predict", run, stdin=texts[7].encode()).stdout.decode()
    assert alone.split("\t") == [answers[7][0], f"{float(answers[7][1]):.4f}\n"]
    Path("texts.txt").write_text("\n".join(texts))
    rows = cli("predict", run, "texts.txt", "--json", "--top", "3").stdout.decode().splitlines()
    for text, answer, row in zip(texts, answers, map(json.loads, rows), strict=True):
        assert (row["text"], row["label"]) == (text, answer[0])
        assert sum(row["labels"].values()) == pytest.approx(1)

    # evaluation agrees with the end of the run
    row = json.loads(cli("eval", run, "--split", "test", "--json").stdout)
    assert row["others"].keys() == {"majority", "naive Bayes", "network alone"}
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert row[name] == pytest.approx(state.measures["model"][name])
    assert sum(sum(found.values()) for found in row["confusion"].values()) == 40
    Path("other.tsv").write_text("12\tdigit\nae\tnew\n")
    shown = cli("eval", run, "other.tsv").stdout.decode()
    assert shown.startswith("other.tsv: accuracy 0.5000")
    assert "true \\ predicted\t" in shown

    # everything that needs a language model is refused
    more = {"sample": [], "score": ["kinds.tsv"], "show": ["kinds.tsv"], "trace": ["ab"],
            "export": ["--html", "x.html"], "overlap": ["kinds.tsv"]}  # fmt: skip
    for command, args in more.items():
        done = cli(command, run, *args, rc=2)
        assert b"predicts label, and this needs a language model" in done.stderr, command
    assert b"outputs    3: digit, rest, vowel" in cli("info", run).stdout


@pytest.mark.parametrize("more", [(), ("--generative",)])
def test_resumed_run_gives_the_same_weights(cli: Cli, more: tuple[str, ...]) -> None:
    Path("kinds.tsv").write_text(tab_lines(labelled(80)))
    how = ("--predict", "label", "--max-steps", "12", "--dropout", "0.2", *SIZE, *more)
    cli("train", "kinds.tsv", *how, "-o", "whole.npz")
    cli("train", "kinds.tsv", *how, "-o", "parts.npz", "--stop-after", "5")
    cli("train", "kinds.tsv", "--resume", "-o", "parts.npz", "-q")
    with np.load("whole.npz") as whole, np.load("parts.npz") as parts:
        for name in ("best_weights", "last_weights", "optimizer_state"):
            assert (whole[name] == parts[name]).all()
    assert read_run(Path("whole.npz")).measures == read_run(Path("parts.npz")).measures


def test_tags_and_texts_from_training_to_evaluation(cli: Cli) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(300)]
    Path("tags.tsv").write_text(tab_lines([(w, w.upper()) for w in words]))
    Path("pairs.tsv").write_text(tab_lines([(w, w[0] * 2) for w in words]))
    for predict, name in (("tags", "accuracy"), ("text", "exact")):
        file = f"{'pairs' if predict == 'text' else 'tags'}.tsv"
        cli("train", file, "--predict", predict, "--max-steps", "300", *SIZE)
        run = f"checkpoints/{Path(file).stem}.npz"
        assert read_run(Path(run)).measures["model"][name] > 0.9
        row = json.loads(cli("eval", run, "--split", "test", "--json").stdout)
        assert row[name] == read_run(Path(run)).measures["model"][name]
        out = cli("predict", run, "-", stdin=b"abca\n").stdout.decode()
        assert out == ("ABCA\n" if predict == "tags" else "aa\n")
    found = cli("predict", "pairs", "-", "--beam", "4", "--json", stdin=b"abca\n").stdout
    row = json.loads(found)
    assert (row["text"], row["written"]) == ("abca", "aa")
    Path("one.tsv").write_text("abca\taa\n")
    one = json.loads(cli("eval", "pairs", "one.tsv", "--json").stdout)
    assert row["log_probability"] == pytest.approx(-3 * one["loss"], rel=1e-4)
    Path("one.tsv").write_text("abca\ta\u1f00\n")
    unknown = json.loads(cli("eval", "pairs", "one.tsv", "--json").stdout)
    assert unknown["loss"] > math.log(0x110000) / 3
    row = json.loads(cli("eval", "pairs", "--split", "test", "--json").stdout)
    assert row["loss"] == pytest.approx(read_run(Path("checkpoints/pairs.npz")).test_loss, rel=1e-6)
    done = cli("predict", "tags", "-", "--beam", "2", stdin=b"abc", rc=2)
    assert b"--beam is not for a model that predicts tags" in done.stderr
    done = cli("predict", "tags", "-", "--top", "2", stdin=b"abc", rc=2)
    assert b"--top is not for a model that predicts tags" in done.stderr


def test_attention_over_long_lines_has_fewer_lanes() -> None:
    corpus = read("text", tab_lines([("a" * 2000, "b" * 1000)] * 100))
    vocabulary, lanes = Vocabulary(corpus.store.codes, 0x110000 + 67), []
    for attention in (False, True):
        config = Config(predict="text", attention=attention)
        splits = load_line_task(config).make_splits(corpus, None, config, vocabulary)
        lanes.append(splits.fit_batches(config)["batch_size"])
    assert lanes == [2**16 // 3001, 2**24 // 3001**2]


def test_attention_is_trained_used_and_shown(cli: Cli) -> None:
    rng = random.Random(0)
    words = ["".join(rng.sample("abcd", k=rng.randint(1, 3))) for _ in range(300)]
    Path("turned.tsv").write_text(tab_lines([(w, w[::-1]) for w in words]))
    how = ("--predict", "text", "--attention", "--max-steps", "400", *SIZE, "--hidden-size", "24")
    cli("train", "turned.tsv", *how)
    run = "checkpoints/turned.npz"
    state = read_run(Path(run))
    assert state.config.attention
    assert state.measures["model"]["exact"] > 0.9
    row = json.loads(cli("eval", run, "--split", "test", "--json").stdout)
    assert row["exact"] == state.measures["model"]["exact"]
    assert b"parameters, with attention\n" in cli("info", run).stdout
    cli("export", run, "-o", "small.npz")
    for options in ([], ["--beam", "3"]):
        out = cli("predict", "small.npz", *options, stdin=b"acb\nb\n").stdout
        assert out == b"bca\nb\n"

    # a heat map for each line; without a TAB of the model's own answer
    shown = cli("show", run, "-", stdin=b"acb\tbca\nacb\n").stdout.decode()
    first, second = shown.split("\n\n")
    head, *rows = first.split("\n")
    assert head == "  acb\u21b5"
    assert [row[:2].rstrip() for row in rows] == ["b", "c", "a", "\u21b5"]
    assert second == first + "\n"
    alignment = align(charrnn.load(run).predictor, "acb", "bca")
    np.testing.assert_allclose(alignment.p.sum(1), 1, rtol=1e-5)
    marks = [SHARE_SCALE.marks[SHARE_SCALE.bin(p)] for p in alignment.p[0].tolist()]
    assert rows[0] == f"b {''.join(marks)}".rstrip()
    cli("show", run, "turned.tsv", "--length", "20", "--html", "map.html")
    assert Path("map.html").read_text().count("<pre") in range(2, 20)
    colored = cli("show", run, "-", "--color", "always", stdin=b"ab\tba\n").stdout.decode()
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == (
        "  ab\u21b5\nb ab\u21b5\na ab\u21b5\n\u21b5 ab\u21b5\n"
    )
    done = cli("show", run, "turned.tsv", "--gates", rc=2)
    assert b"--gates need a language model" in done.stderr
    done = cli("show", run, "-", "--length", "9000", stdin=b"a" * 4001, rc=3)
    assert b"a line of 4,001 characters, more than 4,000" in done.stderr

    # a header that says something else than the arrays is refused
    data = Path(run).read_bytes()
    for changes, message in (
        ({"attention": False}, b"has shape"),
        ({"attention": "yes"}, b"invalid attention"),
        ({"predict": "label"}, b"--predict label does not read --attention"),
    ):
        header = forge.header_of(data)
        header["config"] |= changes
        Path("forged.npz").write_bytes(forge.sealed(data, header))
        assert message in cli("predict", "forged.npz", stdin=b"", rc=4).stderr


def test_files_can_be_classes_and_weights_come_from_a_language_model(cli: Cli) -> None:
    for name in LABELS:
        text = "".join(f"{text}\n" for text, label in labelled(60) if label == name)
        Path(f"{name}.txt").write_text(text)
    names = [f"{name}.txt" for name in LABELS]
    cli("train", *names, "-o", "language.npz", "--max-steps", "3", "--seq-length", "8", *SIZE)
    how = ("--predict", "label", "--init-from", "language.npz", "--max-steps", "5")
    cli("train", *names, *how, "-o", "label.npz", "--batch-size", "8", "-q")
    assert read_run(Path("label.npz")).task["outputs"] == ["digit", "rest", "vowel"]
    assert read_run(Path("label.npz")).init_from["matched"] > 5
    row = json.loads(cli("eval", "label.npz", "rest.txt", "--json").stdout)
    assert row["confusion"].keys() == {"rest"}
    done = cli("predict", "language.npz", stdin=b"a\n", rc=2)
    assert b"a language model predicts no labels" in done.stderr


def test_a_separate_file_validates_and_an_exported_model_predicts(cli: Cli) -> None:
    Path("kinds.tsv").write_text(tab_lines(labelled(80)))
    Path("val.tsv").write_text(tab_lines(labelled(10, seed=1)) + "a\tnew\n")
    how = ("--predict", "label", "--val-file", "val.tsv", "--max-steps", "6", *SIZE)
    cli("train", "kinds.tsv", *how)
    state = read_run(Path("checkpoints/kinds.npz"))
    assert state.corpus["split_characters"] == {"train": 76, "val": 10, "test": 4}
    assert len(state.task["weights"]) == 2
    for options in ([], ["--no-counts", "--force"]):
        cli("export", "kinds", "-o", "small.npz", *options)
        found = cli("predict", "small.npz", stdin=b"12\n").stdout
        assert (found == cli("predict", "kinds", stdin=b"12\n").stdout) == (not options)
    assert b"no baselines" in cli("eval", "small.npz", "val.tsv").stderr


def test_help_has_the_options_of_tasks_in_groups(cli: Cli) -> None:
    text = cli("train", "--help").stdout.decode()
    _, language, lines = text.split("To predict ")
    assert language.startswith("the next symbol:")
    assert lines.startswith("label, tags or text:")
    for option in ("--seq-length", "--documents", "--mask", "--sample-every"):
        assert option in language
    for option in (
        "--predict",
        "--bidirectional",
        "--generative",
        "--attention",
        "--columns",
        "--skip-bad",
    ):
        assert option in lines


def test_a_text_of_a_few_lines_has_no_splits(cli: Cli) -> None:
    Path("few.tsv").write_text("a\tx\nb\ty\nc\tx\n")
    cli("train", "few.tsv", "--predict", "label", "--max-steps", "3", *SIZE)
    state = read_run(Path("checkpoints/few.npz"))
    assert state.corpus["split_characters"]["train"] == 3
    assert state.measures == {}
    assert cli("predict", "few", stdin=b"a\n\n").stdout.count(b"\n") == 2


def test_python_api_predicts() -> None:
    text = tab_lines(labelled(120))
    how: dict[str, Any] = {"hidden_size": 12, "batch_size": 8, "max_steps": 40, "workers": 1}
    model = charrnn.train(text, predict="label", **how)
    assert [p.best for p in model.predict(["1234", "aaee"])] == ["digit", "vowel"]
    with pytest.raises(UsageError, match="needs a language model"):
        model.nll("abc")
    with pytest.raises(UsageError, match="needs a language model"):
        next(model.sample(3))


def test_a_stream_is_answered_line_by_line(cli: Cli) -> None:
    Path("kinds.tsv").write_text(tab_lines(labelled(80)))
    cli("train", "kinds.tsv", "--predict", "label", "--max-steps", "2", *SIZE)
    command = [sys.executable, "-m", "charrnn", "predict", "checkpoints/kinds.npz"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ENV, stderr=subprocess.DEVNULL, **pipes) as process:
        assert process.stdin
        assert process.stdout
        for text in (b"abc\n", b"12\n"):
            process.stdin.write(text)
            process.stdin.flush()
            assert process.stdout.readline().count(b"\t") == 1
        process.stdin.close()
        assert process.wait() == 0


REGISTER_AND_RUN = """
import sys
from charrnn.config import TASKS
TASKS["longer"] = "tests.toy_task:Longer"
from tests.conftest import invoke
print(*(invoke(command.split()).stdout.decode() for command in sys.argv[1:]), sep="\\0")
"""


def test_registered_task_works_in_every_command(tmp_path: Path) -> None:
    rng = random.Random(0)
    pairs = [("a" * rng.randint(1, 9), "b" * 5) for _ in range(100)]
    (tmp_path / "pairs.tsv").write_text(tab_lines(pairs))
    how = "--predict longer --bidirectional --hidden-size 8 --max-steps 150 --lr 0.02 --workers 1"
    commands = [
        f"train pairs.tsv {how} --stop-after 5 -o toy.npz",
        "train pairs.tsv --resume -o toy.npz",
        "train --help",
        "eval toy.npz pairs.tsv --json",
        "predict toy.npz pairs.tsv",
        "info toy.npz",
    ]
    script = [sys.executable, "-c", REGISTER_AND_RUN, *commands]
    done = subprocess.run(script, cwd=tmp_path, env=ENV, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    _, _, text, row, found, info = done.stdout.decode().split("\0")
    assert "next|label|tags|text|longer" in text
    assert json.loads(row)["accuracy"] > 0.9
    assert set(found.split("\n")) == {"longer", "not longer", ""}
    assert "model: accuracy" in info


# --- checkpoints ---


def test_header_of_a_task_is_checked() -> None:
    config = Config(predict="label", hidden_size=3, unit="jamo", seed=2**64 - 1)
    task = new_record(["a", "b"])
    fields: dict[str, Any] = {"config": config, "task": task, "counts": None, "mixing": None}
    parsed: Any = parse(serialize(forge.run_state(**fields, measures={"x": {"f1": 0.5}})))
    assert parsed.task == task
    assert parsed.measures == {"x": {"f1": 0.5}}
    counts = {"counts": forge.COUNTS}
    for changes, message in (
        ({"task": None}, "invalid task in the header: of --predict label"),
        ({"config": forge.MODEL["config"]}, "invalid task in the header: of --predict next"),
        ({"task": new_record(["a", "a"])}, "task.outputs in the header: one of them"),
        (counts, "invalid counts in the header: only a language model"),
        ({"measures": {"x": {"y": "z"}}}, "invalid measures"),
    ):
        with pytest.raises(InvalidCheckpoint, match=message):
            parse(serialize(forge.run_state(**{**fields, **changes})))
