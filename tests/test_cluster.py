"""Training on the ranks of an MPI program, started by mpiexec as a user would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from charrnn import cluster
from charrnn.cluster import SINGLE, MPICluster
from charrnn.config import CELLS
from charrnn.errors import UsageError
from charrnn.storage.checkpoint import read_checkpoint
from tests.conftest import CHARRNN, ENV, Cli, read_run

MPIEXEC = Path(sys.executable).with_name("mpiexec")
needs_mpi = pytest.mark.skipif(
    not (find_spec("mpi4py") and MPIEXEC.exists()), reason="needs the extra mpi"
)
SMALL = ("--hidden-size", "10", "--seq-length", "12", "--batch-size", "6", "--num-layers", "2")
EXACT = (*SMALL, "--dtype", "float64", "--dropout", "0.2", "--max-steps", "100")
ENDLESS = (*SMALL, "--max-steps", "10000000", "--sample-every", "0", "-q")
# a rank that fails in its tenth step
FAULTY = """
import sys
rank, fault = int(sys.argv.pop(1)), sys.argv.pop(1)
from charrnn.cluster import launcher_rank
from charrnn.errors import WorkerError
from charrnn.training.parallel import DataParallel

steps, loss_and_grad = [], DataParallel.loss_and_grad

def fail(self, *args):
    steps.append(None)
    if len(steps) == 10 and launcher_rank() == rank:
        if fault == "weights":
            self.network.params.vector[0] += 1
        else:
            raise {"worker": WorkerError, "bug": ZeroDivisionError}[fault]("it failed")
    return loss_and_grad(self, *args)

DataParallel.loss_and_grad = fail
from charrnn.__main__ import run
run()
"""
# a larger text is kept in a file
LIMITED = """
import sys
from charrnn.text import corpus
corpus.MAX_IN_MEMORY_BYTES = int(sys.argv.pop(1))
from charrnn.__main__ import run
run()
"""

Ranks = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def ranks(cli: Cli, tmp_path: Path, corpus: Path) -> Iterator[Ranks]:
    """Start ranks of a command, ``charrnn train corpus.txt`` by default; all end with the test."""
    started = []

    def start(n: int, *args: str, command: Any = (*CHARRNN, "train", "corpus.txt")) -> Any:
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        launched = [str(MPIEXEC), "-n", str(n), *command, *args]
        process = subprocess.Popen(launched, cwd=tmp_path, env=ENV, start_new_session=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(process: subprocess.Popen[bytes], rc: int = 0, stdin: bytes = b"") -> str:
    """Wait for the end of all ranks; return what they have written to standard error."""
    out, err = process.communicate(stdin, timeout=60)
    assert process.returncode == rc, err.decode()
    assert not out
    return err.decode()


def arrays_of(path: Path) -> dict[str, Any]:
    return dict(read_checkpoint(path)[1])


def wait_for_save(path: Path) -> None:
    """Wait until a training has saved and goes on."""
    for _ in range(600):
        if path.exists():
            time.sleep(0.3)
            return
        time.sleep(0.05)
    pytest.fail(f"{path} was not written")


def rank_pids(folder: Path) -> list[int]:
    """Return the process ids of the ranks that work in a folder, in their order."""
    pids = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if not (environ.parent / "cwd").samefile(folder):
                continue
            variables = environ.read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        for rank in range(2):
            if b"PMI_RANK=%d" % rank in variables:
                pids[rank] = int(environ.parent.name)
    return [pids[0], pids[1]]


# --- the same result ---


@needs_mpi
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("documents", [(), ("--documents", "line")])
def test_ranks_train_as_one_process(
    ranks: Ranks, cli: Cli, cell: str, documents: tuple[str, ...]
) -> None:
    options = (*EXACT, "--cell", cell, *documents)
    cli("train", "corpus.txt", *options, "-o", "one.npz")
    err = finish(ranks(2, *options, "--workers", "1", "-o", "two.npz"))
    assert "2 ranks of 1 worker" in err
    one, two = read_run(Path("one.npz")), read_run(Path("two.npz"))
    assert (two.step, two.ranks, two.finished) == (100, 2, True)
    assert two.test_loss == pytest.approx(one.test_loss, abs=1e-9)
    a, b = arrays_of(Path("one.npz")), arrays_of(Path("two.npz"))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-9, err_msg=name)


@needs_mpi
def test_run_resumes_on_other_ranks(ranks: Ranks, cli: Cli) -> None:
    finish(ranks(2, *EXACT, "-o", "whole.npz"))
    finish(ranks(2, *EXACT, "--stop-after", "40", "-o", "same.npz"))
    finish(ranks(2, "--resume", "-o", "same.npz"))
    whole, same = arrays_of(Path("whole.npz")), arrays_of(Path("same.npz"))
    assert all((whole[name] == same[name]).all() for name in whole)
    finish(ranks(2, *EXACT, "--stop-after", "40", "-o", "other.npz"))
    err = finish(ranks(3, "--resume", "--stop-after", "30", "-o", "other.npz"))
    assert "from step 40: 3 ranks of 1 worker instead of 2 ranks of 1 worker; results may" in err
    cli("train", "corpus.txt", "--resume", "-o", "other.npz")
    other = arrays_of(Path("other.npz"))
    for name in whole:
        np.testing.assert_allclose(other[name], whole[name], rtol=0, atol=1e-9, err_msg=name)


@needs_mpi
@pytest.mark.parametrize("limit", [10**9, 1000])
@pytest.mark.parametrize("option", ["--local-ids", "--force"])
def test_every_text_arrives(
    ranks: Ranks, cli: Cli, tmp_path: Path, option: str, limit: int
) -> None:
    (tmp_path / "other.txt").write_text("ab한é\n" * 3000, encoding="utf-8")
    options = (*SMALL, "--max-steps", "5", "--dtype", "float64", "--eval-every", "5")
    cli("train", "other.txt", *options, "-o", "one.npz")
    command = (sys.executable, "-c", LIMITED, str(limit), "train", "other.txt")
    finish(ranks(2, *options, option, "-o", "two.npz", command=command))
    a, b = arrays_of(Path("one.npz")), arrays_of(Path("two.npz"))
    np.testing.assert_allclose(a["last_weights"], b["last_weights"], rtol=0, atol=1e-12)
    assert not [*tmp_path.glob(".*.text")]


@needs_mpi
def test_standard_input_is_the_text_of_all(ranks: Ranks) -> None:
    command = (*CHARRNN, "train", "-", "-o", "in.npz", *SMALL, "--max-steps", "20")
    finish(ranks(2, command=command), stdin="한글 text\n".encode() * 200)
    assert read_run(Path("in.npz")).corpus["characters"] == 1600


@needs_mpi
def test_local_steps_are_averaged(ranks: Ranks) -> None:
    options = (*SMALL, "--max-steps", "60", "--eval-every", "25", "--dtype", "float64")
    err = finish(ranks(2, *options, "--sync-every", "8", "-o", "local.npz"))
    assert "2 ranks of 1 worker, averaged every 8 steps" in err
    state = read_run(Path("local.npz"))
    assert (state.sync_every, [row["step"] for row in state.history]) == (8, [25, 50, 60])
    assert state.running_loss == {"sum": 0, "steps": 0}
    first, *_, last = [row["train_loss"] for row in state.history]
    assert last < first < state.initial_loss


@needs_mpi
def test_average_of_single_steps_is_the_exact_step(ranks: Ranks, cli: Cli) -> None:
    # plain descent without clipping; an evaluation makes the average due
    exact = ("--optimizer", "sgd", "--learning-rate", "0.1", "--clip-norm", "0")
    options = (*SMALL, *exact, "--max-steps", "30", "--eval-every", "1", "--dtype", "float64")
    cli("train", "corpus.txt", *options, "-o", "one.npz")
    finish(ranks(2, *options, "--sync-every", "4", "-o", "two.npz"))
    a, b = arrays_of(Path("one.npz")), arrays_of(Path("two.npz"))
    np.testing.assert_allclose(a["last_weights"], b["last_weights"], rtol=0, atol=1e-9)
    one, two = read_run(Path("one.npz")).history, read_run(Path("two.npz")).history
    for row, other in zip(one, two, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-9)


# --- failures ---


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("fault", "rc", "message"),
    [
        ("worker", 8, "it failed"),
        ("bug", 1, "ZeroDivisionError: it failed"),
        ("weights", 8, "the weights of rank 1 differ from those of rank 0"),
    ],
)
def test_failure_of_a_rank_ends_all(
    ranks: Ranks, fault: str, rc: int, message: str, rank: int
) -> None:
    command = (sys.executable, "-c", FAULTY, str(rank), fault, "train", "corpus.txt")
    options = (*SMALL, "--max-steps", "60", "-q")
    started = time.monotonic()
    err = finish(ranks(2, *options, command=command), rc)
    assert time.monotonic() - started < 10
    assert err.count(message) == 1
    assert read_run(Path("checkpoints/corpus.npz")).step < 60


@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_kill_of_a_rank_ends_all(ranks: Ranks, rank: int) -> None:
    process, path = ranks(2, *ENDLESS), Path("checkpoints/corpus.npz")
    wait_for_save(path)
    os.kill(rank_pids(Path.cwd())[rank], signal.SIGKILL)
    killed = time.monotonic()
    process.communicate(timeout=20)
    assert time.monotonic() - killed < 10
    assert process.returncode
    assert read_run(path).step == 0


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_launcher_save_once(ranks: Ranks, number: signal.Signals) -> None:
    process, path = ranks(2, *ENDLESS[:-1]), Path("checkpoints/corpus.npz")
    wait_for_save(path)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=20)
    step = read_run(path).step
    assert step > 0
    lines = [line for line in err.decode().splitlines() if "stopped at step" in line]
    assert lines == [f"stopped at step {step:,} of 10,000,000; {path} was saved at step {step:,}"]


@needs_mpi
def test_errors_are_reported_once(ranks: Ranks, corpus: Path) -> None:
    err = finish(ranks(2, command=(*CHARRNN, "train", "nothing.txt")), 3)
    assert err.count("nothing.txt") == 1
    err = finish(ranks(3, *SMALL, "--batch-size", "2"), 2)
    assert re.findall(r"the batch has .*", err) == [
        "the batch has 2 sequences, too few for 3 ranks; use a larger --batch-size, or fewer ranks"
    ]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, r"4 processes.*"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"2 processes.*"),
    ],
)
def test_launcher_of_another_library_is_refused(
    cli: Cli, corpus: Path, env: dict[str, str], message: str
) -> None:
    err = cli("train", "corpus.txt", *SMALL, rc=2, env=env).stderr.decode()
    assert re.search(message, err)
    assert "pip install 'charrnn[mpi]'" in err
    assert not Path("checkpoints").exists()


# --- one process, and parts ---


def test_one_process_is_a_cluster_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*cluster.SIZE_VARIABLES, *cluster.RANK_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    assert cluster.connect() is SINGLE
    assert "mpi4py" not in sys.modules
    assert SINGLE.lanes(5) == slice(0, 5)
    assert SINGLE.agree("save", True)
    assert SINGLE.average([], 2.0, False) == [2.0]


def test_missing_mpi_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"one of 2 processes.*pip install 'charrnn\[mpi\]'"):
        cluster.connect()


def test_lanes_are_divided() -> None:
    ranks = [object.__new__(MPICluster) for _ in range(3)]
    for rank, part in enumerate(ranks):
        part.rank, part.size = rank, 3
    assert [part.lanes(8) for part in ranks] == [slice(0, 2), slice(2, 5), slice(5, 8)]
    with pytest.raises(UsageError, match="too few for 3 ranks"):
        ranks[0].lanes(2)


@pytest.mark.parametrize(("share", "shown"), [(0.1, False), (0.5, True)])
def test_slow_communication_is_reported_once(share: float, shown: bool) -> None:
    slow = object.__new__(MPICluster)
    slow._is_measured = False
    slow.mpi = SimpleNamespace(MIN=min)
    slow.comm = SimpleNamespace(allreduce=lambda waited, op: op(waited, 0.9))
    slow._times = []
    messages = []
    for step in range(2 * cluster.SLOW_STEPS):
        slow._times.append((step, step + share))
        messages += [message for message in [slow.slow_message()] if message]
    assert bool(messages) == shown
    assert len(messages) <= 1
    assert not messages or messages[0].startswith("communication between the ranks takes 49%")
