"""Questions about pictures: lines that name their row of vectors, and answers to them."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.config import Config
from charrnn.errors import TextError, UsageError
from charrnn.tasks.layouts import Line, read_files, split_index
from charrnn.tasks.lines import load_line_task
from charrnn.tasks.text import Text
from charrnn.training.splits import text_of
from tests.conftest import Cli, read_run

COLORS, SIZES, N = ["red", "green", "blue"], ["small", "large"], 90
SIZE = ("--hidden-size", "24", "--batch-size", "10", "--workers", "1", "-q", "--seed", "1")
TRAIN = ("train", "questions.tsv", "--features", "vectors.npy", *SIZE)


def answers() -> list[dict[str, str]]:
    """Return the answers about each picture, by their questions."""
    rng = np.random.default_rng(0)
    picks = zip(rng.integers(0, 3, N), rng.integers(0, 2, N), strict=True)
    return [{"color?": COLORS[c], "size?": SIZES[s]} for c, s in picks]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write vectors, and two questions about each, in an order of their own; none about row 5."""
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(1), []
    rows = 0.1 * rng.standard_normal((N, 4)).astype(np.float32)
    for row, of_row in enumerate(answers()):
        rows[row, COLORS.index(of_row["color?"])] += 2
        rows[row, 3] += 2 * SIZES.index(of_row["size?"])
        lines += [f"{row}\t{q}\t{a}\n" for q, a in of_row.items() if row != 5]
    np.save("vectors.npy", rows)
    Path("questions.tsv").write_text("".join(rng.permutation(lines).tolist()))


# --- the index of a row ---


def test_lines_name_their_rows() -> None:
    text = "\ufeff4\ta caption\r\n04\tquestion\tanswer\twith a TAB\n0\t\tempty question\n2\t\n"
    lines = read_files([("a", text)], None, False, ("v.npy", 5))
    assert [(line.row, line.text, line.target, line.number) for line in lines] == [
        (4, "", "a caption", 1),
        (4, "question", "answer\twith a TAB", 2),
        (0, "", "empty question", 3),
        (2, "", "", 4),
    ]
    assert not any(line.problem for line in lines)


def test_without_an_index_in_the_first_line_every_line_has_its_row() -> None:
    for first in ("-1\ta", "1", "x1\ta", " 1\ta", "²\ta", ""):
        lines = read_files([("a", f"{first}\n1\tb\n")], None, False, ("v.npy", 2))
        assert [line.row for line in lines] == [0, 1]
        assert lines[1][:2] == ("1", "b")
    with pytest.raises(TextError, match=r"a: 2 lines, but v.npy has 3 rows"):
        read_files([("a", "a\n1\tb\n")], None, False, ("v.npy", 3))


@pytest.mark.parametrize("line", ["a\tb", "", "1", "-1\ta", "1.0\ta", " 1\ta", "+1\ta", "²\ta"])
def test_a_line_without_an_index_is_bad(line: str) -> None:
    bad = read_files([("a", f"0\tx\n{line}\n")], None, False, ("v.npy", 2))[1]
    assert bad.problem == "it does not begin with the index of a row and a TAB"
    assert bad.place == "a, line 2"


def test_an_index_of_no_row_is_bad() -> None:
    for digits, shown in (("2", "2"), ("9" * 5000, "9" * 18 + "..."), ("00" + "8" * 18, "8" * 18)):
        row, rest, problem = split_index(f"{digits}\ta", "v.npy", 2)
        assert (row, rest) == (-1, "a")
        assert problem == f"there is no row {shown}: v.npy has rows 0 to 1"
    assert split_index("0" * 5000 + "1\ta", "v.npy", 2) == (1, "a", "")


@pytest.mark.usefixtures("pictures")
def test_bad_lines_are_named_or_left_out(cli: Cli) -> None:
    with Path("questions.tsv").open("a") as f:
        f.write("color?\tred\n90\tcolor?\tred\n")
    message = cli(*TRAIN, "--max-steps", "1", rc=3).stderr.decode()
    assert "questions.tsv, line 179: it does not begin with the index of a row" in message
    assert "line 180: there is no row 90: vectors.npy has rows 0 to 89 (2 bad lines" in message
    message = cli(*TRAIN[:-3], "--max-steps", "1", "--skip-bad").stderr.decode()
    assert "left out 2 bad lines of 180" in " ".join(message.split())


@pytest.mark.usefixtures("pictures")
def test_questions_about_a_picture_are_in_one_split(cli: Cli) -> None:
    with Path("questions.tsv").open("a") as f:
        f.writelines(f"{row}\tcolor?\tred\n" * 5 for row in range(10))
    how = ("--val-fraction", "0.2", "--test-fraction", "0.1", "--max-steps", "1")
    cli(*TRAIN, *how, "-o", "m.npz")
    corpus: Any = text_of(read_run(Path("m.npz")), Path("m.npz"))[0]
    a, b = corpus.split_offsets
    lines = corpus.lines[:a], corpus.lines[a:b], corpus.lines[b:]
    parts = [[line.row for line in part] for part in lines]
    assert [len({*part}) for part in parts] == [63, 18, 9]
    assert sum(map(len, parts)) == 2 * N - 2 + 50
    assert not {*parts[0]} & {*parts[1]} | {*parts[0]} & {*parts[2]} | {*parts[1]} & {*parts[2]}

    # each row counts once in the mean, whatever the number of lines about it
    train = np.load("vectors.npy")[sorted({*parts[0]})].astype(float)
    np.testing.assert_allclose(corpus.vectors.mean, train.mean(0), rtol=1e-9)
    np.testing.assert_allclose(corpus.vectors.deviation, train.std(0), rtol=1e-6)


@pytest.mark.usefixtures("pictures")
def test_an_index_that_counts_the_lines_changes_nothing() -> None:
    captions = [answer["color?"] for answer in answers()]
    texts = [
        "".join(f"{start}{caption}\n" for start, caption in zip(starts, captions, strict=True))
        for starts in ([""] * N, [f"{i}\t" for i in range(N)])
    ]
    config = Config(predict="text")
    task = load_line_task(config)
    plain, indexed = (task.read("a", config, t, features=Path("vectors.npy")) for t in texts)
    assert plain.lines == indexed.lines
    assert plain.split_offsets == indexed.split_offsets
    assert (plain.targets == indexed.targets).all()


def test_the_baseline_is_the_most_common_answer_of_a_question() -> None:
    pairs = [("a", "x"), ("a", "y"), ("a", "y"), ("b", "x"), ("b", "x"), ("b", "z"), ("b", "y")]
    lines = [Line(*pair, "f", i, "", i) for i, pair in enumerate(pairs)]
    test = [Line(*pair, "f", 0, "", 0) for pair in [("a", "y"), ("b", "x"), ("c", "x"), ("c", "y")]]
    found = Text().measure_baselines(lines, test)
    assert found["the most common text"]["exact"] == 0.75  # to c the most common of all


# --- answers ---


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("how", [(), ("--attention",)])
def test_questions_are_answered(cli: Cli, how: tuple[str, ...]) -> None:
    rows = np.load("vectors.npy")
    if how:  # two regions: the numbers of the colors, and those of the size
        np.save("vectors.npy", rows[:, None] * [[[1, 1, 1, 0], [0, 0, 0, 1]]])
    cli(*TRAIN, *how, "--max-steps", "300", "--lr", "0.02", "-o", "m.npz")
    row = json.loads(cli("eval", "m.npz", "--split", "test", "--json").stdout)
    assert row["exact"] == 1
    assert row["others"]["the most common text"]["exact"] < 0.8
    cli("report", "m.npz", "-o", "m.html")
    assert "None: every line of the test split is right" in Path("m.html").read_text()

    # a split is not that of another text
    text = Path("questions.tsv").read_text()
    Path("questions.tsv").write_text(text + text)
    assert b"different text" in cli("eval", "m.npz", "--split", "test", rc=4).stderr
    assert cli("eval", "m.npz", "questions.tsv", "--features", "vectors.npy").stdout

    # with an index, from a file with a mark at its start; the answer is not shown
    Path("some.tsv").write_text("\ufeff7\tsize?\twrong\n5\tcolor?\n007\tcolor?\t\n", "utf-8")
    ask = "predict", "m.npz", "--features", "vectors.npy"
    wanted = [answers()[7]["size?"], answers()[5]["color?"], answers()[7]["color?"]]
    assert cli(*ask, "some.tsv").stdout.decode().split() == wanted
    lines = cli(*ask, "some.tsv", "--json", "--beam", "2").stdout.decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [[row[key] for key in ("row", "text", "written")] for row in rows] == [
        [7, "size?", wanted[0]],
        [5, "color?", wanted[1]],
        [7, "color?", wanted[2]],
    ]
    assert all(-1 < row["log_probability"] < 0 for row in rows)

    # without one, line i is about row i, in each file
    Path("all.tsv").write_text("".join(f"{next(iter(a))}\twrong\n" for a in answers()[:30]))
    found = cli(*ask, "all.tsv", "all.tsv").stdout.decode().split()
    assert found == [a["color?"] for a in answers()[:30]] * 2
    stdin = b"size?\n" * 3
    assert cli(*ask, stdin=stdin).stdout.decode().split() == [a["size?"] for a in answers()[:3]]

    # the same from Python
    model = charrnn.load("m.npz")
    model.use_features(np.load("vectors.npy")[5:9])
    given = model.predict(["size?", "color?"], rows=np.array([2, 0]))
    assert given == wanted[:2]
    given = pickle.loads(pickle.dumps(given))
    assert given[0].log_probability == pytest.approx(rows[0]["log_probability"], abs=1e-4)


@pytest.mark.usefixtures("pictures")
def test_rows_are_counted_across_groups_of_lines(cli: Cli, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys.modules["charrnn.cli.predict"], "GROUP_LINES", 2)
    cli(*TRAIN, "--max-steps", "1", "-o", "m.npz")
    ask = "predict", "m.npz", "--features", "vectors.npy", "--json"
    for text, rows in (("a\n" * 5, [0, 1, 2, 3, 4]), ("3\ta\n" * 5, [3] * 5)):
        lines = cli(*ask, stdin=text.encode()).stdout.decode().splitlines()
        assert [json.loads(line)["row"] for line in lines] == rows


@pytest.mark.usefixtures("pictures")
def test_bad_questions_are_refused_in_one_line(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "1", "-o", "m.npz")
    Path("plain.tsv").write_text("a\tb\n" * 100)
    cli("train", "plain.tsv", "--predict", "text", *SIZE, "--max-steps", "1", "-o", "plain.npz")
    np.save("wide.npy", np.zeros((3, 5)))
    np.save("few.npy", np.zeros((3, 4)))
    ask = "predict", "m.npz", "--features", "few.npy"
    given: list[tuple[tuple[str, ...], bytes, int, str]] = [
        (ask, b"0\ta\nb\n", 3, "input, line 2: it does not begin with the index of a row and"),
        (ask, b"0\ta\n3\tb\n", 3, "input, line 2: there is no row 3: few.npy has rows 0 to 2"),
        (ask, b"a\n" * 4, 3, "input, line 4: there is no row 3: few.npy has rows 0 to 2"),
        ((*ask, "few.npy"), b"", 3, "few.npy: a NumPy array"),
        ((*ask, "missing.tsv"), b"", 3, "missing.tsv"),
        (("predict", "m.npz"), b"a", 2, "the model reads features: give a file of vectors"),
        (("predict", "m.npz", "-"), b"a", 2, "the model reads features: give a file of"),
        (("predict", "m.npz", "questions.tsv"), b"", 3, "not an array of numbers in a .npy file"),
        (("predict", "m.npz", "--features", "wide.npy"), b"a", 3, "a row has 5 numbers, the model"),
        (("predict", "m.npz", "--features", ""), b"a", 3, "not a regular file"),
        (("predict", "m.npz", "--features", "no.npy"), b"a", 3, "no.npy"),
        (("predict", "plain.npz", "--features", "few.npy"), b"a", 2, "the model reads none"),
        (("eval", "m.npz", "questions.tsv", "--features", "few.npy"), b"", 3, "there is no row"),
    ]
    for command, stdin, code, message in given:
        result = cli(*command, stdin=stdin, rc=code)
        assert message in " ".join(result.stderr.decode().split()), command
        assert not result.stdout
        assert len(result.stderr.strip().splitlines()) <= 2, command


@pytest.mark.usefixtures("pictures")
def test_bad_rows_are_refused_in_python(cli: Cli) -> None:
    cli(*TRAIN, "--max-steps", "1", "-o", "m.npz")
    model = charrnn.load("m.npz")
    with pytest.raises(UsageError, match=r"invalid row: 0; there are 0, .*; call use_features"):
        model.predict(["a"], rows=[0])
    model.use_features("vectors.npy")
    with pytest.raises(UsageError, match=r"^invalid row: -1; there are 90, from 0 on$"):
        model.predict(["a", "b"], rows=[0, -1])
    with pytest.raises(UsageError, match="invalid row: 90"):
        model.predict(["a"], rows=[90])
    with pytest.raises(UsageError, match="1 texts about features, but 2 rows"):
        model.predict(["a"], rows=range(2))
    with pytest.raises(UsageError, match="2 texts about features, but 0 rows"):
        model.predict(["a", "b"])
    assert model.predict([]) == []
    with pytest.raises(TypeError, match="integer"):
        model.predict(["a"], rows=[0.5])  # type: ignore[list-item]
    model = charrnn.train("a\tb\n" * 100, predict="text", hidden_size=4, max_steps=1, workers=1)
    with pytest.raises(UsageError, match="reads no features"):
        model.predict(["a"], rows=[0])
