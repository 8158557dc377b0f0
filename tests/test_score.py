"""``charrnn score``."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.network import Network
from tests.conftest import CHARRNN, ENV, QUICK, Cli, read_run


def rows_of(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_each_line_is_scored_separately(cli: Cli, run: Path, text: str) -> None:
    model = charrnn.load(run)
    lines = [*text.splitlines(keepends=True)[:40], "\n", "x" * 300 + "\n", "öö\n", "no end"]
    nll, stretch = model.score_lines("".join(lines))
    alone = [model.nll(line, unknown="cost") for line in lines]
    np.testing.assert_allclose(nll, [of_line.mean() for of_line in alone], rtol=1e-5)
    starts = [range(max(len(line) - 11, 1)) for line in lines]
    highest = [
        max(of_line[start : start + 12].mean() for start in of_line_starts)
        for of_line, of_line_starts in zip(alone, starts, strict=True)
    ]
    np.testing.assert_allclose(stretch, highest, rtol=1e-5)
    Path("lines.txt").write_text("".join(lines), encoding="utf-8")
    out = cli("score", "lines.txt").stdout.decode()
    rows = [row.split("\t", 1) for row in out.removesuffix("\n").split("\n")]
    assert [shown for _, shown in rows] == [line.removesuffix("\n") for line in lines]
    bits = (2 / 3 * nll + 1 / 3 * stretch) / math.log(2)
    has_score = [line != "\n" for line in lines]
    assert [value for value, _ in rows] == [
        f"{value:.3f}" if scored else "" for value, scored in zip(bits, has_score, strict=True)
    ]
    # line by line, as they arrive, the result is the same but for rounding
    piped = cli("score", stdin="".join(lines).encode()).stdout.decode()
    piped_rows = [row.split("\t", 1) for row in piped.removesuffix("\n").split("\n")]
    assert [shown for _, shown in piped_rows] == [shown for _, shown in rows]
    values = [float(value) for value, _ in piped_rows if value]
    np.testing.assert_allclose(values, bits[has_score], atol=0.002)


def test_score_prints_json_sorts_and_has_thresholds(cli: Cli, run: Path, text: str) -> None:
    lines = ["The king.", "zzz qqq", "The sea.", "", 'a "q" \\ \t é']
    data = "\n".join(lines).encode()
    rows = rows_of(cli("score", "--json", stdin=data).stdout)
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["text"] for row in rows] == lines
    Path("lines.txt").write_bytes(data)
    ranked = rows_of(cli("score", "lines.txt", "--json", "--sort").stdout)
    assert sorted(ranked, key=lambda row: -row["score"]) == ranked
    nats = charrnn.load(run).score_lines("zzz qqq\n")
    zzz = next(row for row in ranked if row["line"] == 2)
    assert zzz["bits"] == pytest.approx(nats.nll[0] / math.log(2), rel=1e-4)
    assert zzz["stretch"] == pytest.approx(nats.stretch[0] / math.log(2), rel=1e-4)
    assert {row["line"] for row in ranked} == {1, 2, 3, 5}  # not the empty line
    limit = str(ranked[1]["score"] - 0.01)
    kept = rows_of(cli("score", "lines.txt", "--json", "--threshold", limit).stdout)
    assert {row["line"] for row in kept} == {row["line"] for row in ranked[:2]}

    # the threshold is a quantile of the lines of the validation split
    splits = read_run(run).corpus["split_characters"]
    val = text[splits["train"] : splits["train"] + splits["val"]]
    quantile = np.quantile(charrnn.load(run).score_lines(val).score, 0.9) / math.log(2)
    kept = rows_of(cli("score", "--json", "--quantile", "0.9", stdin=data).stdout)
    assert [row["line"] for row in kept] == [
        row["line"] for row in rows if row["text"] and row["score"] > quantile
    ]
    assert 0 < len(kept) < 5


def grep(lines: list[str], odd: set[int], n: int) -> list[str]:
    """Return what grep prints of some lines with n lines of context, of which ``odd`` match."""
    near = [min((abs(i - k) for k in odd), default=99) <= n for i in range(len(lines))]
    rows: list[str] = []
    for i, line in enumerate(lines):
        if near[i]:
            if rows and not near[i - 1]:
                rows.append("--")
            rows.append(f"{':' if i in odd else '-'}{line}")
    return rows


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_context_of_a_line_is_what_grep_prints(cli: Cli, run: Path, n: int) -> None:
    lines = ["The king.", "zzz", "The sea.", "", "The sea.", "A night.", "zzz", "zzz", "A king."]
    lines += ["The king."] * 4 + ["zzz", "The sea."]
    odd = {i for i, line in enumerate(lines) if line == "zzz"}
    data = "\n".join(lines).encode()
    out = cli("score", "--threshold", "12", "--context", str(n), stdin=data).stdout.decode()
    rows = [re.sub(r"^\d+\.\d+\t", ":", row) for row in out.removesuffix("\n").split("\n")]
    assert [re.sub("^\t", "-", row) for row in rows] == grep(lines, odd, n)

    # no context crosses two files
    Path("a.txt").write_text("The king.\nzzz\n", newline="")
    Path("b.txt").write_text("zzz\nThe sea.\nThe sea.\n", newline="")
    out = cli("score", "a.txt", "b.txt", "--threshold", "12", "--context", "1").stdout.decode()
    assert re.sub(r"\d+\.\d+\t", "SCORE ", out).splitlines() == [
        "\ta.txt-1-The king.",
        "SCORE a.txt:2:zzz",
        "--",
        "SCORE b.txt:1:zzz",
        "\tb.txt-2-The sea.",
    ]


def test_repeats_of_a_masked_line_are_counted(cli: Cli) -> None:
    Path("a.log").write_text("".join(f"job {n} ends\n" for n in range(300)), newline="")
    cli("train", "a.log", "--mask", "numbers", *QUICK, "-q")
    data = b"job 1 ends\njob 2 fails\njob 77 ends\njob 3 fails\nno job\njob 4 ends\n"
    rows = [
        row.split("\t")
        for row in cli("score", "--collapse", stdin=data).stdout.decode().split("\n")
    ]
    assert [row[1:] for row in rows[:-1]] == [
        ["3", "job 1 ends"],
        ["2", "job 2 fails"],
        ["1", "no job"],
    ]
    ranked = rows_of(cli("score", "--collapse", "--sort", "--json", stdin=data).stdout)
    assert ranked == sorted(ranked, key=lambda row: -row["score"])
    assert {row["line"]: row["count"] for row in ranked} == {1: 3, 2: 2, 5: 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--context 1", "--context needs --threshold or --quantile"),
        ("--context 1 --threshold 1 --sort", "--context cannot be combined with --sort, --json or"),
        ("--collapse --per char", "--context and --collapse are about lines, not --per char"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    cli: Cli, run: Path, options: str, message: str
) -> None:
    assert message in cli("score", *options.split(), stdin=b"a\n", rc=2).stderr.decode()


def test_score_per_character_and_per_file(cli: Cli, run: Path) -> None:
    out = cli("score", "--per", "char", stdin="The\n\x1bé".encode()).stdout.decode().splitlines()
    assert [row.split("\t")[1] for row in out] == ["T", "h", "e", "\\n", "\\x1b", "é"]
    nats = charrnn.load(run).nll("The\n")
    bits = [float(row.split("\t")[0]) for row in out[:4]]
    assert bits == pytest.approx(nats / math.log(2), abs=0.002)
    whole = cli("score", "--per", "file", stdin=b"The\n").stdout.decode()
    assert whole == f"{nats.mean() / math.log(2):.3f}\tstandard input\n"


def test_rows_of_json_say_what_is_scored_and_where(cli: Cli, run: Path) -> None:
    data = "The\n한é\n".encode()
    rows = rows_of(cli("score", "--per", "char", "--json", stdin=data).stdout)
    at = [(row["line"], row["column"], row["offset"], row["text"]) for row in rows]
    assert at[:4] == [(1, 1, 0, "T"), (1, 2, 1, "h"), (1, 3, 2, "e"), (1, 4, 3, "\n")]
    assert at[4:] == [(2, 1, 4, "한"), (2, 2, 5, "é"), (2, 3, 6, "\n")]
    assert [row["unknown"] for row in rows] == [False] * 4 + [True, True, False]
    Path("folder").mkdir()
    Path("folder/a.txt").write_bytes(data)
    Path("folder/b.txt").write_text("The king")
    done = cli("score", "folder", "--per", "file", "--json")
    a, b = rows_of(done.stdout)
    assert (a["file"], a["lines"], a["characters"]) == ("folder/a.txt", 2, 7)
    assert (b["file"], b["lines"], b["characters"]) == ("folder/b.txt", 1, 8)
    assert a["unknown"] == pytest.approx(2 / 7)
    assert b"13.3% of the characters are unknown to checkpoints/corpus.npz\n" in done.stderr
    by_line = cli("score", "folder").stdout.decode().splitlines()
    assert [row.split("\t")[1] for row in by_line] == [
        "folder/a.txt:1:The",
        "folder/a.txt:2:한é",
        "folder/b.txt:1:The king",
    ]
    done = cli("score", "--json", stdin="한\n".encode())
    assert b"100.0% of the characters" in done.stderr
    assert b"wrong checkpoint?" in done.stderr


def test_undecodable_bytes_are_printed_unchanged(cli: Cli, run: Path) -> None:
    data = b"The king\xff\xfe.\n\xe9\n"
    cli("train", "corpus.txt", "--unit", "byte", *QUICK, "-q", "-o", "bytes.npz")
    for args in (("score",), ("score", "bytes.npz")):
        out = cli(*args, stdin=data).stdout
        assert [row.split(b"\t")[1] for row in out.splitlines()] == data.splitlines()


def test_stream_is_decoded_in_the_encoding_of_the_model(cli: Cli, text: str) -> None:
    Path("wide.txt").write_text(text, encoding="utf-16")
    cli("train", "wide.txt", "--encoding", "utf-16", *QUICK, "-q")
    lines = "The king.\nÄ한\nno end"
    out = cli("score", stdin=lines.encode("utf-16")).stdout.decode()
    assert [row.split("\t")[1] for row in out.splitlines()] == lines.splitlines()
    err = cli("score", stdin=lines.encode("utf-16")[:-1], rc=3).stderr.decode()
    assert err.splitlines()[-1] == "charrnn: standard input: invalid UTF-16 (truncated data)"
    Path("cut.txt").write_bytes(lines.encode("utf-16")[:-1])
    assert b"cut.txt: " in cli("score", "cut.txt", rc=3).stderr


def test_lines_are_printed_as_they_arrive(run: Path, tmp_path: Path) -> None:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    pipes: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": null}
    with subprocess.Popen([*CHARRNN, "score"], cwd=tmp_path, env=ENV, **pipes) as process:
        assert process.stdin
        assert process.stdout
        for line in (b"The king.\n", b"The sea.\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(
                b"\t" + line
            )  # before the next one is written
        process.stdin.close()
        assert process.wait(60) == 0


def test_score_refuses_bad_arguments(cli: Cli, run: Path) -> None:
    thresholds = ("--threshold", "1", "--quantile", "0.5")
    assert b"mutually exclusive" in cli("score", *thresholds, rc=2).stderr
    assert b"no such file" in cli("score", "nothing.txt", rc=3).stderr
    assert cli("score", stdin=b"").stdout == b""


# --- odd lines ---

ODD: tuple[Callable[[str], str], ...] = (
    lambda line: line.replace("INFO", "FATAL"),
    lambda line: re.sub(r"/\S+", "/../../etc/passwd", line),
    lambda line: re.sub(r"worker-\d", "worker-7f3c", line),
    lambda line: re.sub("(GET|POST).*", "out of memory: killed", line),
    lambda line: re.sub(r"(GET|POST) (\S+) (\d+)", r"\3 \1 \2", line),
)


def log_lines(rng: np.random.Generator, n: int) -> list[str]:
    """Return normal lines of a server's log."""
    requests = ["GET /index.html 200", "GET /style.css 200", "POST /login 302", "GET /icon.ico 404"]
    lines = []
    for _ in range(n):
        date = f"2024-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}"
        time = f"{rng.integers(24):02}:{rng.integers(60):02}"
        worker, ms = rng.integers(1, 5), rng.integers(1, 99)
        lines.append(f"{date} {time} INFO worker-{worker} {rng.choice(requests)} {ms} ms\n")
    return lines


def test_odd_lines_of_a_log_score_higher(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    Path("log.txt").write_text("".join(log_lines(rng, 3000)))
    options = ("--hidden-size", "64", "--max-steps", "120", "--lr", "0.01", "-q")
    cli("train", "log.txt", "--documents", "line", *options)
    normal, odd = log_lines(rng, 500), log_lines(rng, 60)
    odd = [ODD[i % len(ODD)](line) for i, line in enumerate(odd)]
    Path("mixed.txt").write_text("".join([*normal, *odd]))
    rows = cli("score", "mixed.txt").stdout.decode().splitlines()
    bits = np.array([row.split("\t")[0] for row in rows], float)
    # the area under the ROC curve: how often an odd line scores above a normal one
    assert (bits[500:, None] > bits[:500]).mean() > 0.95


def test_lines_of_a_file_are_scored_in_batches(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = charrnn.load(run), 0
    honest = Network.forward

    def forward(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return honest(*args, **options)

    monkeypatch.setattr(Network, "forward", forward)
    lines = ["The king shall not come.\n"] * 2000
    model.nll_lines("".join(lines))
    assert calls * 10 < len(lines)
