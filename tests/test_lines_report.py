"""What is most wrong: in ``charrnn eval --wrong``, and in the report of labels, tags or texts."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.config import Config
from charrnn.drawing.lines_report import MAX_SHOWN_LABELS, Predictions, render_lines_report
from charrnn.tasks.label import LabelPrediction
from charrnn.tasks.layouts import Line
from charrnn.tasks.lines import load_line_task
from charrnn.tasks.tags import TagPrediction
from tests.conftest import Cli, read_run
from tests.pages import HOSTILE, Page
from tests.test_tasks import SIZE, labelled, tab_lines

LABELS = ["a", "b", "c"]
TITLES = [
    "Loss",
    "Comparison with simpler methods",
    "Confusion matrix",
    "Most wrong",
    "Corpus and model",
    "Problems and notes",
    "Reproducing this run",
]


def mistakes(predict: str, predictions: list[Any], targets: list[str], n: int) -> list[Any]:
    """Return the index of the line, what is predicted, and the error of each mistake."""
    lines = [Line("text", target, "f", i) for i, target in enumerate(targets)]
    found = load_line_task(Config(predict=predict)).find_mistakes(predictions, lines, n)
    return [(line.number, predicted, pytest.approx(error)) for line, predicted, error in found]


def test_the_worst_mistakes_come_first() -> None:
    rows = [[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]
    labels = [LabelPrediction(LABELS, np.log(row)) for row in rows]
    wanted = [(1, "a", math.inf), (2, "a", -math.log(0.1)), (0, "a", -math.log(0.3))]
    assert mistakes("label", labels, ["b", "new", "c", "a"], 9) == wanted
    assert mistakes("label", labels, ["b", "new", "c", "a"], 2) == wanted[:2]
    tags = [TagPrediction(list(tags), "character") for tags in ("aab", "abb", "aaa")]
    assert mistakes("tags", tags, ["aaa", "aaa", "aaa"], 9) == [(1, "abb", 2), (0, "aab", 1)]
    wanted = [(1, "abc", 3), (2, "", 1), (0, "abc", 0.5)]
    assert mistakes("text", ["abc", "abc", "", "x"], ["ac", "", "xy", "x"], 9) == wanted


@pytest.fixture
def run(cli: Cli) -> Path:
    """A run that predicts labels, some of them wrong."""
    pairs = labelled(150)
    noisy = [(text, "digit" if i % 5 == 0 else label) for i, (text, label) in enumerate(pairs)]
    Path("kinds.tsv").write_text(tab_lines(noisy))
    how = ("--predict", "label", "--max-steps", "40", "--test-fraction", "0.2", *SIZE)
    cli("train", "kinds.tsv", *how)
    return Path("checkpoints/kinds.npz")


def test_eval_lists_what_is_most_wrong(cli: Cli, run: Path) -> None:
    row = json.loads(cli("eval", run, "--split", "test", "--wrong", "3", "--json").stdout)
    assert len(row["wrong"]) == 3
    losses = [mistake["loss"] for mistake in row["wrong"]]
    assert losses == sorted(losses, reverse=True)
    source = Path("kinds.tsv").read_text().splitlines()
    for mistake in row["wrong"]:
        assert source[mistake["line"] - 1] == f"{mistake['text']}\t{mistake['target']}"
        assert mistake["predicted"] != mistake["target"]
    table = cli("eval", run, "--split", "test", "--wrong", "3").stdout.decode().splitlines()[-4:]
    assert table[0] == "loss\ttext\tright\tpredicted"
    first = row["wrong"][0]
    wanted = [f"{losses[0]:.4g}", first["text"], first["target"], first["predicted"]]
    assert table[1].split("\t") == wanted
    assert "wrong" not in json.loads(cli("eval", run, "kinds.tsv", "--json").stdout)
    Path("new.tsv").write_text("a\tnew\n")
    row = json.loads(cli("eval", run, "new.tsv", "--wrong", "3", "--json").stdout)
    assert row["wrong"][0]["loss"] is None
    Path("text.txt").write_text("abc " * 50)
    cli("train", "text.txt", "-o", "language.npz", "--max-steps", "2", *SIZE)
    done = cli("eval", "language.npz", "text.txt", "--wrong", "3", rc=2)
    assert b"--wrong is for models of labels, tags or texts" in done.stderr


def test_report_agrees_with_the_evaluation(cli: Cli, run: Path) -> None:
    cli("report", run)
    html = Path("kinds.html").read_text()
    page, state = Page(html), read_run(run)
    assert page.texts["h2"] == TITLES
    row = json.loads(cli("eval", run, "--split", "test", "--wrong", "20", "--json").stdout)
    cells = page.texts["td"]
    for measures in state.measures.values():
        assert f"{measures['accuracy']:.4f}" in cells
    assert page.texts["b"] == [
        str(row["confusion"].get(label, {}).get(label, "")) for label in state.task["outputs"]
    ]
    worst = cells[-4 * len(row["wrong"]) :]
    assert worst[1::4] == [mistake["text"] for mistake in row["wrong"]]
    assert worst[2::4] == [mistake["target"] for mistake in row["wrong"]]
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts["documents"] == "lines, each read on its own"
    assert facts["initial loss"].endswith(f"uniform: {math.log(3):.4f} nats")
    assert "Losses are per target." in page.texts["p"]
    assert cli("report", run, "-o", "-").stdout.decode() == html

    # without the text
    Path("kinds.tsv").unlink()
    page = Page(cli("report", run, "-o", "-").stdout.decode())
    assert page.texts["h2"] == [*TITLES[:2], "Examples", *TITLES[4:]]
    assert any(p.startswith("Omitted because the text is unavailable") for p in page.texts["p"])


@pytest.mark.parametrize("predict", ["tags", "text"])
def test_report_of_tags_and_texts(cli: Cli, predict: str) -> None:
    Path("pairs.tsv").write_text(tab_lines([(text, text.upper()) for text, _ in labelled(80)]))
    cli("train", "pairs.tsv", "--predict", predict, "--max-steps", "4", *SIZE)
    page = Page(cli("report", "pairs", "-o", "-").stdout.decode())
    assert page.texts["h2"] == [title for title in TITLES if title != "Confusion matrix"]
    name = {"tags": "wrong tags", "text": "character error rate"}[predict]
    assert page.texts["th"][-4:] == [name, "text", "right", "predicted"]


def test_hostile_strings_change_nothing_but_the_text(run: Path) -> None:
    pages = []
    for word in ("dull", HOSTILE):
        state = copy.deepcopy(read_run(run))
        state.measures = {word: {word: 0.5}, "model": {"accuracy": 0.5}}
        confusion, wrong = [["", word], [word, "1"]], [[word] * 4, [word] * 4]
        found = Predictions(word, confusion, wrong)
        pages += [render_lines_report(state, found), render_lines_report(state, None, word)]
    for plain, html in zip(pages[:2], pages[2:], strict=True):
        assert [tag for tag, _ in Page(html).tags] == [tag for tag, _ in Page(plain).tags]
        assert html.count("&lt;script&gt;hacked = 1") == plain.count("dull")
        assert all(c == "\n" or c.isprintable() for c in html)


def test_a_matrix_of_many_labels_has_those_of_the_most_lines(run: Path) -> None:
    names = [f"label {i}" for i in range(MAX_SHOWN_LABELS + 1)]
    rows = [[name, *("2" if i == j else "0" for j in range(len(names)))] for i, name in
            enumerate(names)]  # fmt: skip
    rows[7][8] = "1"
    found = Predictions("test split", [["", *names], *rows], [["loss"], ["a" * 999]])
    page = Page(render_lines_report(read_run(run), found))
    assert len(page.texts["b"]) == MAX_SHOWN_LABELS
    assert not {"label 7"} & {*page.texts["th"]}
    assert page.texts["td"][-1] == "a" * 300 + "..."
    part = f"The {MAX_SHOWN_LABELS} labels of the most lines, of {MAX_SHOWN_LABELS + 1}."
    assert any(part in p for p in page.texts["p"])
