"""The promises of docs/reliability.md that a whole process must show."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charrnn
from charrnn.training.interrupt import STOP_SIGNALS
from tests.conftest import (
    CHARRNN,
    ENV,
    QUICK,
    ROOT,
    SIZE,
    Cli,
    invoke,
    posix,
    read_run,
    run_on_terminal,
)
from tests.crash_test import content

LONG = (*SIZE, "--max-steps", "400", "--eval-every", "50")
RUN = Path("checkpoints", "corpus.npz")


@pytest.fixture(scope="module")
def whole(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The content of an uninterrupted run of LONG."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(trained / "corpus.txt", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke(["train", "corpus.txt", *LONG, "-q"])
    return content(folder / RUN)


@contextlib.contextmanager
def training(*args: str, until: bytes = b"initial loss") -> Iterator[subprocess.Popen[bytes]]:
    """Start ``charrnn train`` in the current folder, and wait for a line on stderr."""
    command = [*CHARRNN, "train", "corpus.txt", *args]
    with subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE) as process:
        try:
            wait_for(process, until)
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], message: bytes) -> None:
    assert process.stderr
    assert any(message in line for line in process.stderr), message


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for the end of a process; return its exit code, and the rest of its stderr."""
    assert process.stderr
    err = process.stderr.read().decode()
    assert "Traceback" not in err
    return process.wait(60), err


# --- Atomic saves ---


@posix
@pytest.mark.usefixtures("default_workers")
def test_killed_trainings_resume_to_the_uninterrupted_result() -> None:
    command = [sys.executable, "-m", "tests.crash_test", "5"]
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (counts,) = re.findall(r"(\d+) kills at (\d+) distinct steps", done.stdout)
    kills, steps = map(int, counts)
    assert kills >= steps > 3


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_death_of_a_worker_saves_the_run(cli: Cli, corpus: Path, cell: str) -> None:
    command = [*CHARRNN, "train", "corpus.txt", *SIZE, "--cell", cell, "--workers", "2"]
    command += ["--max-steps", "1000000", "--sample-every", "0", "--eval-every", "20"]
    with subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE) as process:
        wait_for(process, b"  20 ")
        (worker,) = children_of(process.pid)
        os.kill(worker, signal.SIGKILL)
        code, err = end(process)
    assert code == 8
    assert "charrnn: a worker process ended unexpectedly" in err
    assert read_run(RUN).step >= 20
    cli("train", "corpus.txt", "--resume", "--stop-after", "1")


def children_of(pid: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            _, parent = stat.read_text().rpartition(") ")[2].split()[:2]
            children += [int(stat.parent.name)] * (int(parent) == pid)
    return children


# --- Interrupts ---


@posix
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_saves_and_the_run_can_be_resumed(
    cli: Cli, corpus: Path, whole: Any, number: int
) -> None:
    with training(*LONG) as process:
        process.send_signal(number)
        code, err = end(process)
    assert code == 128 + number
    step = read_run(RUN).step
    assert 0 < step < 400
    assert err.endswith(
        f"stopped at step {step} of 400; {RUN} was saved at step {step}\n"
        "resume with:\n  charrnn train corpus.txt --resume\n"
    )
    cli("train", "corpus.txt", "--resume", "-q")
    assert content(RUN) == whole


@posix
def test_second_ctrl_c_ends_the_process_immediately(cli: Cli, corpus: Path) -> None:
    # a step takes several seconds, and the first signal waits for its end
    sizes = ("--hidden-size", "700", "--num-layers", "2", "--seq-length", "5000")
    with training(*sizes, "--batch-size", "1", until=b"baseline") as process:
        while not RUN.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
    assert read_run(RUN).step == 0


@posix
@pytest.mark.parametrize(("number", "rc"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_the_text_is_read_leaves_no_file(tmp_path: Path, number: int, rc: int) -> None:
    command, pipe = [*CHARRNN, "train", "-", "-o", "run.npz"], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=ENV, stdin=pipe, stderr=pipe) as process:
        assert process.stdin
        process.stdin.write(bytes(1_000_000))  # more than a pipe holds: the process is reading
        time.sleep(0.1)  # until it waits for more
        process.send_signal(number)
        assert end(process)[0] == rc
    assert [path.name for path in tmp_path.iterdir()] == [".run.npz.lock"]


@posix
def test_ignored_signal_stays_ignored(cli: Cli, corpus: Path) -> None:
    """A shell without job control ignores SIGINT in a background process, and so does nohup."""
    numbers = signal.SIGINT, signal.SIGHUP
    handlers = [signal.signal(number, signal.SIG_IGN) for number in numbers]  # inherited
    try:
        with training(*LONG) as process:
            for number in numbers:
                process.send_signal(number)
            assert end(process)[0] == 0
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    assert read_run(RUN).finished


@posix
def test_ctrl_c_in_python_saves_and_returns_the_model(tmp_path: Path, text: str) -> None:
    code = (
        "import charrnn, os, signal, sys, threading, time\n"
        "def interrupt():\n"
        "  while not os.path.exists('run.npz'): time.sleep(0.1)\n"
        "  time.sleep(0.5); signal.raise_signal(signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "model = charrnn.train(sys.argv[1], output='run.npz', hidden_size=8, max_steps=10**6); "
        "print(model.state.step)"
    )
    command = [sys.executable, "-c", code, text]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, check=True)
    assert 0 < read_run(tmp_path / "run.npz").step == int(done.stdout) < 10**6


# --- Texts that cannot be read again ---


@posix
def test_run_trained_from_a_pipe_says_that_it_is_gone(cli: Cli, tmp_path: Path, text: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(
        ["sh", "-c", "cat > pipe"], cwd=tmp_path, stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdin
        writer.stdin.write(text.encode())
        writer.stdin.close()
        cli("train", "pipe", *QUICK, "-q")
    message = "was trained on standard input or another pipe, which is gone"
    assert message in cli("eval", "--split", "val", rc=4).stderr.decode()
    cli("report", "checkpoints/pipe.npz")
    assert message in Path("pipe.html").read_text()


@posix
def test_own_output_does_not_become_the_corpus(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    train = f"{shlex.join(CHARRNN)} train . {shlex.join(SIZE)}"
    script = (
        f"{train} --max-steps 20 --stop-after 5 2> train.log && charrnn() {{ {shlex.join(CHARRNN)} "
        f'"$@"; }} && charrnn report checkpoints/*.npz && echo more > b.txt && {train} --resume'
    )
    script = script.replace(f"{shlex.join(SIZE)} --resume", "--resume")
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=ENV, capture_output=True, check=True
    )
    (path,) = (tmp_path / "checkpoints").glob("*.npz")
    assert [name for name, *_ in read_run(path).corpus["files"]] == ["../a.txt"]
    assert b"b.txt (not in this run)" in done.stderr


@pytest.mark.parametrize("documents", ["line", "file"])
def test_documents_that_are_none_are_reported(cli: Cli, tmp_path: Path, documents: str) -> None:
    (tmp_path / "old.txt").write_bytes(b"one line\rand another\r" * 99)
    err = cli("train", "old.txt", *QUICK, "--documents", documents).stderr.decode()
    assert f"--documents {documents} has no effect" in err
    assert ("carriage returns" in err) == (documents == "line")


# --- Failed saves ---


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
@pytest.mark.parametrize("space_returns", [True, False])
def test_failed_saves_keep_the_old_checkpoint_and_are_retried(
    cli: Cli, corpus: Path, whole: Any, space_returns: bool
) -> None:
    import resource

    def limit(size: int) -> None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    failed = f"{RUN}: could not be saved (file too large)"
    with training(*LONG, "--save-every", "0.02") as process:
        limit(1000)  # bytes
        wait_for(process, failed.encode())
        step = read_run(RUN).step
        wait_for(process, failed.encode())
        assert read_run(RUN).step == step < 400
        if space_returns:
            limit(resource.RLIM_INFINITY)
        code, err = end(process)
    if not space_returns:
        assert code == 7
        assert err.endswith(f"charrnn: {failed}\n")
        assert read_run(RUN).step == step
        cli("train", "corpus.txt", "--resume", "-q")
    else:
        assert code == 0
    assert content(RUN) == whole
    assert {path.name for path in RUN.parent.iterdir()} == {".corpus.npz.lock", "corpus.npz"}


def test_missing_folder_is_created_again(cli: Cli, corpus: Path) -> None:
    with training(*LONG, "--save-every", "0.02") as process:
        RUN.parent.rename("moved")
        assert end(process)[0] == 0
    assert read_run(RUN).finished
    assert not read_run(Path("moved", "corpus.npz")).finished


# --- Locking ---


@posix
def test_second_training_of_a_checkpoint_is_refused(cli: Cli, corpus: Path) -> None:
    with training(*SIZE, "--max-steps", "100000") as process:
        for option in ("--resume", "--force"):
            assert re.fullmatch(
                rf"charrnn: {RUN}: already being trained by process {process.pid} on \S+ "
                r"\(.*train corpus.txt .*\); use -o FILE to train a separate run\n",
                cli("train", "corpus.txt", option, rc=4).stderr.decode(),
            )
        process.kill()
    # the lock ends with its process
    cli("train", "corpus.txt", "--resume", "--stop-after", "1")


# --- Texts ---

TEXTS = (
    "ab",
    "\n\n",
    "a\nb",
    "x" * 31,
    "a" * 5000,
    "한글\n" * 40,
    "가" * 200,
    "\0\1\2" * 100,
    "שלום 👩‍👩‍👧 e\u0301\r\n" * 20,
)


@pytest.mark.parametrize("unit", ["char", "byte", "jamo", "word"])
@pytest.mark.parametrize("documents", [None, "line", "file"])
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text[:3]!r}x{len(text)}")
def test_every_text_trains_loads_and_is_sampled(
    tmp_path: Path, text: str, documents: str | None, unit: str
) -> None:
    options: dict[str, Any] = {"unit": unit, "documents": documents, "max_steps": 3}
    model = charrnn.train(text, output=tmp_path / "run.npz", hidden_size=8, **options)
    assert np.isfinite(read_run(tmp_path / "run.npz").history[-1]["train_loss"])
    loaded = charrnn.load(tmp_path / "run.npz")
    sample = "".join(loaded.sample(20, seed=0))
    assert sample == "".join(model.sample(20, seed=0))
    assert len(sample) <= 20
    nats = loaded.nll(text)
    assert len(nats) == (len(text.encode()) if unit == "byte" else len(text))
    assert (nats >= 0).all()
    if unit == "char":
        assert set("".join(loaded.sample(20, seed=0, prime=text[:30]))) <= set(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=3, max_size=60),
    unit=st.sampled_from(["char", "jamo", "word"]),
)
def test_all_of_unicode_trains_loads_and_is_sampled(tmp_path: Path, text: str, unit: str) -> None:
    path = tmp_path / "run.npz"
    path.unlink(missing_ok=True)
    model = charrnn.train(text, output=path, hidden_size=4, max_steps=3, unit=unit)
    loaded = charrnn.load(path)
    assert loaded.vocabulary.decode(loaded.vocabulary.encode(text)) == text
    assert len(loaded.nll(text)) == len(text)
    sample = "".join(model.sample(5, prime=text, seed=1))
    assert "".join(loaded.sample(5, prime=text, seed=1)) == sample
    if sample:
        until = sample[-1]
        assert "".join(loaded.sample(9, prime=text, seed=1, until=until)) in sample


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_large_text_needs_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "line.txt").open("wb") as f:
        for _ in range(100):
            f.write(b"one line without an end. " * 40_000)
    # through a small process: the memory of this one would count for its children
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    options = (*QUICK, "--val-fraction", "0.0001", "--test-fraction", "0", "-q")
    command = [sys.executable, "-c", measure, *CHARRNN, "train", "line.txt", *options]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < 230_000  # KiB, of which some 80 MB count n-grams
    assert read_run(tmp_path / "checkpoints" / "line.npz").corpus["bytes"] == 10**8


# --- Environment ---


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "no such zone"}
        | {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "COLUMNS": "20"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "xx", "TZ": "Pacific/Kiritimati", "HOME": "/nowhere"}
        | {"TERM": "", "NO_COLOR": "1"},
    ],
    ids=["C", "tr_TR"],
)
def test_environment_changes_no_result(cli: Cli, tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "für.txt").write_bytes("naïve 한국어 👩‍👩‍👧\r\n".encode() * 300)
    cli("train", "für.txt", *QUICK, "-o", "plain.npz")
    cli("train", "für.txt", *QUICK, "-o", "run.npz", env=env)
    assert content(tmp_path / "plain.npz") == content(tmp_path / "run.npz")
    args = ("sample", "run.npz", "--length", "50", "--seed", "1", "--prime-file", "-")
    sample, wanted = (cli(*args, stdin="한국".encode(), env=e).stdout for e in (env, None))
    assert sample == wanted
    assert wanted.startswith("한국".encode())


@posix
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_progress_fits_a_terminal_of_20_columns(corpus: Path, tmp_path: Path, term: str) -> None:
    command = [*CHARRNN, "train", "corpus.txt", *QUICK]
    shown, _ = run_on_terminal(command, tmp_path, {**ENV, "TERM": term}, 5, 20)
    assert b"Traceback" not in shown
    bars = [part for part in re.split(rb"[\r\n]", shown) if b"%|" in part]
    assert bars
    assert all(len(bar.decode()) <= 20 for bar in bars)


@posix
def test_umask_is_respected_and_the_current_folder_may_be_read_only(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc" if Path("/proc").exists() else "/")
    umask = os.umask(0o077)
    try:
        cli("train", corpus, *QUICK, "-q", "-o", tmp_path / "run.npz")
    finally:
        os.umask(umask)
    assert (tmp_path / "run.npz").stat().st_mode & 0o777 == 0o600
    err = cli("train", corpus, *QUICK, rc=7).stderr.decode()
    assert re.fullmatch(rf"charrnn: {RUN}: could not be saved \(.*\)\n", err)


@posix
def test_clock_may_be_wrong(cli: Cli, corpus: Path) -> None:
    cli("train", "corpus.txt", *QUICK, "--stop-after", "5")
    os.utime(RUN, (0, 0))
    os.utime(corpus, (2**33, 2**33))
    cli("train", "corpus.txt", "--resume")
    assert cli("sample", "--length", "5").stdout
