"""One training on a run's file at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from charrnn.errors import CheckpointError, one_line, unsaved

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextlib.contextmanager
def lock(path: Path, command: str) -> Iterator[None]:
    """Keep every other training off this run file, and remove what killed ones have left half written.

    The lock is the kernel's, so that it ends with its process. Raises CheckpointError, which names the process that
    has the lock, and SaveError where the folder cannot be written.
    """
    name = path.with_name(f".{path.name}.lock")
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = _locked(name)
        while fd is not None and not _stands(fd, name):  # removed by its owner before this process got the lock
            os.close(fd)
            fd = _locked(name)
    except OSError as e:
        raise unsaved(path, e) from None
    if fd is None:
        raise CheckpointError(one_line(f"{path}: {_owner(name)}; -o FILE trains another run"))
    try:
        try:
            os.ftruncate(fd, 0)
            line = json.dumps({"pid": os.getpid(), "host": platform.node(), "command": command}) + "\n"
            os.write(fd, line.encode())
            for other in path.parent.iterdir():
                if re.fullmatch(rf"\.{re.escape(path.name)}\.\d+\.tmp", other.name):
                    other.unlink()
        except OSError as e:
            raise unsaved(path, e) from None
        yield
    finally:
        # while the lock is still held: afterwards the file might be the next one's (Windows removes no open file)
        if sys.platform == "win32":
            os.close(fd)
        with contextlib.suppress(OSError):
            name.unlink()
        if sys.platform != "win32":
            os.close(fd)
        if made:
            with contextlib.suppress(OSError):  # of a folder that is not empty: now it holds the run
                path.parent.rmdir()


def _locked(name: Path) -> int | None:
    """Return the lock file opened and locked, None if another process has the lock."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if sys.platform == "win32":
            os.lseek(fd, 2**30, os.SEEK_SET)  # what is locked cannot be read: a byte far behind the line
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            os.lseek(fd, 0, os.SEEK_SET)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        # a file system without locks does not keep anyone from training
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            os.close(fd)
            if e.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                return None
            raise
    return fd


def _stands(fd: int, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), name.stat())
    except FileNotFoundError:
        return False


def _owner(name: Path) -> str:
    try:
        with name.open("rb") as f:
            owner = json.loads(f.read(2**16))
        return f"process {owner['pid']} on {owner['host']} is training it ({owner['command'][:200]})"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # not written yet, or gone in the meantime
        return "another process is training it"
