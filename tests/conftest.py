"""What the tests share: a numeric gradient, a small text, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from charrnn.arrays import Array

ROOT = Path(__file__).parent.parent
CHARRNN = [sys.executable, "-m", "charrnn"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

# a machine may be busy, and a test of correctness must not fail for that
settings.register_profile("charrnn", deadline=None)
settings.load_profile("charrnn")


def numeric(f: Callable[[], float], a: Array, h: float = 1e-5) -> Array:
    """Return the gradient of f by the float64 array a, entry by entry, from central differences."""
    d = np.empty_like(a)
    for i in np.ndindex(a.shape):
        old = a[i]
        a[i] = old + h
        up = f()
        a[i] = old - h
        down = f()
        a[i] = old
        d[i] = (up - down) / (2 * h)
    return d


def assert_close(got: Array, wanted: Array, tolerance: float = 1e-7) -> None:
    """Compare relative to the size of the whole array: a wrong factor, sign or missing term shows."""
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < tolerance


@pytest.fixture
def text() -> str:
    """Some 6,000 characters with words, lines and repetition."""
    rng = np.random.default_rng(0)
    words = ["the", "king", "queen", "of", "a", "night", "sea", "and", "shall", "not", "come"]
    lines = (" ".join(rng.choice(words, rng.integers(3, 9))).capitalize() + "." for _ in range(200))
    return "\n".join(lines) + "\n"


def on_a_terminal(command: list[str], cwd: Path, env: dict[str, str], rows: int, columns: int) -> tuple[bytes, bytes]:
    """Run a command whose stderr is a terminal; return what it showed there, and its stdout."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=follower, env=env) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(leader)
    assert process.returncode == 0
    return shown, out


Cli = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``charrnn`` with arguments, in an empty folder; ``rc`` is what it must exit with."""

    def run(
        *args: str | Path, stdin: bytes = b"", rc: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*CHARRNN, *map(str, args)],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env={**ENV, **(env or {})},
            timeout=120,
            check=False,
        )
        assert done.returncode == rc, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert b"Warning" not in done.stderr
        return done

    return run
