"""Labels and tags with the unit word: symbols, targets, vocabulary, and runs from start to end."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.cli.train import share_text
from charrnn.cluster import SINGLE
from charrnn.config import Config
from charrnn.errors import UsageError
from charrnn.tasks.line_corpus import Lines, new_record
from charrnn.tasks.lines import END, join_words, load_line_task
from charrnn.text.units import END_OF_DOCUMENT, END_SPELL, SPELL
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.run import Run, begin
from tests.conftest import Cli, read_run

SIZE = ("--hidden-size", "16", "--batch-size", "8", "--workers", "1", "-q")
KINDS = {"N": ["ship", "king", "sea-shore", "don't"], "V": ["sail", "sing", "see"]}


def tagged(n: int, seed: int = 0) -> str:
    """Return sentences of some words, with a tag for each, that the word or its ending decides."""
    rng = random.Random(seed)
    lines = []
    for _ in range(n):
        tags = rng.choices("NV", k=rng.randint(1, 5))
        words = [rng.choice(KINDS[tag]) for tag in tags]
        if rng.random() < 0.5:  # a word that occurs once, whose ending has a tag
            words[-1] = "".join(rng.choices("abcdefghij", k=6)) + (
                "er" if tags[-1] == "N" else "ly"
            )
        lines.append(f"{' '.join(words)}\t{' '.join(tags)}\n")
    return "".join(lines)


def begin_run(predict: str, text: str, **options: Any) -> Run:
    config = Config(predict=predict, unit="word", hidden_size=4, **options)
    return begin(load_line_task(config).read("corpus", config, text), config)


# --- symbols and targets ---


def test_target_of_a_word_is_at_its_last_symbol() -> None:
    vocabulary = Vocabulary.from_text("the king's king the 's\n" * 3, "word")
    vocabulary = Vocabulary(
        [*vocabulary.codes[vocabulary.codes < 2**21].tolist(), END_OF_DOCUMENT],
        END_OF_DOCUMENT,
        "word",
        vocabulary.words,
    )
    text, record = " the  thing's king", new_record(["A", "B", "C"], "word")
    pair = load_line_task(Config(predict="tags")).encode(text, "A B C", record, "word")
    codes, targets = join_words(text, *pair, vocabulary)
    ids = vocabulary.ids_of(codes)
    names = vocabulary.texts
    spelled = {SPELL: "<", END_SPELL: ">", END_OF_DOCUMENT: "$"}
    shown = [spelled.get(code) or names[i] for i, code in zip(ids, codes.tolist(), strict=True)]
    # two blanks have no symbol either
    expected = [" ", "the", "<", " ", " ", ">", "<", *"thing", ">", "'", "s", " ", "king", "$"]
    assert shown == expected
    assert {shown[i]: t for i, t in enumerate(targets.tolist()) if t >= 0} == {
        "the": 0,
        "s": 1,
        "king": 2,
    }
    assert vocabulary.decode(ids) == text

    # a spelled word has its target at the end of its spelling
    pair = load_line_task(Config(predict="tags")).encode("thing", "C", record, "word")
    codes, targets = join_words("thing", *pair, vocabulary)
    assert targets.tolist() == [-1] * 6 + [2, -1]
    assert codes[6] == END_SPELL
    codes, targets = join_words("", END, np.array([1]), vocabulary)
    assert (codes.tolist(), targets.tolist()) == (END.tolist(), [1])


def test_only_words_of_the_training_lines_have_a_symbol() -> None:
    corpus_text = "".join(f"w{'abcdefghij'[i % 10]} seen\tA B\nother one\tB A\n" for i in range(60))
    run = begin_run("tags", corpus_text, val_fraction=0.2, test_fraction=0.2)
    assert run.vocabulary.words == ["one", "other", "seen", *(f"w{c}" for c in "abcdefghij")]
    text = "".join(f"line number {'abcdefgh'[i % 8] * (i + 2)}\tA B B\n" for i in range(30))
    doubled = text + "new new\tA B\n"
    for seed in range(40):  # until the line is not in the training split
        run = begin_run("tags", doubled, val_fraction=0.2, test_fraction=0.2, seed=seed)
        assert ("new" in run.vocabulary.words) == ("new new" in train_texts(run))
        if "new new" not in train_texts(run):
            break
    else:
        pytest.fail("the line is always for training")

    # what occurs once is spelled in training; nothing is lost
    codes = run.vocabulary.codes[run.splits.train[:]]
    assert (codes == SPELL).sum() > 10
    assert run.splits.targets is not None
    assert (run.splits.targets >= 0).sum() == run.splits.train_characters


def train_texts(run: Run) -> set[str]:
    ends, ids = run.splits.document_ends, run.splits.train[:]
    assert ends is not None
    return {run.vocabulary.decode(part[:-1]) for part in np.split(ids, ends[:-1])}


def test_what_words_cannot_have_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a tag for each word; here each character has one"):
        begin_run("tags", "abc\tABC\nabd\tABD\n" * 9)
    with pytest.raises(UsageError, match="--predict text does not read --unit word: a text that"):
        Config(predict="text", unit="word")


# --- runs ---


@pytest.mark.parametrize("bidirectional", [False, True])
def test_tags_by_words_from_training_to_evaluation(cli: Cli, bidirectional: bool) -> None:
    Path("tags.tsv").write_text(tagged(250))
    both = ["--bidirectional"] if bidirectional else []
    how = (
        "--predict",
        "tags",
        "--unit",
        "word",
        "--lr",
        "0.01",
        "--max-steps",
        "120",
        *both,
        *SIZE,
    )
    cli("train", "tags.tsv", *how, "--test-fraction", "0.2", "--stop-after", "20")
    cli("train", "tags.tsv", "--resume", "-q")
    cli("train", "tags.tsv", *how, "--test-fraction", "0.2", "-o", "whole.npz")
    run = Path("checkpoints/tags.npz")
    with np.load("whole.npz") as whole, np.load(run) as parts:
        assert (whole["best_weights"] == parts["best_weights"]).all()
    state = read_run(run)
    assert "sail" in state.vocabulary["words"]
    model, counts = state.measures["model"], state.measures["most common tag of each word"]
    assert model["accuracy"] > 0.95 > counts["accuracy"]

    # words that were never seen, and a space at the end
    out = cli("predict", run, stdin=b"king ajajajly sea-shore\nhahahaer\n\n ship \n").stdout
    assert out == b"N V N\nN\n\nN\n"
    row = json.loads(cli("eval", run, "--split", "test", "--json").stdout)
    assert row["accuracy"] == model["accuracy"]
    cli("export", run, "-o", "small.npz")
    assert cli("predict", "small.npz", stdin=b"king\n").stdout == b"N\n"
    assert b"words" in cli("train", "tags.tsv", *how[:-1], "--max-steps", "1", "-o", "x").stderr


def test_labels_by_words_and_a_separate_file(cli: Cli) -> None:
    rng = random.Random(1)
    words = {"good": ["fine", "great", "not bad"], "bad": ["poor", "awful", "not fine"]}
    rows = [(label, rng.choice(words[label])) for label in rng.choices([*words], k=150)]
    text = "".join(f"a {word}, {'xyz'[i % 3] * (i % 7)} film\t{label}\n"
                   for i, (label, word) in enumerate(rows))  # fmt: skip
    Path("a.tsv").write_text(text)
    Path("val.tsv").write_text(text[: text.index("\n", 900) + 1])
    how = ("--predict", "label", "--unit", "word", "--lr", "0.02", "--max-steps", "150", *SIZE)
    cli("train", "a.tsv", *how, "--val-file", "val.tsv")
    assert read_run(Path("checkpoints/a.npz")).measures["network alone"]["accuracy"] > 0.9
    out = cli("predict", "checkpoints/a.npz", stdin=b"a not fine film\nan awful qqq film\n").stdout
    assert [line.split("\t")[0] for line in out.decode().splitlines()] == ["bad", "bad"]
    cli("train", "val.tsv", *how[:2], "--init-from", "a", "-o", "b.npz", "--max-steps", "2", "-q")
    words_of = [read_run(Path(p)).vocabulary["words"] for p in ("checkpoints/a.npz", "b.npz")]
    assert words_of[0] == words_of[1]


def test_store_of_a_corpus_keeps_its_characters() -> None:
    config = Config(predict="tags", unit="word")
    corpus = load_line_task(config).read("corpus", config, "a king\tA B\nking a\tB A\n" * 9)
    assert isinstance(corpus, Lines)
    assert corpus.training_end(0.0, config.test_fraction) > corpus.training_end(0.5, 0.0)
    assert corpus.characters == 18 * len("a king")


def test_ranks_do_not_read_words_for_themselves() -> None:
    run = begin_run("tags", "a king\tA B\nking a\tB A\n" * 9)
    with pytest.raises(UsageError, match="--local-ids cannot be combined with --unit word"):
        share_text(run, Path("x.npz"), SINGLE, lambda *_: pytest.fail("the text is read"))
