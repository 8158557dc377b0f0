"""``charrnn sample --interactive``."""

from __future__ import annotations

import os
from pathlib import Path

import charrnn
from tests.conftest import CHARRNN, ENV, Cli, posix


def session(cli: Cli, *lines: str, rc: int = 0) -> tuple[str, str]:
    stdin = "".join(f"{line}\n" for line in lines).encode()
    done = cli("sample", "-i", "--seed", "5", "--length", "60", stdin=stdin, rc=rc, env={})
    return done.stdout.decode(), done.stderr.decode()


def continuation(run: Path, prime: str, count: int, *, length: int = 60, temp: float = 1.0) -> str:
    """Return a text to the end of its first line that is not empty."""
    text = ""
    model = charrnn.load(run)
    for (piece,) in model.sample_batch(1, length, seed=[5, count], prime=prime, temp=temp):
        text += piece
        if text.strip("\n") and text.endswith("\n"):
            break
    return text


def test_typed_lines_are_continued_to_the_end_of_a_line(cli: Cli, run: Path) -> None:
    first = "The king" + continuation(run, "The king", 0)
    more = continuation(run, first, 1)
    cold = "The" + continuation(run, "The", 2, temp=0)
    out, err = session(cli, "The king", ":more", ":temp 0", "", "The", ":quit", "never")
    ended = [text if text.endswith("\n") else f"{text}\n" for text in (first, more, cold)]
    assert out == "".join(ended)
    assert len(err.splitlines()) == 1
    assert session(cli, "The king", ":seed 5", "The king")[0] == ended[0] * 2


def test_length_and_stop_can_be_set(cli: Cli, run: Path) -> None:
    out, _ = session(cli, ":length 3", "The king", ":length 500", ":until paragraph", "The king")
    assert len(out.splitlines()[0]) <= len("The king") + 3
    assert len(out) > 100
    assert "\n\n" not in out.strip("\n")
    out, err = session(cli, ":length 99999999999999999999", "The king")
    assert out.startswith("The king")
    assert "Error" not in err


def test_faults_are_reported_and_the_session_continues(cli: Cli, run: Path) -> None:
    out, err = session(cli, ":bogus", ":temp x", ":seed -1", ":help", "한", "::a", "The")
    assert out.startswith("The")
    for message in (
        "charrnn: unknown command :bogus; try :help\n",
        "charrnn: x is not a number of at least 0\n",
        "charrnn: -1 is not a whole number of at least 0\n",
        "  :more              continue the last text\n",
        "charrnn: ':' (U+003A, offset 0) is not in the model's vocabulary",
        "charrnn: '한' (U+D55C, offset 0) is not in the model's vocabulary",
    ):
        assert message in err
    assert b"takes its primes from" in cli("sample", "-i", "--prime", "a", rc=2).stderr


@posix
def test_terminal_has_a_prompt_and_ctrl_c_stops_a_text_only(run: Path, tmp_path: Path) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(CHARRNN[0], [*CHARRNN, "sample", "-i", "--length", "100000000"], {**ENV})
    shown = b""

    def wait_for(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(terminal, 4096)
        shown = shown.partition(text)[2]

    wait_for(b"> ")
    os.write(terminal, b":until paragraph\n")
    wait_for(b"> ")
    os.write(terminal, b"The king\n")
    wait_for(b"The king\r\nThe king")
    os.write(terminal, b"\x03")
    wait_for(b"> ")
    os.write(terminal, b"\x04")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
