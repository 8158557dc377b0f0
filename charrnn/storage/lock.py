"""The lock on a checkpoint: only one process trains it at a time."""

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

from charrnn.errors import CheckpointError
from charrnn.formatting import escape_control, save_error
from charrnn.storage.output import make_folder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# on a file system without locks, training needs none
UNSUPPORTED_ERRORS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
LOCKED_ERRORS = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def lock(path: Path, command: str) -> Iterator[None]:
    """Keep other trainings off a checkpoint, and remove the temporary files of killed ones.

    The lock is the operating system's, on a file next to the checkpoint (next to the target of a
    symbolic link), and ends with the process; the file stays. Raises CheckpointError, which names
    the process that has the lock, and SaveError if the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    lock_path = target.with_name(f".{target.name}.lock")
    try:
        make_folder(target.parent)
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as e:
        raise save_error(path, e) from None
    with os.fdopen(fd, "wb") as f:
        try:
            acquired = _acquire(fd)
            if acquired:
                f.truncate()
                owner = {"pid": os.getpid(), "host": platform.node(), "command": command}
                f.write(json.dumps(owner).encode() + b"\n")
                f.flush()
                for file in target.parent.iterdir():
                    if re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp", file.name):
                        file.unlink()
        except OSError as e:
            raise save_error(path, e) from None
        if not acquired:
            message = f"{path}: already being trained by {_owner(lock_path)}"
            raise CheckpointError(escape_control(f"{message}; use -o FILE to train a separate run"))
        yield


def _acquire(fd: int) -> bool:
    """Lock an open file; return False if another process holds the lock."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, 2**30, os.SEEK_SET)  # locked bytes cannot be read: one far beyond the text
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            os.lseek(fd, 0, os.SEEK_SET)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in LOCKED_ERRORS:
            return False
        if e.errno not in UNSUPPORTED_ERRORS:
            raise
    return True


def _owner(lock_path: Path) -> str:
    """Return the process that holds the lock, as its file describes it."""
    try:
        with lock_path.open("rb") as f:
            owner = json.loads(f.read(2**16))
        return f"process {owner['pid']} on {owner['host']} ({owner['command'][:200]})"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # not written yet
        return "another process"
