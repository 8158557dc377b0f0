"""The benchmarks run and fill in their tables; what they measure is for a person to read."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SHORT = ["--rounds", "1", "--seconds", "0.02"]


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        (["compare.py", "naive", "--avx2"], [r"vanilla 1x100, .* over the naive algorithm"]),
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
