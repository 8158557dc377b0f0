"""Checkpoints: a zip of NumPy arrays and ``header.json``, without pickles, written atomically.

A checkpoint is untrusted input: every size is checked before anything of that size is read, parsed
or allocated.
"""

# NumPy is imported by the functions that need it: the command line reads a header before it chooses
# the number of BLAS threads, which has to happen before NumPy is first imported.

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import re
import reprlib
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from charrnn.errors import CheckpointError, NotFiniteError, SaveError, os_reason
from charrnn.formatting import escape_control
from charrnn.storage import header as headers
from charrnn.storage.header import UNRELEASED, InvalidCheckpoint, damage_error
from charrnn.storage.output import replace_file
from charrnn.storage.state import ModelState, State, TaskRecord
from charrnn.text.files import CHECKPOINT_KIND, STDIN, Source, is_url, recognize

if TYPE_CHECKING:
    from charrnn.arrays import Array

HEADER = "header.json"
ARRAYS = {
    "run": {"best_weights", "last_weights", "average_weights", "optimizer_state", "hidden_state"},
    "model": {"best_weights"},
}
COUNTS = "counts"  # see ``ngrams``: the array that may be missing, and the one of bytes
FEATURES = "features"  # mean and deviation of the vectors that the network reads, if it does
MEMBERS = {HEADER, *(f"{name}.npy" for name in (*ARRAYS["run"], COUNTS, FEATURES))}
MAX_DIRECTORY_BYTES = 2**12  # of the zip; five members need some 400
ZIP64_BYTES = 2**31 - 1  # a directory beyond this has a longer end
TEXT_BYTES = 256  # at the start of a file: if they are ASCII, it is a text
CHUNK_BYTES = 2**20  # of an array that are read at a time
NOT_A_CHECKPOINT = "not a charrnn checkpoint, or damaged"


def write_checkpoint(path: Path, state: ModelState, arrays: Mapping[str, Array]) -> None:
    """Write a checkpoint in place of an old one, with checksums.

    Raises SaveError, and NotFiniteError for a non-finite number; the old file is unchanged then.
    """
    import numpy as np

    # one layout and byte order, finite numbers only
    plain = {k: np.asarray(a, a.dtype.newbyteorder("<"), order="C") for k, a in arrays.items()}
    for name, a in plain.items():
        if not np.isfinite(a).all():
            problem = f"{name!r} has non-finite values (in {a.dtype.name})"
            raise NotFiniteError(escape_control(f"{path}: not saved: {problem}"))

    # the header, which must be one that can be read again
    checksums = {name: _checksum(plain[name]) for name in sorted(plain)}
    try:
        header = headers.serialize(dataclasses.replace(state, arrays=checksums))
    except ValueError:
        problem = "non-finite value in the header"
        raise NotFiniteError(escape_control(f"{path}: not saved: {problem}")) from None
    if not headers.within_limits(header):
        problem = "the history is too long; use larger --eval-every and --sample-every"
        raise SaveError(escape_control(f"{path}: could not be saved ({problem})"))

    with replace_file(path) as f:
        z = zipfile.ZipFile(f, "w")
        try:
            for name in checksums:
                with z.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, plain[name], (1, 0), allow_pickle=False)
            z.writestr(zipfile.ZipInfo(HEADER), header)
            z.close()
        finally:
            z.fp = None  # after a failure it would write its directory when it is collected


def read_state(path: Path) -> ModelState:
    """Return the state of a run or an exported model, without arrays. Raises CheckpointError."""
    return read_checkpoint(path, names=())[0]


def find_file(path: Path, name: str | None) -> Source | None:
    """Return a file that the checkpoint ``path`` records, relative to the current folder."""
    if name is None or name == STDIN:
        return name
    name = os.fsdecode(name.encode("utf-8", "surrogateescape"))
    file = Path(os.path.normpath(Path(os.path.realpath(path)).parent / name))
    with contextlib.suppress(ValueError, OSError):
        return file.relative_to(Path.cwd())
    return file


def read_checkpoint(
    path: Path, names: Iterable[str] | None = None
) -> tuple[ModelState, dict[str, Array]]:
    """Return the state and the named arrays, or all of them. Raises CheckpointError."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
            is_folder = stat.S_ISDIR(mode)
            kind = "is a folder; name a checkpoint in it" if is_folder else "not a regular file"
            raise InvalidCheckpoint(kind)
        with path.open("rb") as f:
            _check_zip_directory(f)
            with zipfile.ZipFile(f) as z:
                return _read_members(z, names)
    except InvalidCheckpoint as e:
        reason = str(e)
    except FileNotFoundError:
        reason = "a URL: download it first" if is_url(str(path)) else "no such file"
    except OSError as e:
        reason = os_reason(e)
    except MemoryError:
        reason = "not enough free memory to load it"
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError, OverflowError):
        reason = NOT_A_CHECKPOINT
    if reason == NOT_A_CHECKPOINT or HEADER in reason:
        reason = _describe_foreign(path) or reason
    raise CheckpointError(escape_control(f"{path}: {reason}"))


def _describe_foreign(path: Path) -> str:
    """Return what a file is that is no checkpoint; nothing if it may be a damaged one."""
    kind = recognize(path)
    if kind:
        return "" if kind == CHECKPOINT_KIND else f"{kind}, not {CHECKPOINT_KIND}"
    try:
        with path.open("rb") as f:
            head = f.read(TEXT_BYTES)
    except (OSError, ValueError):  # also a name that no file can have
        return ""
    is_text = head != b"" and head.isascii() and b"\0" not in head
    return f"a text file, not {CHECKPOINT_KIND}" if is_text else ""


def _check_zip_directory(f: IO[bytes]) -> None:
    """Raise InvalidCheckpoint unless the zip directory is small and at the end of the file.

    Module zipfile would read any directory, however large.
    """
    size = f.seek(0, os.SEEK_END)
    f.seek(max(size - 98, 0))
    tail, end, valid = f.read(), 22, True
    fields = struct.unpack("<4s4H2LH", tail[-22:])
    signature, disk, first, _, entries, length, offset, comment = fields
    if tail[-42:-38] == b"PK\6\7":
        end, locator = 98, struct.pack("<4sLQL", b"PK\6\7", 0, size - 98, 1)
        signature64, *_, entries, length, offset = struct.unpack("<4sQ2H2L4Q", tail[-98:-42])
        valid = size > ZIP64_BYTES and tail[-42:-22] == locator and signature64 == b"PK\6\6"
    valid &= (signature, disk, first, comment) == (b"PK\5\6", 0, 0, 0)
    valid &= entries <= len(MEMBERS) and length <= MAX_DIRECTORY_BYTES
    if not valid or offset + length + end != size:
        raise InvalidCheckpoint(NOT_A_CHECKPOINT)


def _read_members(
    z: zipfile.ZipFile, names: Iterable[str] | None
) -> tuple[ModelState, dict[str, Array]]:
    """Check the members of a zip, and return the state and the named arrays."""
    # the members
    members = {info.filename: info for info in z.infolist()}
    if HEADER not in members:
        raise InvalidCheckpoint(f"not a charrnn checkpoint: it has no {HEADER}")
    if len(members) < len(z.infolist()):
        raise damage_error("duplicate member")
    for name, info in members.items():
        _check_member(name, info, z.start_dir)

    # the header, which names the arrays
    if members[HEADER].file_size > headers.MAX_HEADER_BYTES:
        raise damage_error(f"the header is larger than {headers.MAX_HEADER_BYTES:,} bytes")
    state = headers.parse(z.read(HEADER))
    stored = {name.removesuffix(".npy") for name in members if name != HEADER}
    others = {COUNTS} if count_bytes(state) else set()
    others |= {FEATURES} if state.features else set()
    for expected in (ARRAYS[state.kind] | others, state.arrays.keys()):
        if wrong := sorted(stored ^ expected):
            raise damage_error(f"missing or unexpected arrays: {', '.join(wrong)}")

    # the arrays, of the shapes that the header implies
    arrays = {}
    names = sorted(stored) if names is None else list(names)
    shapes = array_shapes(state) if names else {}
    for name in names:
        if name not in stored:
            raise InvalidCheckpoint(f"is an exported model and has no {name!r}")
        arrays[name] = _read_array(z, members[f"{name}.npy"], shapes[name])
        if state.arrays[name] != _checksum(arrays[name]):
            raise damage_error(f"{name}.npy does not match its checksum")
    return state, arrays


def array_shapes(state: ModelState) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a checkpoint, as its header implies it."""
    from charrnn.bidirectional import count_parameters
    from charrnn.cells import load_cell
    from charrnn.optim import OPTIMIZERS

    config = state.config
    cell, H, L = config.cell, config.hidden_size, config.num_layers
    features = state.features["shape"] if state.features else []
    n = count_parameters(config, *network_sizes(state.vocabulary["size"], state.task), features)
    L *= 2 if config.bidirectional else 1
    shapes: dict[str, tuple[int, ...]] = {"best_weights": (n,)}
    if counted := count_bytes(state):
        shapes["counts"] = (counted,)
    if features:
        shapes[FEATURES] = (2, features[-1])
    if not isinstance(state, State):
        return shapes
    return {
        **shapes,
        "last_weights": (n,),
        "average_weights": (n,),
        "optimizer_state": (OPTIMIZERS[config.optimizer].num_moments, n),
        "hidden_state": (L, len(load_cell(cell).STATE_NAMES), H, state.batches["batch_size"]),
    }


def count_bytes(state: ModelState) -> int:
    """Return the size of the counts that a checkpoint has, or 0."""
    if state.task:
        return state.task["counts_bytes"]
    return state.counts["bytes"] if state.counts else 0


def network_sizes(V: int, task: TaskRecord | None) -> tuple[int, int]:
    """Return the number of inputs and of outputs of the network, for V symbols.

    With --generative the labels are inputs too, after the symbols.
    """
    labels = len(task["outputs"]) if task and "shares" in task else 0
    return V + labels, len(output_names(task)) or V


def output_names(task: TaskRecord | None) -> list[str]:
    """Return the names of the outputs of the network; none if they are symbols."""
    return [] if task is None or "shares" in task else task["outputs"]


def _check_member(name: str, info: zipfile.ZipInfo, max_end: int) -> None:
    if name == "best.npy":  # of formats 1 and 2
        raise InvalidCheckpoint(f"its format {UNRELEASED}")
    if name not in MEMBERS:
        raise damage_error(f"unexpected member {reprlib.repr(name)}")
    if info.flag_bits & 1:
        raise damage_error(f"{name} is encrypted")
    if info.compress_type != zipfile.ZIP_STORED:
        hint = "repack the file with zip -0 (this is not damage)"
        raise InvalidCheckpoint(f"{name} is compressed; {hint}")
    end = info.header_offset + info.file_size
    if info.file_size != info.compress_size or end > max_end:
        raise damage_error(f"wrong size of {name}")


def _checksum(a: Array) -> str:
    sha256 = hashlib.sha256(f"<{a.dtype.kind}{a.dtype.itemsize} {a.shape}".encode())
    sha256.update(a.reshape(-1).data)
    return sha256.hexdigest()


def _read_array(z: zipfile.ZipFile, info: zipfile.ZipInfo, expected: tuple[int, ...]) -> Array:
    """Read an array of floats, or of bytes, in the form of .npy that NumPy writes for these."""
    import numpy as np

    with z.open(info) as f:
        # dtype and shape
        head = f.read(10)
        head += f.read(int.from_bytes(head[8:], "little"))
        kind = rb"\|u1" if info.filename == f"{COUNTS}.npy" else rb"<f[248]"
        match = re.fullmatch(
            rb"\x93NUMPY\x01\x00..\{'descr': '(%b)', 'fortran_order': False, "
            rb"'shape': \(((?:\d{1,18}, ?){0,8}(?:\d{1,18})?)\), \} *\n" % kind,
            head,
            re.DOTALL,
        )
        if not match:
            raise damage_error(f"{info.filename} is not a float array in the expected format")
        dtype = np.dtype(match[1].decode())
        shape = tuple(int(n) for n in match[2].split(b",") if n.strip())
        if math.prod(shape) * dtype.itemsize != info.file_size - len(head):
            layout = f"{shape}, {dtype}"
            raise damage_error(f"the size of {info.filename} does not match its shape {layout}")
        if shape != expected:
            raise damage_error(f"{info.filename} has shape {shape}, expected {expected}")

        # the elements, in chunks, of which there are two copies
        array: Array = np.empty(shape, dtype)
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), CHUNK_BYTES):
            flat[start : start + CHUNK_BYTES] = np.frombuffer(f.read(CHUNK_BYTES), np.uint8)
    if not np.isfinite(array).all():
        raise damage_error(f"{info.filename} has non-finite values")
    return array.astype(dtype.newbyteorder("="), copy=False)
