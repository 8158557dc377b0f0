"""One file for a run: a zip of NumPy arrays and ``header.json``. Never a pickle; written whole or not at all.

A file from a stranger is hostile until proved: what it says of itself is checked before anything of that size is
read, parsed or allocated.
"""

# NumPy is imported by the functions that need it: the command line reads a header before it chooses the number
# of BLAS threads, and that choice must stand when NumPy is first imported.

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import reprlib
import secrets
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from charrnn.errors import CheckpointError, NotFiniteError, SaveError, os_reason, save_error
from charrnn.formatting import escape_control
from charrnn.header import BYTES, Header, Refused, decode, encode, fits

if TYPE_CHECKING:
    from charrnn.arrays import Array

HEADER = "header.json"
ARRAYS = {
    "run": {"best_weights", "last_weights", "optimizer_state", "hidden_state"},
    "model": {"best_weights"},
}
MEMBERS = {HEADER, *(f"{name}.npy" for name in ARRAYS["run"])}
DIRECTORY_BYTES = 2**12  # of the zip's directory, at most; five members need some 400
ZIP64 = 2**31 - 1  # a directory that lies beyond this has a longer end
NOT_ONE = "not a checkpoint of charrnn, or a damaged one"


def save(path: Path, header: Header, arrays: Mapping[str, Array]) -> None:
    """Write the file under another name, force it to the disk, and put it in the place of the old one.

    ``format`` and the checksums are added to the header. Raises NotFiniteError for a number that is not finite,
    and SaveError; the old file is then as it was.
    """
    import numpy as np

    plain = {name: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in sorted(arrays.items())}
    for name, a in plain.items():
        if not np.isfinite(a).all():
            raise NotFiniteError(
                escape_control(f"{path}: not saved: a number in {name!r} is not finite, as {a.dtype.name}")
            )
    try:
        data = encode(header | {"arrays": {name: _digest(a) for name, a in plain.items()}})
    except ValueError:
        raise NotFiniteError(escape_control(f"{path}: not saved: a number in its header is not finite")) from None
    if not fits(data):  # for reading
        shorter = "its history is too long; --eval-every and --sample-every shorten it"
        raise SaveError(escape_control(f"{path}: could not be saved ({shorter})"))
    with replace_file(path) as f:
        _write(f, plain, data)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` when the context ends without an error.

    It is written beside the old one under a random name, forced to the disk and renamed. A symbolic
    link is followed to its target. After a failure the old file is unchanged. Raises SaveError, also
    if there is a device, a pipe or a folder at ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        if target.exists() and not target.is_file():
            raise SaveError(escape_control(f"{path}: could not be saved (not a regular file)"))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, flags, 0o666), "wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if hasattr(os, "O_DIRECTORY"):  # POSIX: the new name must be forced to the disk too
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except SaveError:
        raise
    except OSError as e:
        raise save_error(path, e) from None


def read_header(path: Path) -> Header:
    """Return the header alone, in its present shape, without a look into the arrays. Raises CheckpointError."""
    with _opened(path) as (z, members):
        return _header(z, members)


def load(path: Path, names: Iterable[str] | None = None) -> tuple[Header, dict[str, Array]]:
    """Return the header, and the arrays named or all of them. Raises CheckpointError."""
    with _opened(path) as (z, members):
        header = _header(z, members)
        arrays = {}
        for name in sorted(ARRAYS[header["kind"]]) if names is None else names:
            if f"{name}.npy" not in members:
                raise Refused(f"holds the best weights alone, and no {name!r}")
            arrays[name] = _array(z, members[f"{name}.npy"])
            if header["arrays"][name] != _digest(arrays[name]):
                raise Refused(f"damaged: {name}.npy does not match its checksum")
        return header, arrays


def _write(f: IO[bytes], arrays: Mapping[str, Array], header: bytes) -> None:
    import numpy as np

    z = zipfile.ZipFile(f, "w")
    try:
        for name, a in arrays.items():
            with z.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, a, version=(1, 0), allow_pickle=False)
        z.writestr(zipfile.ZipInfo(HEADER), header)
        z.close()
    finally:
        z.fp = None  # after a failure: or else it would try again to write its directory when it is collected


def _digest(a: Array) -> str:
    sha256 = hashlib.sha256(f"<{a.dtype.kind}{a.dtype.itemsize} {a.shape}".encode())
    sha256.update(a.reshape(-1).data)
    return sha256.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Yield the zip and its members; whatever goes wrong in the meantime becomes a CheckpointError of one line."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe would wait for its other end
            raise Refused("is a directory" if stat.S_ISDIR(mode) else "not a regular file")
        with path.open("rb") as f:
            _screen(f)
            with zipfile.ZipFile(f) as z:
                yield z, _members(z)
    except Refused as e:
        why = str(e)
    except FileNotFoundError:
        why = "no such file"
    except OSError as e:
        why = os_reason(e)
    except MemoryError:
        why = "larger than the memory that is free"
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OverflowError):
        why = NOT_ONE
    else:
        return
    raise CheckpointError(escape_control(f"{path}: {why}"))


def _screen(f: IO[bytes]) -> None:
    """Refuse a zip whose directory is not where and as small as ours is; zipfile would read any."""
    size = f.seek(0, os.SEEK_END)
    f.seek(max(size - 98, 0))
    tail, end = f.read(), 22
    signature, disk, first, _, entries, length, offset, comment = struct.unpack("<4s4H2LH", tail[-22:])
    if tail[-42:-38] == b"PK\6\7":
        if size <= ZIP64 or tail[-42:-22] != struct.pack("<4sLQL", b"PK\6\7", 0, size - 98, 1):
            raise Refused(NOT_ONE)
        signature64, *_, entries, length, offset = struct.unpack("<4sQ2H2L4Q", tail[-98:-42])
        signature, end = signature if signature64 == b"PK\6\6" else b"", 98
    if (signature, disk, first, comment, offset + length + end) != (b"PK\5\6", 0, 0, 0, size):
        raise Refused(NOT_ONE)
    if entries > len(MEMBERS) or length > DIRECTORY_BYTES:
        raise Refused(NOT_ONE)


def _members(z: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename: info for info in z.infolist()}
    if HEADER not in members:
        raise Refused(f"not a checkpoint of charrnn: it has no {HEADER}")
    if len(members) < len(z.infolist()):
        raise Refused("damaged: it holds a member twice")
    for name, info in members.items():
        if name not in MEMBERS:
            raise Refused(f"damaged: it holds {reprlib.repr(name)}, which is no part of a checkpoint")
        if info.flag_bits & 1:
            raise Refused(f"damaged: {name} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Refused(f"damaged: {name} is compressed; unpacked, and packed with zip -0, it can be read")
        if info.file_size != info.compress_size or info.header_offset + info.file_size > z.start_dir:
            raise Refused(f"damaged: {name} cannot be as large as it says")
    return members


def _header(z: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> Header:
    if members[HEADER].file_size > BYTES:
        raise Refused(f"damaged: its header is larger than {BYTES:,} bytes")
    header = decode(z.read(HEADER))
    held = {name[: -len(".npy")] for name in members if name != HEADER}
    for names in (ARRAYS[header["kind"]], header["arrays"]):
        if held != set(names):
            raise Refused(f"damaged: it lacks or has too much of {', '.join(sorted(held ^ set(names)))}")
    return header


def _array(z: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read an array of floats; of .npy it knows what NumPy writes for these, and nothing is allocated before."""
    import numpy as np

    with z.open(info) as f:
        head = f.read(10)
        head += f.read(int.from_bytes(head[8:], "little"))
        found = re.fullmatch(
            rb"\x93NUMPY\x01\x00..\{'descr': '<(f[248])', 'fortran_order': False, "
            rb"'shape': \(((?:\d{1,18}, ?){0,8}(?:\d{1,18})?)\), \} *\n",
            head,
            re.DOTALL,
        )
        if not found:
            raise Refused(f"damaged: {info.filename} is no array of floats as this program writes them")
        dtype = np.dtype(f"<{found[1].decode()}")
        shape = tuple(int(n) for n in found[2].split(b",") if n.strip())
        if math.prod(shape) * dtype.itemsize != info.file_size - len(head):
            raise Refused(f"damaged: {info.filename} is not as large as it says: {shape} of {dtype}")
        array: Array = np.empty(shape, dtype)
        flat = array.reshape(-1).view(np.uint8)
        for at in range(0, len(flat), 2**20):  # a piece at a time: each is held twice
            flat[at : at + 2**20] = np.frombuffer(f.read(2**20), np.uint8)
    if not np.isfinite(array).all():
        raise Refused(f"damaged: a number in {info.filename} is not finite")
    return array.astype(found[1].decode(), copy=False)
