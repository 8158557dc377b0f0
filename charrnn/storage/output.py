"""Writing a file: the one way for every checkpoint, page and picture."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from charrnn.errors import SaveError, UsageError
from charrnn.formatting import escape_control, save_error

PRIVATE = 0o600  # while a file is written that replaces one of another mode
NEW_FILE_MODE = 0o666  # less the umask

_unfinished: set[Path] = set()  # temporary files that are being written


def check_output(
    path: Path, force: bool, inputs: Iterable[Path | str] = (), option: str = "--force"
) -> None:
    """Raise UsageError if ``path`` must not be written: it exists, or it is one of ``inputs``.

    ``force`` allows a regular file that exists; ``option`` is what the message names for it.
    """
    if path.is_dir() or not path.name:
        raise UsageError(f"{path} is a folder; name a file in it")
    if not os.path.lexists(os.path.realpath(path)):
        return
    if not path.is_file():  # a device, a pipe, or a loop of links
        raise UsageError(f"{path} is not a regular file; name another file to write")
    for source in map(Path, inputs):
        if source.is_file() and path.samefile(source):
            raise UsageError(f"{path} is read by this command; name another file to write")
    if not force:
        raise UsageError(f"{path} already exists; use {option} to overwrite it")


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` when the context ends without an error.

    It is written next to the old one under a random name, forced to disk and renamed. It keeps the
    mode of the old one, and its owner where that is allowed. A symbolic link is followed to its
    target. After a failure the old file is unchanged. Raises SaveError, also if there is a device,
    a pipe or a folder at ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        # what is there now, and the folders
        old = target.lstat() if os.path.lexists(target) else None
        if old and not stat.S_ISREG(old.st_mode):
            raise SaveError(escape_control(f"{path}: could not be saved (not a regular file)"))
        make_folder(target.parent)

        # write, force to disk, rename
        _unfinished.add(temporary)
        try:
            with _create(temporary, old) as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            _unfinished.discard(temporary)
        _sync_folder(target.parent)
    except SaveError:
        raise
    except OSError as e:
        raise save_error(path, e) from None


def remove_unfinished() -> None:
    """Remove the temporary files of unfinished writes, before this process ends."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder with those above it, and force their names to disk. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _create(path: Path, old: os.stat_result | None) -> IO[bytes]:
    """Create a file, which must not exist, with the mode and the owner of an old one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    f = os.fdopen(os.open(path, flags, PRIVATE if old else NEW_FILE_MODE), "wb")
    if old and hasattr(os, "fchown"):
        with contextlib.suppress(PermissionError):  # only root gives a file to another user
            os.fchown(f.fileno(), old.st_uid, old.st_gid)
        os.fchmod(f.fileno(), stat.S_IMODE(old.st_mode))
    return f


def _sync_folder(folder: Path) -> None:
    """Force the new name of a file to disk, where POSIX lets us."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
