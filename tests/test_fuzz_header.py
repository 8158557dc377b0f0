"""No forged header gets through a command, and the attack would find one that did."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz_header
from tests.conftest import ENV, ROOT, posix
from tests.forge import header_of
from tests.fuzz_header import Outcome

pytestmark = posix


def test_no_forged_header_gets_through() -> None:
    command = [sys.executable, "-m", "tests.fuzz_header", "--part", "3/500"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files, commands = (int(part.split()[0]) for part in done.stdout.split(", ")[:2])
    assert files > 20
    assert commands > 4 * files  # some files were read


@pytest.mark.parametrize(
    ("command", "outcome", "problem"),
    [
        ("info F", Outcome(1, err=b"Traceback\nKeyError: 'x'\n"), "exit code 1"),
        ("info F", Outcome(-signal.SIGALRM), "killed after 10 s"),
        ("eval F", Outcome(4, err=b"charrnn: a\nb\n"), "refused, but not in one line"),
        ("eval F", Outcome(0, err=b"RuntimeWarning: overflow\n"), "Warning"),
        ("train -o F", Outcome(2, err=b"charrnn: out of memory\n"), "out of memory"),
        ("train -o F", Outcome(0, err=b"\x1b[31mRED\n"), r"raw ['\x1b'] on stderr"),
        ("info F", Outcome(0, out=b"\x9b31m"), r"raw ['\udc9b'] on stdout"),
        ("info F --json", Outcome(0, out=b'{"step": NaN}'), "invalid JSON"),
        ("info F", Outcome(0, seconds=2.5), "2 s more"),
        ("info F", Outcome(0, peak=250_000_000), "250 MB more"),
    ],
)
def test_failures_are_recognized(command: str, outcome: Outcome, problem: str) -> None:
    assert problem in next(fuzz_header.judge(command, outcome, Outcome(0)))
    for right in Outcome(0, 1.5, 10**8), Outcome(4, err=b"charrnn: x\n"):
        assert [*fuzz_header.judge("eval F", right, Outcome(0))] == []


def test_written_files_are_recognized(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(command: str, folder: Path) -> Outcome:
        for name in ("char.npz", "x.html", "corpus.txt", "../beside.txt"):
            (folder / name).write_text("<script>alert(1)</script>", encoding="utf-8")
        return Outcome(2 if "--resume" in command else 0)

    monkeypatch.setattr(fuzz_header, "run_command", write)
    file = run.rename(run.with_name("char.npz"))
    usual = {command: Outcome(0) for command in fuzz_header.commands_for("char")}
    case = next(fuzz_header.cases("char", header_of(file.read_bytes())))
    _, failures = fuzz_header.attack(run.parent, usual, False, case)
    problems = {"changed char.npz", "changed corpus.txt", "changed beside.txt"}
    problems |= {"a script of the header is on the page"}
    assert problems <= {problem for _, _, problem in failures}
    assert "refused, but the checkpoint was written" in str(failures)
