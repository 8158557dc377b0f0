"""Worker processes, which share the work of training and scoring with the process that has them.

NumPy's short calls wait for the interpreter, so that threads wait for each other. A process has its
own. Worker 0 is this process; the others start as programs of their own, never by fork, and read
calls from a pipe. They end when it ends, however this process does.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from charrnn.blas import BLAS_VARIABLES, limit_threads
from charrnn.errors import WorkerError

ALIGNMENT = 64  # bytes, of each shared array
# The path is set before anything is imported that a file of the current folder could replace.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from charrnn.workers import serve_calls; serve_calls()"
)
IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")  # the other process ends this one

Shapes: TypeAlias = Mapping[str, tuple[tuple[int, ...], str]]  # by name: shape and dtype


def available_cores(ranks: int = 1) -> int:
    """Return the number of cores that this process may use.

    Several ranks on this machine share its cores, unless the launcher has divided them already.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on all systems
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # a container's limit, such as 2 of 64 cores
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return max(1, cores // ranks) if cores == (os.cpu_count() or 1) else cores


class SharedArrays:
    """Named arrays in a file that several processes map; with None, in this process alone.

    Pickling sends the shapes; the process that receives them maps the same file.
    """

    def __init__(self, fd: int | None, shapes: Shapes) -> None:
        self.fd, self.shapes = fd, dict(shapes)
        ends, starts = 0, {}
        for name, (shape, dtype) in self.shapes.items():
            starts[name] = -(-ends // ALIGNMENT) * ALIGNMENT
            ends = starts[name] + prod(shape) * np.dtype(dtype).itemsize
        memory: Any = np.zeros(ends, np.uint8)
        if fd is not None:
            if os.fstat(fd).st_size < ends:
                allocate = getattr(os, "posix_fallocate", lambda fd, _, n: os.truncate(fd, n))
                allocate(fd, 0, ends)  # raises OSError if there is too little memory
            memory = mmap.mmap(fd, ends)
        self._arrays: dict[str, Any] = {
            name: np.frombuffer(memory, dtype, prod(shape), starts[name]).reshape(shape)
            for name, (shape, dtype) in self.shapes.items()
        }

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedArrays, (self.fd, self.shapes)


class Workplace:
    """Performs a worker's calls: of functions, or of the methods of an object that it keeps."""

    def __init__(self) -> None:
        self.kept: Any = None

    def perform(self, target: Callable[..., Any] | str, args: Sequence[Any]) -> Any:
        """Call a function, or a method by name; keep the object that a class makes."""
        if isinstance(target, str):
            return getattr(self.kept, target)(*args)
        if isinstance(target, type):
            self.kept = target(*args)
            return None
        return target(*args)


class _Process:
    """A worker in another process."""

    def __init__(self, fd: int) -> None:
        env = os.environ | dict.fromkeys(BLAS_VARIABLES, "1")
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            env=env,
            pass_fds=[fd],
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
            **pipes,
        )
        self.calls: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        self.answers: IO[bytes] = self.process.stdout  # type: ignore[assignment]

    def send(self, target: Callable[..., Any] | str, args: Sequence[Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended: there will be no answer
            pickle.dump((target, args), self.calls, pickle.HIGHEST_PROTOCOL)
            self.calls.flush()

    def receive(self) -> Any:
        """Return the answer, which may be an exception. Raises WorkerError if there is none."""
        try:
            return pickle.load(self.answers)  # from this program
        except (EOFError, pickle.UnpicklingError):
            code = self.process.wait()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise WorkerError(f"a worker process ended unexpectedly ({how})") from None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.calls, self.answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class _Thread:
    """A worker in this process, on a thread if there is one, or else when its answer is needed."""

    def __init__(self) -> None:
        self.workplace = Workplace()
        self.pool = ThreadPoolExecutor(1, initializer=lambda: np.seterr(all="ignore"))
        self.call: tuple[Any, Sequence[Any]] | Future[Any] = None, ()

    def send(self, target: Callable[..., Any] | str, args: Sequence[Any]) -> None:
        try:
            self.call = self.pool.submit(self.workplace.perform, target, args)
        except RuntimeError:  # the system has no more threads
            self.call = target, args

    def receive(self) -> Any:
        try:
            if isinstance(self.call, Future):
                return self.call.result()
            return self.workplace.perform(*self.call)
        except Exception as e:
            return e

    def close(self) -> None:
        self.pool.shutdown()


class Workers:
    """Some workers, which perform one call each at a time; the processes start with the first.

    If no other process can be had, they are threads, with the same result. ``message`` says so. As
    a context, it ends the processes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.message = ""
        self.fd: int | None = None  # of the file for shared arrays
        self._own = Workplace()
        self._others: list[_Process | _Thread] = []
        self._file: IO[bytes] | None = None

    def start(self) -> None:
        """Start the other workers, unless they have been started."""
        if len(self._others) == self.size - 1:
            return
        try:
            self._file = _shared_file()
            self.fd = self._file.fileno()
            for _ in range(self.size - 1):
                self._others.append(_Process(self.fd))
            for worker in self._others:
                worker.send(os.getpid, ())
                worker.receive()
        except (OSError, ValueError, WorkerError):
            self._use_threads()

    def _use_threads(self) -> None:
        self.close()
        self.message = "no second process available; continuing with threads, more slowly"
        self._others = [_Thread() for _ in range(self.size - 1)]

    def share(self, shapes: Shapes) -> SharedArrays:
        """Return arrays that all workers have, for use as an argument of a call."""
        self.start()
        try:
            return SharedArrays(self.fd, shapes)
        except OSError:  # too little memory of this kind
            self._use_threads()
            return SharedArrays(None, shapes)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The other processes."""
        return [worker.process for worker in self._others if isinstance(worker, _Process)]

    def call(self, target: Callable[..., Any] | str, tasks: Sequence[Sequence[Any]]) -> list[Any]:
        """Call ``target`` with the arguments of task k on worker k; return the answers in order.

        A name is a method of the object that the last call of a class has made on each. An
        exception is raised once all workers have ended. Raises WorkerError if one has died.
        """
        if len(tasks) > 1:
            self.start()
        others = self._others[: len(tasks) - 1]
        for worker, args in zip(others, tasks[1:], strict=True):
            worker.send(target, args)
        answers: list[Any] = []
        try:
            answers.append(self._own.perform(target, tasks[0]))
        except Exception as e:
            answers.append(e)
        for worker in others:
            try:
                answers.append(worker.receive())
            except WorkerError as e:
                answers.append(e)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        """End the other workers."""
        for worker in self._others:
            worker.close()
        self._others, self.fd = [], None
        if self._file is not None:
            self._file.close()
            self._file = None

    __del__ = close

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ALONE = Workers(1)


def _shared_file() -> IO[bytes]:
    """Return an open file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("charrnn"), "r+b", 0)
    return tempfile.TemporaryFile(buffering=0)


def serve_calls() -> None:
    """Perform the calls that arrive on standard input, and answer each, until the input ends."""
    for name in IGNORED_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    np.seterr(all="ignore")

    # nothing that prints may come between the answers
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    workplace = Workplace()
    with limit_threads():
        while True:
            try:
                target, args = pickle.load(calls)  # from this program
            except EOFError:
                os._exit(0)
            answer: Any
            try:
                answer = workplace.perform(target, args)
            except Exception as e:
                answer = e
            try:
                pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()
            except BrokenPipeError:
                os._exit(0)
