import concurrent.futures
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from charrnn.errors import WorkerError
from charrnn.workers import SharedArrays, Workers, available_cores
from tests.conftest import ENV, posix

pytestmark = posix


class Counter:
    """Counts in an array that its process shares with the others."""

    def __init__(self, arrays: SharedArrays, k: int) -> None:
        self.arrays, self.k = arrays, k

    def add(self, amount: int) -> int:
        self.arrays["counts"][self.k] += amount
        return os.getpid()


def fail(k: int) -> int:
    """Raise an error on the second worker."""
    if k == 1:
        raise MemoryError(k)
    return k


def test_every_worker_is_a_process_with_shared_memory() -> None:
    with Workers(3) as pool:
        arrays = pool.share({"counts": ((3,), "=i8"), "nothing": ((0, 5), "=f4")})
        pool.call(Counter, [(arrays, k) for k in range(3)])
        first, again = (pool.call("add", [(k + 1,) for k in range(3)]) for _ in range(2))
        assert arrays["counts"].tolist() == [2, 4, 6]
        assert first == again
        assert len(set(first)) == 3
        assert first[0] == os.getpid()
        processes = pool.processes
    assert not pool.message
    assert all(process.poll() is not None for process in processes)


def test_one_worker_starts_no_process() -> None:
    with Workers(1) as pool:
        assert pool.call(os.getpid, [()]) == [os.getpid()]
        assert not pool.processes


def test_an_exception_is_raised_after_all_have_answered() -> None:
    with Workers(3) as pool:
        with pytest.raises(MemoryError, match="1"):
            pool.call(fail, [(k,) for k in range(3)])
        assert pool.call(fail, [(0,), (2,), (3,)]) == [0, 2, 3]


def test_a_death_is_an_error_of_its_own() -> None:
    with Workers(2) as pool:
        with pytest.raises(WorkerError, match="exit code 3"):
            pool.call(exit_second, [(0,), (1,)])
        with pytest.raises(WorkerError):
            pool.call(fail, [(0,), (0,)])


def exit_second(k: int) -> None:
    """End the process of the second worker."""
    if k:
        os._exit(3)


@pytest.mark.parametrize("broken", ["executable", "memory", "threads"])
def test_threads_take_the_place_of_processes(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread") if broken == "threads" else OSError(12, "no")

    if broken == "memory":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    if broken == "threads":
        monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", refuse)
    with Workers(2) as pool:
        arrays = pool.share({"counts": ((2,), "=i8")})
        pool.call(Counter, [(arrays, 0), (arrays, 1)])
        assert pool.call("add", [(1,), (2,)]) == [os.getpid()] * 2
        assert arrays["counts"].tolist() == [1, 2]
        assert pool.message.startswith("no second process available")
        with pytest.raises(MemoryError):
            pool.call(fail, [(0,), (1,)])


def test_a_file_on_disk_takes_the_place_of_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with Workers(2) as pool:
        arrays = pool.share({"counts": ((2,), "=i8")})
        pool.call(Counter, [(arrays, 0), (arrays, 1)])
        pool.call("add", [(1,), (2,)])
        assert arrays["counts"].tolist() == [1, 2]
        assert not pool.message


def test_shared_arrays_are_aligned_and_writable() -> None:
    arrays = SharedArrays(None, {"a": ((3,), "=i1"), "b": ((2, 2), "=f8")})
    arrays["b"][:] = 1
    assert arrays["a"].tolist() == [0, 0, 0]
    assert arrays["b"].ctypes.data % 8 == 0


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("numpy", "signal", "pickle", "charrnn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    code = (
        "import sys, os; sys.path.pop(0)\n"
        "from charrnn.workers import Workers\n"
        "pool = Workers(2)\n"
        "print(len(set(pool.call(os.getpid, [(), ()]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENV, capture_output=True, check=True
    )
    assert done.stdout == b"2\n"


def test_no_worker_survives_the_kill_of_its_parent() -> None:
    code = (
        "from charrnn.workers import Workers; import os, time\n"
        "pool = Workers(2)\n"
        "print(pool.call(os.getpid, [(), ()])[1], flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=ENV, stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)  # ignored
    os.kill(pid, 0)
    parent.kill()
    parent.communicate()
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the worker is still there")


def test_ranks_share_the_cores_unless_the_launcher_divides_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for cores, ranks, each in ((8, 1, 8), (8, 3, 2), (8, 9, 1), (2, 4, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: range(n), raising=False)
        assert available_cores(ranks) == each


def refuse(*_: object, **__: object) -> None:
    """Have no file."""
    raise FileNotFoundError


def test_arrays_are_sent_by_their_shapes() -> None:
    data = pickle.dumps(SharedArrays(None, {"a": ((1000, 1000), "=f8")}))
    assert len(data) < 1000
    assert pickle.loads(data)["a"].shape == (1000, 1000)
    assert np.dtype("=f8") == pickle.loads(data)["a"].dtype
