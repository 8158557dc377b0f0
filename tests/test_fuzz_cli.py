"""Random command lines end as documented, and the fuzzer would find one that does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("POSIX only", allow_module_level=True)

from charrnn import cli
from charrnn.errors import CheckpointError
from tests import fuzz_cli
from tests.conftest import ENV, ROOT

LINE = fuzz_cli.Line(
    *("info", ["info"], {}, ["empty", "pipe", "pipe"], [], ["a.txt"]),
    *(False, False, "self", ("", "", 0.0)),
)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with fuzz_cli.folder_with_template() as folder:
        yield folder


def test_no_command_line_fails() -> None:
    command = [sys.executable, "-m", "tests.fuzz_cli", "100", "--repeatable"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_option_is_tried() -> None:
    given = {word.split("=")[0] for seed in range(2000) for word in fuzz_cli.generate(seed).args}
    options = [param for command in cli.main.commands.values() for param in command.params]
    options = [option for option in options if option.param_type_name == "option"]
    assert options
    assert all(given & {*option.opts} for option in options)


def refuse(message: str) -> Callable[..., None]:
    def command(**_: Any) -> None:
        raise CheckpointError(message)

    return command


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("command", "found"),
    [
        (lambda **_: None, None),
        (refuse("damaged"), None),
        (lambda **_: 1 / 0, "exit code 1"),
        (lambda **_: sys.exit(9), "exit code 9"),
        (lambda **_: sys.exit(4), "error of 0 lines"),
        (lambda **_: time.sleep(60), "took more than 1 s"),
        (lambda **_: print("Traceback (most recent call last)", file=sys.stderr), "Traceback"),
        (lambda **_: print("x.py:1: UserWarning: x", file=sys.stderr), "UserWarning"),
        (lambda **_: print("\x1b[31m", file=sys.stderr), "raw control character"),
        (lambda **_: sys.exit(print("one\n" * 9, file=sys.stderr) or 4), "error of 10 lines"),
        (lambda **_: Path("x").write_text("x", encoding="utf-8"), "wrote 'x'"),
        (lambda **_: Path("a.txt").write_text("x", encoding="utf-8"), "changed 'a.txt'"),
        (lambda **_: Path("a.txt").unlink(), "removed 'a.txt'"),
        (lambda **_: Path("texts").chmod(0o700), "changed 'texts'"),
        (lambda **_: Path("../x").mkdir(), "wrote "),
    ],
)
def test_failures_are_found(
    template: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Any],
    found: str | None,
) -> None:
    monkeypatch.setattr(fuzz_cli, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(cli.main.commands["info"], "callback", command)
    failures = [*fuzz_cli.failures(LINE, fuzz_cli.run(LINE, template))]
    assert bool(failures) == bool(found), failures
    assert not found or any(failure.startswith(found) for failure in failures), failures


def test_only_asked_files_may_change(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = lambda **_: Path("old.html").write_text("x", encoding="utf-8")  # noqa: E731
    monkeypatch.setattr(cli.main.commands["info"], "callback", write)
    asked = LINE._replace(outputs=["old.html"])
    (failure,) = fuzz_cli.failures(asked, fuzz_cli.run(asked, template))
    assert failure == "changed 'old.html' without --force"
    asked = asked._replace(forced=True, overwrites=True)
    assert not [*fuzz_cli.failures(asked, fuzz_cli.run(asked, template))]
