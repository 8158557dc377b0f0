"""The benchmarks run and fill in their tables; their results are not checked."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from charrnn.tasks.layouts import read_files
from charrnn.tasks.lines import load_line_task
from charrnn.tasks.tags import fits
from tests.conftest import ENV, ROOT, Cli, read_run


def bench(program: str, *args: str, cwd: Path | None = None) -> str:
    command = [sys.executable, str(ROOT / "bench" / program), *args]
    done = subprocess.run(
        command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        ("compare.py naive --isa avx2", [r"vanilla 1x100, .* compared with the naive algorithm"]),
        ("scaling.py L", ["L=1", "L=2", "L=3", "L=4"]),
        ("overhead.py", ["the defaults", "vanilla 1x100.*"]),
    ],
    ids=["compare", "scaling", "overhead"],
)
def test_every_row_is_measured(program: str, rows: list[str]) -> None:
    table = bench(*program.split(), "--rounds", "1", "--seconds", "0.02")
    head, line, *lines = table.splitlines()
    assert len(lines) == len(rows)
    for row, title in zip(lines, rows, strict=True):
        assert row.count("|") == head.count("|") == line.count("|")
        assert re.match(rf"\| {title} \|.*\d", row), row


def test_odd_lines_of_a_log_are_found(tmp_path: Path) -> None:
    lines = [f"{n % 60} [info] job {n} ends" for n in range(600)]
    lines[400::50] = ["1 [fail] disk full on node 7"] * 4
    (tmp_path / "a.log").write_text("\n".join(lines))
    options = ("--odd", "fail", "--remove", r"\[\w+\] ", "--seeds", "1", "--hidden-size", "8")
    out = bench("odd_lines.py", str(tmp_path / "a.log"), *options, "--max-steps", "60")
    title, _, head, line, *rows = out.splitlines()
    assert title == "a.log: 4 of 300 lines are odd"
    assert [row.split(" | ")[0] for row in rows] == ["| none", "| numbers", "| identifiers"]
    for row in rows:
        assert row.count("|") == head.count("|") == line.count("|")
    assert re.fullmatch(r"\| numbers \| 0 \| 1\.000 \| 1\.000 \| .* \| 1\.000 \|", rows[1])


def test_pairs_are_different_and_right() -> None:
    for kind, first in (
        ("numbers", "eight hundred eighty-five thousand four hundred forty\t885440"),
        ("dates", "January the first, twenty-one oh six\t2106-01-01"),
        ("reverse", "tkgnkuhmpxnhtqgxzvxisxrmclpxz\tzxplcmrxsixvzxgqthnxpmhukngkt"),
        ("copy", "tkgnkuhmpxnhtqgxzvxisxrmclpxz\ttkgnkuhmpxnhtqgxzvxisxrmclpxz"),
    ):
        lines = bench("pairs.py", kind, "50").splitlines()
        assert lines[0] == first
        texts = [line.partition("\t")[0] for line in lines]
        assert len({*texts}) == len(lines) == 50
    longer = bench("pairs.py", "copy", "9", "--min-length", "60", "--max-length", "80")
    assert {len(line) // 2 for line in longer.splitlines()} <= {*range(60, 81)}


CAPTIONS = ["woman running dark skin tone", "man light skin tone", "france", "red car", "cat face"]
CAPTIONS += ["horse racing medium skin tone", "person", "hot dog", "mailbox with flag", "two men"]


def test_questions_are_those_that_a_caption_answers() -> None:
    code = """import json, random, sys, questions
captions = json.loads(sys.argv[1])
found = [{text: find(c) for text, find in questions.KINDS.items()} for c in captions]
print(json.dumps([found, questions.make_questions(captions * 4, random.Random(0), 3)]))"""
    env = {**ENV, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bench'}"}
    both = "kiss woman man medium-dark skin tone light skin tone"
    command = [sys.executable, "-c", code, json.dumps([*CAPTIONS, both])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found, asked = json.loads(done.stdout)
    tone, person, animal, flag = (
        [*answers] for answers in zip(*(row.values() for row in found), strict=True)
    )
    assert tone == ["dark", "light", *["none"] * 3, "medium", *["none"] * 4, None]
    assert person == ["woman", "man", *[None] * 4, "person", *[None] * 4]
    assert animal == [*["none"] * 4, "cat", "horse", *["none"] * 5]
    assert flag == ["no", "no", "yes", *["no"] * 5, None, "no", "no"]

    # as many pictures without a tone, an animal or a flag as have the most common answer
    counts = Counter((text, answer) for _, text, answer in asked)
    assert {*counts.values()} == {4}
    assert len(counts) == 4 + 3 + 3 + 2
    for row, text, answer in asked:
        assert found[row % 11][text] == answer


def test_answers_to_questions_are_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, len(CAPTIONS), 200)
    np.save(tmp_path / "vectors.npy", np.eye(len(CAPTIONS))[kinds])
    (tmp_path / "captions.txt").write_text("".join(f"{CAPTIONS[k]}\n" for k in kinds))
    given = "captions.txt", "vectors.npy", "--folder", "runs", "--hidden-size", "24"
    how = ("--workers", "1", "--lr", "0.03", "--batch-size", "32", "--feature-input", "each")

    def measure(*more: str) -> dict[str, list[float]]:
        head, line, *rows = bench("questions.py", *given, *how, *more, cwd=tmp_path).splitlines()
        for row in rows:
            assert row.count("|") == head.count("|") == line.count("|")
        cells = [row.strip("| ").split(" | ") for row in rows]
        return {text: [*map(float, numbers)] for text, *numbers in cells}

    # each question is tested once, with a model of other pictures
    found = measure("--folds", "2", "--max-steps", "1")
    assert len(found) == 4
    lines = [(tmp_path / "runs" / f"{name}.tsv").read_text() for name in ("questions", "test")]
    rows = [{line.split("\t")[0] for line in text.splitlines()} for text in lines]
    assert not rows[0] & rows[1]
    assert sum(n for n, *_ in found.values()) == "".join(lines).count("\n")

    found = measure("--test", "captions.txt", "vectors.npy", "--max-steps", "200")
    for _, without, right in found.values():
        assert without < 0.65 < 0.95 < right


def test_what_is_taken_from_lines_can_be_restored(tmp_path: Path) -> None:
    rows = ["  Été  à Ålesund,\tÇa va? ", "한글  맞춤법 A", "été à Ålesund, Ça va?", "x"]
    (tmp_path / "a.txt").write_text(
        "\r\n".join(["\ufeff", *rows, rows[0], ""]), "utf-8", newline=""
    )
    texts = [" ".join(row.split()) for row in rows]
    lines = bench("lines.py", "capitals", "a.txt", cwd=tmp_path).splitlines()
    assert lines == [
        f"ete a alesund, ca va?\t{texts[0]}",  # once
        f"한글 맞춤법 a\t{texts[1]}",
        "x\tx",
    ]
    lines = bench("lines.py", "spaces", "a.txt", cwd=tmp_path).splitlines()
    assert lines[1] == "한글맞춤법A\t._.._."
    for line, text in zip(lines, texts, strict=True):
        letters, tags = line.split("\t")
        pairs = zip(letters, tags, strict=True)
        assert "".join(c + " " * (tag == "_") for c, tag in pairs) == text

    # both are lines with a tag for each character, next to which counts are measured
    for kind in ("spaces", "capitals"):
        (tmp_path / "b.tsv").write_text(bench("lines.py", kind, "a.txt", cwd=tmp_path), "utf-8")
        first, *_ = read_files([("b", (tmp_path / "b.tsv").read_text("utf-8"))], None, False)
        assert fits(first, "character")


def test_frames_of_joined_recordings_are_told_apart(tmp_path: Path) -> None:
    rng, kinds = np.random.default_rng(0), np.arange(60) % 3
    lengths = rng.integers(2, 6, 60)
    vectors = np.eye(3)[np.repeat(kinds, lengths)] + 0.1 * rng.standard_normal((lengths.sum(), 3))
    np.savez(tmp_path / "f.npz", vectors=vectors, lengths=lengths)
    (tmp_path / "l.txt").write_text("".join(f"kind{kind}\n" for kind in kinds))
    size = "--hidden-size", "16", "--join", "3", "--copies", "2", "--epochs", "60"
    first, *rows = bench("frames.py", "l.txt", "f.npz", *size, cwd=tmp_path).splitlines()
    assert first.startswith("36 sequences to train on; majority of the frames 0.")
    shares = [float(row.split(": ")[1].split()[0]) for row in rows]
    assert len(shares) == 2
    assert min(shares) > 0.9


def test_baselines_learn_from_the_lines_of_the_run(cli: Cli) -> None:
    text = "".join(f"{i} {'abc'[i % 3]}\t{'xyz'[i % 3]}\n" for i in range(120))
    Path("a.tsv").write_text(text)
    how = ("--hidden-size", "4", "--max-steps", "2", "--test-fraction", "0.25", "--seed", "3", "-q")
    cli("train", "a.tsv", "--predict", "label", *how)
    code = """import json, pathlib, sys, baselines
parts = baselines.read_splits(pathlib.Path(sys.argv[1]), [*map(pathlib.Path, sys.argv[2:])])
print(json.dumps(parts))"""
    env = {**ENV, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bench'}"}

    def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "checkpoints/a.npz", *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    state = read_run(Path("checkpoints/a.npz"))
    corpus = load_line_task(state.config).read("a", state.config, text)
    a, b = corpus.split_offsets
    found = [[row[:2] for row in part] for part in json.loads(run(code).stdout)]
    assert found == [
        [[*line[:2]] for line in part] for part in (corpus.lines[:a], corpus.lines[b:])
    ]
    assert [*map(len, found)] == [84, 30]
    Path("a.tsv").rename("moved.tsv")
    again = json.loads(run(code, "moved.tsv").stdout)
    assert [[row[:2] for row in part] for part in again] == found

    # a message if scikit-learn is missing, or the text is another
    without = "import sys; sys.modules['sklearn'] = None; import baselines; baselines.main()"
    done = run(without, "moved.tsv")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "scikit-learn is missing; install it with: pip install scikit-learn" in done.stderr
    Path("moved.tsv").write_text(text[:-1] + "x\n")
    assert "was trained on a different text" in run(without, "moved.tsv").stderr


def test_quality_is_measured_on_known_texts(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    command = [sys.executable, str(ROOT / "bench" / "quality.py"), str(tmp_path / "a.txt")]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a.txt is none of tinyshakespeare, " in done.stderr
    code = "import hashlib, sys, quality; quality.TEXTS[sys.argv.pop(1)] = 'a'; quality.main()"
    sha256 = hashlib.sha256((tmp_path / "a.txt").read_bytes()).hexdigest()
    options = ("--folder", str(tmp_path), "--options", "--max-steps 20 --hidden-size 8")
    command = [sys.executable, "-c", code, sha256, str(tmp_path / "a.txt"), *options]
    env = {**ENV, "PYTHONPATH": str(ROOT / "bench")}
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    head, _, *rows = out.splitlines()
    assert head == "| bits per character | a |"
    bits = {row.split(" | ")[0]: float(row.split(" | ")[1].strip("| ")) for row in rows}
    assert bits["| adapted and mixed"] < bits["| network"]
    assert len(bits) == 5


def test_published_splits_are_trained_on(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("".join(f"{i:04}" for i in range(2500)))
    code = """import hashlib, pathlib, sys, published, quality
published.SPLITS = {"a": published.Split("A", "1.0", "--max-steps 5 --hidden-size 8", 2)}
text = pathlib.Path(sys.argv[1])
quality.TEXTS[hashlib.sha256(text.read_bytes()).hexdigest()] = "tinyshakespeare"
published.main()"""
    env = {**ENV, "PYTHONPATH": str(ROOT / "bench")}
    command = [sys.executable, "-c", code, str(text), "--folder", str(tmp_path)]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"\| A \| 1.0 \| \d\.\d{4}, \d\.\d{4} \| \d+ \|", out.splitlines()[2])

    # 5,000 characters, 100 batches of 50, in each of two streams
    train, val = ((tmp_path / f"streams-{name}.txt").read_text() for name in ("train", "val"))
    text_of_streams = text.read_text()
    assert train == text_of_streams[:4750] + text_of_streams[5000:9750]
    assert val == text_of_streams[4750:5000] + text_of_streams[9750:]


def test_texts_of_any_size_are_written_and_read(tmp_path: Path) -> None:
    text = bench("text.py", "70k")
    assert len(text) == 70_000
    assert bench("text.py", "0.07M") == text
    assert text.count("\n") > 500
    assert "\n" not in bench("text.py", "1k", "--line")
    (tmp_path / "large.txt").write_text(text, newline="")
    lines = bench("reading.py", "large.txt", "char", "byte", cwd=tmp_path).splitlines()
    rows = [re.fullmatch(r"(\w+): [\d,]+ MB/s; \d+ MB of memory at most", line) for line in lines]
    assert [row and row[1] for row in rows] == ["char", "byte"]
