"""The benchmarks run and fill in their tables; what they measure is for a person to read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SHORT = ["--rounds", "1", "--seconds", "0.02"]


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        (
            ["compare.py", "naive", "--avx2"],
            [r"vanilla 1x100, .* compared with the naive algorithm"],
        ),
        (["scaling.py", "L"], ["L=1", "L=2", "L=3", "L=4"]),
        (["overhead.py"], ["the defaults", "vanilla 1x100.*"]),
    ],
    ids=lambda value: value[0],
)
def test_every_row_is_measured(program: list[str], rows: list[str]) -> None:
    command = [sys.executable, str(ROOT / "bench" / program[0]), *program[1:], *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    head, line, *table = done.stdout.splitlines()
    assert len(table) == len(rows)
    for row, title in zip(table, rows, strict=True):
        assert row.count("|") == head.count("|") == line.count("|")
        assert re.match(rf"\| {title} \|.*\d", row), row


def test_a_text_of_any_size_and_how_fast_it_is_read(tmp_path: Path) -> None:
    def output(*command: str) -> bytes:
        return subprocess.run(
            [sys.executable, str(ROOT / "bench" / command[0]), *command[1:]],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        ).stdout

    text = output("text.py", "70k")
    assert len(text) == 70_000
    assert output("text.py", "0.07M") == text
    assert text.count(b"\n") > 500
    assert b"\n" not in output("text.py", "1k", "--line")
    (tmp_path / "large.txt").write_bytes(text)
    lines = output("reading.py", "large.txt", "char", "byte").decode().splitlines()
    rows = [re.fullmatch(r"(\w+): [\d,]+ MB/s; \d+ MB of memory at most", line) for line in lines]
    assert [row and row[1] for row in rows] == ["char", "byte"]
