"""``charrnn eval`` and ``charrnn score``, and what they call."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn import checkpoint, ngram, scoring
from charrnn.arrays import Array, Ids
from charrnn.loss import forward
from charrnn.optim import clip
from charrnn.stack import Stack
from tests.conftest import CHARRNN, ENV, Cli

QUICK = ("--hidden-size", "12", "--max-steps", "30", "--seq-length", "16", "--batch-size", "8")


@pytest.fixture
def run(cli: Cli, text: str, tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(text)
    cli("train", "corpus.txt", *QUICK, "-q")
    return tmp_path / "checkpoints" / "corpus.npz"


# --- eval ---


@pytest.mark.parametrize("options", ["", "--unit jamo", "--by line", "--unit byte", "--val val.txt"])
def test_a_part_has_the_loss_that_training_reported(cli: Cli, tmp_path: Path, options: str) -> None:
    words = ["가나다", "한글은", "é", "the", "각각"]
    rng = np.random.default_rng(0)
    for name, n in (("corpus", 900), ("val", 100)):
        lines = "".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(n))
        (tmp_path / f"{name}.txt").write_text(lines, encoding="utf-8")
    cli("train", "corpus.txt", *QUICK, *options.split(), "-q", "--eval-every", "7")
    header = checkpoint.read_header(tmp_path / "checkpoints" / "corpus.npz")
    assert header["best"]["val_loss"] < header["history"][0]["val_loss"]
    for part, loss in (("val", header["best"]["val_loss"]), ("test", header["test_loss"])):
        row = json.loads(cli("eval", "--split", part, "--json").stdout)
        assert row["nats"] == pytest.approx(loss, rel=1e-12)
        assert row["characters"] == header["corpus"]["parts"][part]
        assert row["bits"] == pytest.approx(loss / math.log(2))
        assert row["perplexity"] == pytest.approx(math.exp(loss))
        assert row["bits_per_byte"] == pytest.approx(row["bits"] * row["characters"] / row["bytes"])
    row = json.loads(cli("eval", "--split", "val", "--json", "--last").stdout)
    assert row["nats"] == pytest.approx(header["history"][-1]["val_loss"], rel=1e-12)


def test_files_have_a_line_each(cli: Cli, run: Path, text: str, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("The king shall nöt come.\n")
    out = cli("eval", run, "corpus.txt", "new.txt", "-", stdin=text.encode()).stdout.decode().splitlines()
    assert [line.split(":")[0] for line in out] == ["corpus.txt", "new.txt", "-"]
    model = charrnn.load(run)
    nats = model.score(text).mean()
    for line in (out[0], out[2]):
        assert f"{nats:.4f} nats ({nats / math.log(2):.3f} bits) per character" in line
    rest = model.score("The king shall nöt come.\n", unknown="cost")
    assert rest[16] == math.log(0x110000)
    assert f"{rest.mean():.4f} nats" in out[1]


def test_the_baseline_stands_beside_the_loss(cli: Cli, run: Path) -> None:
    header = checkpoint.read_header(run)
    losses = {"val": header["best"]["val_loss"], "test": header["test_loss"]}
    for split, baselines in {"val": header["ladder"], "test": header["ladder_test"]}.items():
        name = min(baselines, key=baselines.get)
        out = cli("eval", "--split", split).stdout.decode()
        assert out.endswith(f"; best baseline {name} {baselines[name]:.3f}, model {losses[split]:.3f}\n")


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "give either FILE"),
        (("corpus.txt", "--split", "val"), 2, "give either FILE"),
        (("-", "-"), 2, "can be given only once"),
        (("nothing.txt",), 3, "nothing.txt: no such file"),
        (("nothing.npz", "corpus.txt"), 4, "nothing.npz: no such file"),
        (("weights.npz", "--split", "val"), 4, "an exported model"),
        (("stdin.npz", "--split", "val"), 4, "was trained on standard input"),
        (("small.npz", "--split", "val"), 2, "the run has no validation split"),
    ],
)
def test_what_cannot_be_measured(cli: Cli, run: Path, args: tuple[str, ...], rc: int, message: str) -> None:
    cli("export", run, "-o", "weights.npz")
    cli("train", "-", *QUICK, "-q", "-o", "stdin.npz", stdin=b"abc\n" * 500)
    (run.parent.parent / "small.txt").write_text("abc\n" * 9)
    cli("train", "small.txt", *QUICK, "-q", "-o", "small.npz")
    assert message in cli("eval", *args, rc=rc).stderr.decode().splitlines()[-1]


def test_a_part_of_a_text_that_has_changed(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("another text\n" * 100)
    assert b"trained on another text" in cli("eval", "--split", "val", rc=4).stderr


# --- It goes on learning. ---


def naive_adapt(stack: Stack, ids: Ids, lr: float) -> Array:
    """Read ids, the first of which is not scored, in windows of 20; learn from each after it has been scored."""
    stack = stack.copy()
    out, state = [], stack.zero_state(1)
    for t in range(0, len(ids) - 1, 20):
        window = ids[t : t + 21]
        n = len(window) - 1
        tape = stack.new_tape(n, 1)
        last = stack.forward(window[:-1, None], state, tape).copy()
        out.append(forward(tape.logits.transpose(1, 0, 2).reshape(-1, n).copy(), window[1:])[0])
        stack.loss_and_grad(window[:-1, None], window[1:, None], state, stack.new_tape(n, 1), scale=1 / n)
        clip(stack.d.vector, 1, 0)
        stack.p.vector -= lr * stack.d.vector
        state = last
    return np.concatenate(out)


@pytest.mark.parametrize("context", [1, 7, 25])
def test_adapting_is_to_score_and_then_to_learn(context: int) -> None:
    rng = np.random.default_rng(0)
    stack = Stack("lstm", 5, 6, 2, np.float64, rng)
    ids = rng.integers(0, 5, context + 73)
    nats = scoring.dynamic_nll(stack.copy(), ids[context:], ids[:context], None, 0, 0.5)
    np.testing.assert_allclose(nats, naive_adapt(stack, ids, 0.5)[context - 1 :], rtol=0, atol=1e-12)
    still = scoring.dynamic_nll(stack.copy(), ids[context:], ids[:context], None, 0, 0.0)
    np.testing.assert_allclose(still, scoring.contiguous_nll(stack, ids[context:], ids[:context]), rtol=0, atol=1e-12)


def test_adapting_to_documents_begins_each_afresh() -> None:
    rng = np.random.default_rng(0)
    stack = Stack("gru", 5, 6, 1, np.float64, rng)
    ids = rng.integers(0, 5, 90)
    ids[[10, 50, 51]] = 4
    ids[-1] = 3
    ends = np.flatnonzero(ids == 4) + 1
    still = scoring.dynamic_nll(stack.copy(), ids, np.array([4]), 4, 4, 0.0)
    wanted = scoring.document_nll(stack, ids, np.append(ends, 90), 4)
    np.testing.assert_allclose(still, wanted, rtol=0, atol=1e-12)
    assert scoring.dynamic_nll(stack.copy(), ids, np.array([4]), 4, 4, 0.5)[0] == still[0]
    assert len(scoring.dynamic_nll(stack.copy(), ids[:0], np.array([4]), 4, 4, 0.5)) == 0


def test_adapting_helps_where_the_text_has_changed(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("and the sea and the sea and the night\n" * 60)
    before = run.read_bytes()
    rows = [json.loads(cli("eval", "new.txt", "--json", *more).stdout) for more in ((), ("--adapt",))]
    assert rows[1]["nats"] < 0.8 * rows[0]["nats"]
    assert run.read_bytes() == before


# --- score ---


def test_each_line_is_scored_by_itself(cli: Cli, run: Path, text: str, tmp_path: Path) -> None:
    model = charrnn.load(run)
    lines = [*text.splitlines(keepends=True)[:40], "\n", "x" * 300 + "\n", "öö\n", "no end"]
    np.testing.assert_allclose(
        model.score_lines("".join(lines)), [model.score(line, unknown="cost").mean() for line in lines], rtol=1e-5
    )
    (tmp_path / "lines.txt").write_text("".join(lines), encoding="utf-8")
    out = cli("score", "lines.txt").stdout.decode()
    rows = [row.split("\t", 1) for row in out.removesuffix("\n").split("\n")]
    assert [shown for _, shown in rows] == [line.removesuffix("\n") for line in lines]
    bits = model.score_lines("".join(lines)) / math.log(2)
    assert [value for value, _ in rows] == [f"{value:.3f}" for value in bits]
    # line by line, as they come, it is the same but for rounding
    piped = cli("score", stdin="".join(lines).encode()).stdout.decode().removesuffix("\n").split("\n")
    assert [row.split("\t", 1)[1] for row in piped] == [shown for _, shown in rows]
    np.testing.assert_allclose([float(row.split("\t")[0]) for row in piped], bits, atol=0.002)


def test_json_threshold_and_sort(cli: Cli, run: Path, tmp_path: Path) -> None:
    lines = ["The king.", "zzz qqq", "The sea.", "", 'a "q" \\ \t é']
    data = "\n".join(lines).encode()
    rows = [json.loads(row) for row in cli("score", "--json", stdin=data).stdout.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["text"] for row in rows] == lines
    (tmp_path / "lines.txt").write_bytes(data)
    odd = [json.loads(row) for row in cli("score", "lines.txt", "--json", "--sort").stdout.splitlines()]
    assert sorted(odd, key=lambda row: -row["bits"]) == odd
    assert {row["line"] for row in odd} == {1, 2, 3, 4, 5}
    limit = odd[1]["bits"] - 0.01
    kept = [
        json.loads(row) for row in cli("score", "lines.txt", "--json", "--threshold", str(limit)).stdout.splitlines()
    ]
    assert sorted(row["line"] for row in kept) == sorted(row["line"] for row in odd[:2])


def test_a_quantile_of_the_validation_part(cli: Cli, run: Path, text: str) -> None:
    header = checkpoint.read_header(run)
    a = header["corpus"]["parts"]["train"]
    val = text[a : a + header["corpus"]["parts"]["val"]]
    limit = np.quantile(charrnn.load(run).score_lines(val), 0.9) / math.log(2)
    lines = "".join(f"{line}\n" for line in ["The king.", "xx", "And the night come.", "q" * 9])
    rows = [json.loads(row) for row in cli("score", "--json", stdin=lines.encode()).stdout.splitlines()]
    got = [
        json.loads(row) for row in cli("score", "--json", "--quantile", "0.9", stdin=lines.encode()).stdout.splitlines()
    ]
    assert [row["line"] for row in got] == [row["line"] for row in rows if row["bits"] > limit]
    assert 0 < len(got) < 4


def test_characters_and_wholes(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = cli("score", "--per", "char", stdin="The\n\x1bé".encode()).stdout.decode().splitlines()
    assert [row.split("\t")[1] for row in out] == ["T", "h", "e", "\\n", "\\x1b", "é"]
    nats = charrnn.load(run).score("The\n")
    assert [float(row.split("\t")[0]) for row in out[:4]] == pytest.approx(nats / math.log(2), abs=0.002)
    (whole,) = cli("score", "--per", "file", stdin=b"The\n").stdout.decode().splitlines()
    assert whole == f"{nats.mean() / math.log(2):.3f}\t4 characters"


def test_bytes_that_are_no_text_go_through_as_they_are(cli: Cli, run: Path, tmp_path: Path) -> None:
    data = b"The king\xff\xfe.\n\xe9\n"
    out = cli("score", stdin=data).stdout
    assert [row.split(b"\t")[1] for row in out.splitlines()] == data.splitlines()
    cli("train", "corpus.txt", "--unit", "byte", *QUICK, "-q", "-o", "bytes.npz")
    out = cli("score", "bytes.npz", stdin=data).stdout
    assert [row.split(b"\t")[1] for row in out.splitlines()] == data.splitlines()


def test_lines_are_passed_on_as_they_come(run: Path, tmp_path: Path) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*CHARRNN, "score"], cwd=tmp_path, env=ENV, **pipes) as process:
        assert process.stdin
        assert process.stdout
        for line in (b"The king.\n", b"The sea.\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\t" + line)  # before the next is there
        process.stdin.close()
        assert process.wait(60) == 0


def test_score_and_bad_input(cli: Cli, run: Path) -> None:
    assert b"give one FILE, not 2" in cli("score", "a", "b", rc=2).stderr
    assert b"mutually exclusive" in cli("score", "--threshold", "1", "--quantile", "0.5", rc=2).stderr
    assert b"no such file" in cli("score", "nothing.txt", rc=3).stderr
    assert cli("score", stdin=b"").stdout == b""


# --- What it is for. ---


def log_lines(rng: np.random.Generator, n: int) -> list[str]:
    """Return the lines of a server's log, as they should be."""
    lines = []
    for _ in range(n):
        when = f"2024-{rng.integers(1, 13):02}-{rng.integers(1, 29):02} {rng.integers(24):02}:{rng.integers(60):02}"
        what = rng.choice(["GET /index.html 200", "GET /style.css 200", "POST /login 302", "GET /favicon.ico 404"])
        lines.append(f"{when} INFO worker-{rng.integers(1, 5)} {what} {rng.integers(1, 99)} ms")
    return lines


def odd_ones(rng: np.random.Generator, n: int) -> list[str]:
    """Return as many that are not: each has one thing wrong."""
    made = []
    for line in log_lines(rng, n):
        words = line.split(" ")
        kind = rng.integers(5)
        if kind == 0:
            words[2] = "FATAL"
        elif kind == 1:
            words[5] = "/../../etc/passwd"
        elif kind == 2:
            words[3] = "worker-" + "".join(rng.choice(list("0123456789abcdef"), 6))
        elif kind == 3:
            words[4:] = ["out", "of", "memory:", "killed"]
        else:
            words = [*words[:4], words[6], words[4], words[5], *words[7:]]
        made.append(" ".join(words))
    return made


def area(normal: Array, odd: Array) -> float:
    """Return the area under the ROC curve: how often an odd one scores higher than a normal one."""
    return float(((odd[:, None] > normal) + 0.5 * (odd[:, None] == normal)).mean())


def test_odd_lines_in_a_log_are_found(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    train = "".join(line + "\n" for line in log_lines(rng, 3000))
    (tmp_path / "log.txt").write_text(train)
    cli("train", "log.txt", "--by", "line", "--hidden-size", "64", "--max-steps", "500", "--lr", "0.01", "-q")
    normal, odd = log_lines(rng, 500), odd_ones(rng, 60)
    mixed = [(line, i >= 500) for i, line in enumerate([*normal, *odd])]
    mixed = [mixed[i] for i in rng.permutation(len(mixed))]
    (tmp_path / "mixed.txt").write_text("".join(line + "\n" for line, _ in mixed))
    out = cli("score", "mixed.txt").stdout.decode().splitlines()
    bits = np.array([float(row.split("\t")[0]) for row in out])
    label = np.array([is_odd for _, is_odd in mixed])
    model = area(bits[~label], bits[label])

    vocabulary = charrnn.load(tmp_path / "checkpoints" / "log.npz").vocabulary
    texts = [(vocabulary.encode(line + "\n", unknown="skip"), vocabulary.start_id) for line, _ in mixed]
    *_, six = ngram.ngram_losses(vocabulary.encode(train), texts, len(vocabulary), 6)
    counts = np.array([nats.mean() for nats in six])
    baseline = area(counts[~label], counts[label])
    with capsys.disabled():
        print(f"\nodd lines of a log, area under the ROC curve: model {model:.3f}, 6-gram {baseline:.3f}")
    assert model > 0.95
    assert baseline > 0.8


def test_a_file_of_lines_is_read_side_by_side(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a test of time by itself: a batch makes fewer calls, and a tenth of the calls would be too many."""
    model, calls = charrnn.load(run), 0
    honest = Stack.forward

    def forward(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return honest(*args, **options)

    monkeypatch.setattr(Stack, "forward", forward)
    lines = ["The king shall not come.\n"] * 2000
    model.score_lines("".join(lines))
    assert calls * 20 < len(lines) * 2
