"""The lock on a checkpoint: one process has it, it ends with the process, and names it."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from charrnn.errors import CharrnnError, CheckpointError, SaveError
from charrnn.storage.lock import lock
from tests.conftest import ENV

HOLD = """
import sys, time
from pathlib import Path
from charrnn.storage.lock import lock
with lock(Path(sys.argv[1]), "charrnn train x.txt"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "done"])
@pytest.mark.parametrize("name", ["x.npz", "link.npz"])
def test_second_training_is_refused_until_the_first_ends(
    tmp_path: Path, end: str, name: str
) -> None:
    path = tmp_path / "new" / "x.npz"
    (tmp_path / "link.npz").symlink_to(path)
    other_name = path if name == "x.npz" else tmp_path / name
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "locked\n"
        owner = rf"process {other.pid} on .+ \(charrnn train x\.txt\)"
        message = rf"already being trained by {owner}; use -o FILE to train a separate run$"
        for _ in range(2):
            with pytest.raises(CheckpointError, match=message) as e, lock(other_name, ""):
                pass
            assert str(e.value).startswith(f"{other_name}: ")
        with lock(path.with_name("y.npz"), ""):
            pass
        if end == "killed":
            other.kill()
        else:
            assert other.stdin
            other.stdin.close()
        other.wait()
    for _ in range(2):
        with lock(path, "me"), pytest.raises(CheckpointError, match=r"on .+ \(me\);"):
            lock(path, "").__enter__()


@pytest.mark.parametrize(
    "owner", [b"", b"{}", b"[]", b"x", b"\xff", b"[" * 9999, b'{"pid": 1, "command": 3}']
)
def test_lock_file_without_a_readable_owner(tmp_path: Path, owner: bytes) -> None:
    with lock(tmp_path / "x.npz", ""):
        (tmp_path / ".x.npz.lock").write_bytes(owner)
        with (
            pytest.raises(CheckpointError, match="by another process; use -o FILE"),
            lock(tmp_path / "x.npz", ""),
        ):
            pass


def test_command_is_printed_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with lock(path, "a\nb\udcff" + "x" * 10_000):
        assert (tmp_path / ".x.npz.lock").read_bytes().count(b"\n") == 1
        with pytest.raises(CheckpointError, match=r"\(a\\nb\\udcffx+\)") as e, lock(path, ""):
            pass
        assert str(e.value).isprintable()
        assert len(str(e.value)) < 600


def test_lock_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock(tmp_path / "x.npz", ""):
        raise KeyboardInterrupt
    with lock(tmp_path / "x.npz", ""):
        pass


def test_temporary_files_of_killed_trainings_are_removed(tmp_path: Path) -> None:
    stale = [f".x.npz.{digit * 16}.tmp" for digit in "0f"]
    others = [".x.npz.1.tmp", f".y.npz.{'0' * 16}.tmp", "x.npz", f".xanpz.{'0' * 16}.tmp"]
    for name in stale + others:
        (tmp_path / name).touch()
    with lock(tmp_path / "x.npz", ""):
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, ".x.npz.lock"])


@pytest.mark.skipif(sys.platform == "win32", reason="a lock of POSIX")
def test_file_system_without_locks_does_not_prevent_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def fail(code: int) -> Callable[..., None]:
        def flock(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        return flock

    monkeypatch.setattr(fcntl, "flock", fail(errno.ENOLCK))
    with lock(tmp_path / "x.npz", ""):
        pass
    monkeypatch.setattr(fcntl, "flock", fail(errno.EIO))
    with pytest.raises(SaveError, match="could not be saved"), lock(tmp_path / "x.npz", ""):
        pass


def test_unwritable_lock_file_is_a_save_error(tmp_path: Path) -> None:
    (tmp_path / ".x.npz.lock").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "x.npz", tmp_path / "file" / "x.npz"):
        with pytest.raises(CharrnnError, match=r"x\.npz: could not be saved \("), lock(path, ""):
            pass
