"""Shared by the tests: a small text, a trained run, the command line, a numeric gradient."""

# ruff: noqa: E402 (the number of threads must be set before NumPy is imported)
from __future__ import annotations

from charrnn.cli.common import set_threads

set_threads(1)

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from charrnn.arrays import Array, Ids
from charrnn.cli import main
from charrnn.network import Network
from charrnn.storage.checkpoint import read_state
from charrnn.storage.state import State
from charrnn.training.interrupt import STOP_SIGNALS

ROOT = Path(__file__).parent.parent
CHARRNN = [sys.executable, "-m", "charrnn"]
# a process for each core in every test would take longer than the tests
os.environ["CHARRNN_TRAIN_WORKERS"] = "1"
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
SIZE = ("--hidden-size", "12", "--seq-length", "16", "--batch-size", "8")
QUICK = (*SIZE, "--max-steps", "30")

# a test of correctness must not fail because the machine is busy
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
    """Compare relative to the norm of the whole array: any wrong factor, sign or term shows."""
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < tolerance


def assert_gradients_match(
    network: Network, xs: Ids, ys: Ids, rng: np.random.Generator, dropout: bool
) -> None:
    """Compare with central differences, from a random carried state."""
    (T, B), state = xs.shape, rng.standard_normal(network.zero_state(xs.shape[1]).shape)
    masks = network.dropout_masks(rng, T, B, 0.5) if dropout else None
    tape, other = network.new_tape(T, B), network.copy()

    def loss() -> float:
        nats, _ = other.loss_and_grad(xs, ys, state, tape, masks=masks, scale=1)
        return 0.1 * float(nats.sum())

    wanted = numeric(loss, other.params.vector)
    network.grads.vector.fill(np.nan)
    network.loss_and_grad(xs, ys, state, tape, masks=masks, scale=0.1)
    assert_close(network.grads.vector, wanted)
    # each parameter separately, so that a small one cannot hide behind a large one
    other.grads.vector[:] = wanted
    for name in network.grads:
        assert_close(network.grads[name], other.grads[name], 1e-6)


def assert_lanes_match_alone(
    network: Network, xs: Ids, ys: Ids, state: Array, lengths: Sequence[int]
) -> None:
    """Compare the losses and the gradient of padded lanes with those of each lane alone."""
    T, B = xs.shape
    nats, _ = network.loss_and_grad(xs, ys, state, network.new_tape(T, B), scale=1)
    whole, total = network.grads.vector.copy(), np.zeros_like(network.grads.vector)
    for lane, n in enumerate(lengths):
        lanes, tape = slice(lane, lane + 1), network.new_tape(T, 1).slice(0, n)
        args = xs[:n, lanes], ys[:n, lanes], state[..., lanes], tape
        alone, _ = network.loss_and_grad(*args, scale=1)
        np.testing.assert_allclose(nats[:n, lane], alone[:, 0], rtol=0, atol=1e-12)
        total += network.grads.vector
    np.testing.assert_allclose(whole, total, rtol=0, atol=1e-12)


def random_network(cell: str, num_layers: int, scale: float = 0.7) -> Network:
    """Return a float64 network of 7 symbols and 4 hidden units with large random weights."""
    network = Network(cell, 7, 4, num_layers, np.float64)
    rng = np.random.default_rng(num_layers)
    network.params.vector[:] = scale * rng.standard_normal(len(network.params.vector))
    return network


def read_run(path: Path) -> Any:
    """Return the state of a saved run; a test knows which of its losses are not None."""
    state = read_state(path)
    assert isinstance(state, State)
    return state


@pytest.fixture(scope="session")
def text() -> str:
    """Some 6,000 characters with words, lines and repetition."""
    rng = np.random.default_rng(0)
    words = ["the", "king", "queen", "of", "a", "night", "sea", "and", "shall", "not", "come"]
    lines = (" ".join(rng.choice(words, rng.integers(3, 9))).capitalize() + "." for _ in range(200))
    return "\n".join(lines) + "\n"


@pytest.fixture
def corpus(tmp_path: Path, text: str) -> Path:
    """The text, in an otherwise empty folder."""
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8", newline="\n")
    return tmp_path / "corpus.txt"


def run_on_terminal(
    command: list[str], cwd: Path, env: dict[str, str], rows: int, columns: int
) -> tuple[bytes, bytes]:
    """Run a command whose stderr is a terminal; return what it showed there, and its stdout."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=follower, env=env
    ) as process:
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


Done = subprocess.CompletedProcess[bytes]
Cli = Callable[..., Done]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run ``charrnn`` in an empty folder; ``rc`` is the expected exit code.

    With ``env``, additions to the environment, it runs in its own process.
    """
    monkeypatch.chdir(tmp_path)

    def run(
        *args: str | Path, stdin: bytes = b"", rc: int = 0, env: dict[str, str] | None = None
    ) -> Done:
        command = [str(arg) for arg in args]
        return invoke(command, stdin, rc) if env is None else start(command, stdin, rc, env)

    return run


def start(args: list[str], stdin: bytes, rc: int, env: dict[str, str]) -> Done:
    """Run ``charrnn`` in its own process."""
    done = subprocess.run(
        [*CHARRNN, *args],
        input=stdin,
        capture_output=True,
        env={**ENV, **env},
        timeout=120,
        check=False,
    )
    assert done.returncode == rc, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"Warning" not in done.stderr
    return done


def invoke(args: list[str], stdin: bytes = b"", rc: int = 0) -> Done:
    """Run ``charrnn`` in this process, with its own streams and signal handlers."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = [
        io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
        for stream in (io.BytesIO(stdin), out, err)
    ]
    names = ["stdin", "stdout", "stderr"]
    with pytest.MonkeyPatch.context() as patch, kept_signal_handlers():
        for name, stream in zip(names, streams, strict=True):
            patch.setattr(sys, name, stream)
        patch.setattr(sys, "argv", ["charrnn", *args])
        patch.setenv("COLUMNS", os.environ.get("COLUMNS", "80"))
        with pytest.raises(SystemExit) as exited:
            main(args, prog_name="charrnn")
    code = exited.value.code or 0
    assert code == rc, err.getvalue().decode()
    return subprocess.CompletedProcess(args, rc, out.getvalue(), err.getvalue())


@pytest.fixture
def default_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the number of workers be decided as for a user."""
    monkeypatch.delenv("CHARRNN_TRAIN_WORKERS", raising=False)
    monkeypatch.delitem(ENV, "CHARRNN_TRAIN_WORKERS", raising=False)


@contextlib.contextmanager
def kept_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """A folder with a text and the run trained on it: corpus.txt, checkpoints/corpus.npz."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "corpus.txt").write_text(text, encoding="utf-8", newline="\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke(["train", "corpus.txt", *QUICK])
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The checkpoint of a trained run, and a copy of its text, in an otherwise empty folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints" / "corpus.npz"
