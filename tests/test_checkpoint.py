"""Checkpoints: saving and loading; damaged and malicious files are refused in one line."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.arrays import Array
from charrnn.errors import CheckpointError, NotFiniteError, SaveError
from charrnn.storage import checkpoint, output
from charrnn.storage.checkpoint import read_checkpoint, read_state, write_checkpoint
from tests import forge
from tests.conftest import ENV
from tests.forge import ARRAYS, header_of, members, npy, npy_head, pack, put, sealed, sealed_array

BEST = ARRAYS["best_weights"]
NOT_A_CHECKPOINT = "not a charrnn checkpoint, or damaged"
WRONG_SIZE = "damaged: wrong size of best_weights.npy"
NOT_ARRAY = "damaged: best_weights.npy is not a float array in the expected format"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "run.npz"
    write_checkpoint(path, forge.run_state(), ARRAYS)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "run.npz"
    write_checkpoint(path, forge.run_state(), ARRAYS)
    return path.read_bytes()


def assert_refused(
    path: Path, message: str, read: Callable[[Path], object] = read_checkpoint
) -> None:
    started = time.process_time()
    with pytest.raises(CheckpointError, match=message) as e:
        read(path)
    assert time.process_time() - started < 2
    assert str(e.value).isprintable()
    assert str(e.value).startswith(f"{path}: ")


# --- saving and loading ---


@pytest.mark.parametrize("kind", ["run", "model"])
def test_loaded_checkpoint_equals_saved_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "new folder" / "x.npz"
    names = checkpoint.ARRAYS[kind] | ({"counts"} if kind == "run" else set())
    state = forge.run_state() if kind == "run" else forge.model_state()
    write_checkpoint(path, state, {name: ARRAYS[name] for name in names})
    loaded, arrays = read_checkpoint(path)
    assert loaded == read_state(path)
    saved_as = {"sha256": loaded.sha256, "arrays": loaded.arrays}
    assert vars(loaded) == {**vars(state), **saved_as, "kind": kind, "format": 5}
    assert arrays.keys() == loaded.arrays.keys() == names
    for name, a in arrays.items():
        assert (a.dtype, a.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        assert (a == ARRAYS[name]).all()
        assert a.flags.writeable
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]

    # again, byte for byte
    before = path.read_bytes()
    write_checkpoint(path, loaded, arrays)
    assert path.read_bytes() == before


def test_checksums_are_as_documented(whole: bytes) -> None:
    header = header_of(whole)
    assert header_of(sealed(whole, header))["sha256"] == header["sha256"]
    sha256 = hashlib.sha256(f"<f4 {BEST.shape}".encode() + BEST.tobytes()).hexdigest()
    assert header["arrays"]["best_weights"] == sha256


def test_only_named_arrays_are_read(path: Path, whole: bytes) -> None:
    path.write_bytes(put(whole, "last_weights.npy", b"x"))
    assert read_checkpoint(path, ["best_weights"])[1].keys() == {"best_weights"}
    assert read_checkpoint(path, [])[1] == {}
    assert_refused(path, r"damaged: last_weights\.npy")
    write_checkpoint(path, forge.model_state(), {"best_weights": BEST})
    message = "is an exported model and has no 'last_weights'"
    assert_refused(path, message, lambda path: read_checkpoint(path, ["last_weights"]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_every_type_are_loaded(path: Path, whole: bytes, dtype: type) -> None:
    a: Array = np.arange(6).reshape(ARRAYS["hidden_state"].shape).astype(dtype)
    write_checkpoint(path, forge.run_state(), ARRAYS | {"hidden_state": a})
    for data in (path.read_bytes(), sealed_array(whole, "hidden_state", a)):  # as NumPy writes it
        path.write_bytes(data)
        loaded = read_checkpoint(path, ["hidden_state"])[1]["hidden_state"]
        assert (loaded.dtype, loaded.shape) == (a.dtype, a.shape)
        assert (loaded == a).all()


def test_arrays_of_any_layout_and_byte_order_are_saved(path: Path) -> None:
    a = np.arange(6.0).reshape(ARRAYS["hidden_state"].shape[::-1]).T
    for other in (np.asfortranarray(a), a.astype(">f8"), np.stack([a, a], -1)[..., 0]):
        write_checkpoint(path, forge.run_state(), ARRAYS | {"hidden_state": other})
        loaded = read_checkpoint(path)[1]["hidden_state"]
        assert loaded.dtype == np.float64
        assert (loaded == a).all()


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(numbers=st.lists(floats, min_size=1))
def test_any_numbers_are_loaded(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float]
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.npz"
    saved = {name: np.resize(np.array(numbers, np.float32), a.shape) for name, a in ARRAYS.items()}
    saved["counts"] = ARRAYS["counts"]
    write_checkpoint(path, forge.run_state(), saved)
    loaded = read_checkpoint(path)[1]
    assert all(loaded[name].tobytes() == a.tobytes() for name, a in saved.items())


def test_state_is_read_without_numpy(path: Path) -> None:
    code = (
        "import sys, pathlib; from charrnn.storage.checkpoint import read_state; "
        "read_state(pathlib.Path(sys.argv[1])); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], env=ENV, check=False).returncode == 0


def test_file_of_more_than_2_gb_has_a_longer_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = path.stat().st_size
    with monkeypatch.context() as m:
        m.setattr(zipfile, "ZIP64_LIMIT", 500)
        write_checkpoint(path, forge.run_state(), ARRAYS)
    data = path.read_bytes()
    assert len(data) > size + 56
    assert_refused(path, NOT_A_CHECKPOINT)  # a small file does not need it
    monkeypatch.setattr(checkpoint, "ZIP64_BYTES", 500)
    assert read_checkpoint(path)[0].step == 7
    for at in (-98, -66, -58, -50, -42, -34):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[len(data) + at + 1 :])
        assert_refused(path, NOT_A_CHECKPOINT)


# --- failed saves ---


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(28, "No space left on device"), SaveError, r"saved \(no space left on device\)"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, "Ctrl-C"),
    ],
    ids=["full", "interrupted"],
)
def test_failed_save_leaves_the_old_file_and_nothing_else(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    step: str,
    error: BaseException,
    expected: type[BaseException],
    message: str,
) -> None:
    before = path.read_bytes()

    def fail(*_: object) -> None:
        assert path.read_bytes() == before  # until the very end
        raise error

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(expected, match=message):
        write_checkpoint(path, forge.run_state(), ARRAYS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


FULL_DISK = """
import gc, resource, sys
from pathlib import Path
import numpy as np
from charrnn.storage.checkpoint import write_checkpoint
from charrnn.errors import SaveError
from tests.forge import model_state
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
arrays = {"best_weights": np.ones(100_000, np.float32)}
try:
    write_checkpoint(Path(sys.argv[1]), model_state(), arrays)
except SaveError as e:
    print(e)
gc.collect()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("limit", [0, 50, 100_000, 400_100, 400_300, 401_200, 402_500])
def test_full_disk_gives_one_line_and_no_file(tmp_path: Path, limit: int) -> None:
    """The system refuses bytes beyond the limit; nothing else is raised, and nothing later."""
    path = tmp_path / "x.npz"
    command = [sys.executable, "-X", "dev", "-c", FULL_DISK, str(path), str(limit)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    message = f"{path}: could not be saved (file too large)\n"
    assert done.stdout == ("" if limit == 402_500 else message)
    assert list(tmp_path.iterdir()) == [path] * (limit == 402_500)


def test_save_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"run\.npz: could not be saved \("):
        write_checkpoint(tmp_path / "file" / "run.npz", forge.run_state(), ARRAYS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*ARRAYS, "header"])
def test_nonfinite_numbers_are_not_saved(path: Path, name: str, value: float) -> None:
    before, state, arrays = path.read_bytes(), forge.run_state(), {**ARRAYS}
    if name == "header":
        state.train_seconds = value
        message = "non-finite value in the header"
    else:
        arrays[name] = np.array([[0, value]], np.float32)
        message = rf"'{name}' has non-finite values \(in float32\)"
    with pytest.raises(NotFiniteError, match=rf"run\.npz: not saved: {message}"):
        write_checkpoint(path, state, arrays)
    assert path.read_bytes() == before


@pytest.mark.parametrize("notes", [["x" * 9_000_000], [""] * 500_001])
def test_header_beyond_the_limits_is_not_saved(path: Path, notes: list[str]) -> None:
    before = path.read_bytes()
    with pytest.raises(
        SaveError, match=r"could not be saved \(the history is too long; use larger"
    ):
        write_checkpoint(path, forge.run_state(notes=notes), ARRAYS)
    assert path.read_bytes() == before
    write_checkpoint(path, forge.run_state(notes=[n[:8_000_000] for n in notes[:400_000]]), ARRAYS)
    assert read_state(path)


# --- files that are not checkpoints ---


def test_unreleased_formats_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.npz", "w") as z:
        z.writestr("best.npy", b"")
        z.writestr("header.json", b"{}")
    with pytest.raises(CheckpointError, match="its format was never released"):
        checkpoint.read_state(tmp_path / "old.npz")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    files = {tmp_path / "no.npz": "no such file", tmp_path: "is a folder"}
    if hasattr(os, "mkfifo"):  # opening a pipe would wait
        os.mkfifo(tmp_path / "pipe.npz")
        files |= dict.fromkeys([tmp_path / "pipe.npz", Path("/dev/zero")], "not a regular file")
    for path, message in files.items():
        assert_refused(path, message)
        assert_refused(path, message, read_state)
    with pytest.raises(CheckpointError, match=NOT_A_CHECKPOINT):
        read_checkpoint(Path("a\0b"))
    with pytest.raises(CheckpointError, match=r"^a\\nb\\x1b: no such file$"):
        read_checkpoint(Path("a\nb\x1b"))


def with_comment(data: bytes) -> bytes:
    return data[:-2] + b"\5\0hello"


def with_long_directory(data: bytes) -> bytes:
    """Give a member of the zip's directory a comment of 8 KB."""
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    name_length = int.from_bytes(data[at + 28 : at + 30], "little")
    entry = (
        data[at : at + 32] + (8192).to_bytes(2, "little") + data[at + 34 : at + 46 + name_length]
    )
    directory = entry + bytes(8192) + data[at + 46 + name_length : end]
    length = len(directory).to_bytes(4, "little")
    return data[:at] + directory + data[end : end + 12] + length + data[end + 16 :]


def overwrite_entry(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Write bytes into the entry of best_weights.npy in the zip's directory."""

    def forged(data: bytes) -> bytes:
        start = at + data.rindex(b"PK\1\2", 0, data.rindex(b"best_weights.npy"))
        return data[:start] + value + data[start + len(value) :]

    return forged


def renamed(name: str) -> Callable[[bytes], bytes]:
    return lambda data: pack(
        [(name if old == "hidden_state.npy" else old, content) for old, content in members(data)]
    )


def without(*names: str) -> Callable[[bytes], bytes]:
    return lambda data: pack([m for m in members(data) if m[0] not in names])


def doubled(name: str) -> Callable[[bytes], bytes]:
    kept = ("header.json", "best_weights.npy")
    return lambda data: pack(
        [m for m in members(data) if m[0] in kept] + [m for m in members(data) if m[0] == name]
    )


def missing_checksum(data: bytes) -> bytes:
    header = header_of(data)
    del header["arrays"]["optimizer_state"]
    return sealed(data, header)


def another_kind(data: bytes) -> bytes:
    keys = vars(forge.model_state()).keys()
    header = {key: value for key, value in header_of(data).items() if key in keys}
    return sealed(data, {**header, "kind": "model"})


def foreign_zip(_: bytes) -> bytes:
    return pack([("weights.npy", npy(np.ones(3)))])


Forgery = Callable[[bytes], bytes]
UNEXPECTED = "damaged: unexpected member '"
ARRAYS_OF_A_RUN = "average_weights, hidden_state, last_weights, optimizer_state"
COMPRESSED = r"\w+\.\w+ is compressed; repack the file with zip -0 \(this is not damage\)"

DAMAGED_ZIPS: dict[str, tuple[Forgery, str]] = {
    "empty": (lambda _: b"", NOT_A_CHECKPOINT),
    "text": (lambda _: b"hello", "a text file, not a charrnn checkpoint"),
    "pickle": (lambda _: b"\x80\x04N.", NOT_A_CHECKPOINT),
    "start of a zip": (lambda _: b"PK\x03\x04", "a zip archive or .*, not a charrnn checkpoint"),
    "empty zip": (lambda _: b"PK\5\6" + bytes(18), "not a charrnn checkpoint"),
    "zeros": (lambda _: bytes(10**6), NOT_A_CHECKPOINT),
    "truncated": (lambda data: data[: len(data) // 2], NOT_A_CHECKPOINT),
    "one byte short": (lambda data: data[:-1], NOT_A_CHECKPOINT),
    "bytes before": (lambda data: b"before" + data, NOT_A_CHECKPOINT),
    "bytes after": (lambda data: data + b"after", NOT_A_CHECKPOINT),
    "comment": (with_comment, NOT_A_CHECKPOINT),
    "long directory": (with_long_directory, NOT_A_CHECKPOINT),
    "many members": (lambda data: pack([*members(data), ("x", b""), ("y", b"")]), NOT_A_CHECKPOINT),
    "no header": (foreign_zip, "a NumPy archive, not a charrnn checkpoint"),
    "name above": (renamed("../best_weights.npy"), UNEXPECTED),
    "absolute name": (renamed("/best_weights.npy"), UNEXPECTED),
    "name in capitals": (renamed("Best_weights.npy"), UNEXPECTED),
    "name of two lines": (renamed("x\nx.npy"), UNEXPECTED),
    "long name": (renamed("é" * 400), UNEXPECTED),
    "header twice": (doubled("header.json"), "damaged: duplicate member"),
    "array twice": (doubled("best_weights.npy"), "damaged: duplicate member"),
    "deflated": (lambda data: pack(members(data), zipfile.ZIP_DEFLATED), COMPRESSED),
    "bzip2": (lambda data: pack(members(data), zipfile.ZIP_BZIP2), COMPRESSED),
    "lzma": (lambda data: pack(members(data), zipfile.ZIP_LZMA), COMPRESSED),
    "encrypted": (overwrite_entry(8, b"\1\0"), "damaged: best_weights.npy is encrypted"),
    "unknown method": (overwrite_entry(10, b"\x63\0"), "best_weights.npy is compressed"),
    "smaller member": (overwrite_entry(20, b"\0\0\1\0"), WRONG_SIZE),
    "larger member": (overwrite_entry(24, b"\0\0\1\0"), WRONG_SIZE),
    "member of 1 GB": (overwrite_entry(20, b"\0\0\0\x40\0\0\0\x40"), WRONG_SIZE),
    "offset of 2 GB": (overwrite_entry(42, b"\xff\xff\xff\x7f"), WRONG_SIZE),
    "missing weights": (without("best_weights.npy"), "unexpected arrays: best_weights"),
    "missing state": (without("hidden_state.npy"), "unexpected arrays: hidden_state"),
    "only weights": (
        without(*(f"{name}.npy" for name in list(ARRAYS)[1:])),
        ARRAYS_OF_A_RUN.replace(", ", ", counts, ", 1),
    ),
    "another kind": (another_kind, f"missing or unexpected arrays: {ARRAYS_OF_A_RUN}"),
    "missing checksum": (missing_checksum, "unexpected arrays: optimizer_state"),
}


@pytest.mark.parametrize("damage", DAMAGED_ZIPS)
def test_damaged_zip_is_refused(tmp_path: Path, whole: bytes, damage: str) -> None:
    forged, message = DAMAGED_ZIPS[damage]
    path = tmp_path / "x.npz"
    path.write_bytes(forged(whole))
    assert_refused(path, message)
    assert_refused(path, message, read_state)


# --- arrays ---


def array(a: Any) -> Callable[[bytes], bytes]:
    return lambda data: sealed_array(data, "best_weights", a)


def member(content: bytes) -> Callable[[bytes], bytes]:
    return lambda data: put(data, "best_weights.npy", content)


def head(
    shape: str, rest: bytes = b"", *, order: str = "False", version: bytes = b"\1\0"
) -> Forgery:
    text = f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': ({shape}), }}\n"
    return member(npy_head(text, version) + rest)


def flipped_bit(data: bytes) -> bytes:
    at = data.index(BEST.tobytes()) + 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def damaged_arrays() -> Iterator[tuple[str, Forgery, str]]:
    checksum = "damaged: best_weights.npy does not match its checksum"
    yield "flipped bit", flipped_bit, NOT_A_CHECKPOINT  # the zip has a checksum too
    yield "another array", member(npy(ARRAYS["last_weights"])), checksum
    yield "another shape", member(npy(BEST[:, None])), r"has shape \(88, 1\), expected \(88,\)"
    for at, entry in (8, b"\x20\0"), (16, bytes(4)), (20, bytes(8)), (42, b"\1\0\0\0"):
        yield f"entry at {at}", overwrite_entry(at, entry), "damaged"
    for dtype in (np.float16, np.float32, np.float64):
        for value in (math.nan, math.inf, -math.inf):
            name = f"{value} in {np.dtype(dtype)}"
            yield (
                name,
                array(np.append(BEST[1:], value).astype(dtype)),
                "best_weights.npy has non-finite values",
            )
    a: Any
    for a in (
        np.arange(3),
        np.array([True]),
        np.array([1j]),
        np.array(["x"]),
        np.array([1.0], ">f4"),
        np.array([(1.0,)], [("x", "<f4")]),
        np.array([None]),
        np.array([1.0], np.longdouble),
        np.asfortranarray(np.ones((2, 3))),
    ):
        yield f"array of {a.dtype}, {a.ndim}-d", array(a), NOT_ARRAY
    for shape in ("1000000000000,", "99999999999999999, 99999999999999999"):
        message = "damaged: the size of best_weights.npy does not match its shape"
        yield f"shape {shape}", head(shape), message
        yield f"shape {shape} and some bytes", head(shape, bytes(12)), message
    for shape in (
        "9" * 18 + ", " * 8,
        "1" * 5000 + ",",
        "-1,",
        "True,",
        "1e3,",
        "3 4,",
        "'3',",
        "3, ,",
    ):
        yield f"shape {shape[:20]}", head(shape, bytes(12)), NOT_ARRAY
    yield "many dimensions", head("1, " * 40, bytes(4)), NOT_ARRAY
    yield "Fortran order", head("3,", bytes(12), order="True"), NOT_ARRAY
    yield "version 2", head("3,", bytes(12), version=b"\2\0"), NOT_ARRAY
    for content in (b"", b"\x93NUMPY", b"\x93NUMPY\1\0\xff\xff", npy_head("(" * 9000)):
        yield f"head {content[:10]!r}", member(content), NOT_ARRAY
    yield "code", member(npy_head("__import__('os').abort()")), NOT_ARRAY


DAMAGED_ARRAYS = {name: (forged, message) for name, forged, message in damaged_arrays()}


@pytest.mark.parametrize("damage", DAMAGED_ARRAYS)
def test_damaged_array_is_refused(tmp_path: Path, whole: bytes, damage: str) -> None:
    forged, message = DAMAGED_ARRAYS[damage]
    path = tmp_path / "x.npz"
    path.write_bytes(forged(whole))
    assert_refused(path, message)


def test_pickle_is_never_opened(tmp_path: Path, whole: bytes) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    path = tmp_path / "x.npz"
    path.write_bytes(put(whole, "best_weights.npy", npy(np.array([Bomb()], dtype=object))))
    assert_refused(path, NOT_ARRAY)
    assert not (tmp_path / "exploded").exists()


# --- bombs ---

MEASURE = """
import resource, sys, time
from pathlib import Path
from charrnn.storage import checkpoint
from charrnn.errors import CheckpointError
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint.read_checkpoint(Path(sys.argv[1]))
for file in sys.argv[2:]:
    before, started = peak(), time.process_time()
    try:
        checkpoint.read_checkpoint(Path(file))
    except CheckpointError as e:
        grown = (peak() - before) * (1 if sys.platform == "darwin" else 1024)
        print(e, file=sys.stderr)
        if grown > 200_000_000 or time.process_time() - started > 2:
            sys.exit(f"{file}: {grown} bytes, {time.process_time() - started} s")
    else:
        sys.exit(f"{file} was read")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts memory otherwise")
def test_bombs_need_little_memory_and_time(path: Path, tmp_path: Path, whole: bytes) -> None:
    """A separate process opens them, and asks the system for its peak memory."""

    def bomb(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
        return pack(
            [(other, content if other == name else d) for other, d in members(whole)], method
        )

    huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    text = {**header_of(whole), "notes": ["\\" * 8_300_000]}
    keys = b"{" + b",".join(b'"%d":0' % i for i in range(240_000)) + b"}"
    bombs = {
        "shape": bomb("best_weights.npy", npy_head(huge) + bytes(100)),
        "depth": bomb("header.json", b"[" * 499_000),
        "empty": bomb("header.json", b"[" + b"{}," * 249_000 + b"{}]"),
        "nested": bomb("header.json", b"[" + b'{"a":{}},' * 120_000 + b"{}]"),
        "keys": bomb("header.json", keys),
        "text": sealed(whole, text),
        "notes": sealed(whole, {**header_of(whole), "notes": [1, *[""] * 240_000]}),
        "weights": bomb("best_weights.npy", bytes(400_000_000), zipfile.ZIP_DEFLATED),
        "many": pack([(str(i), b"") for i in range(60_000)]),
    }
    files = [tmp_path / f"{name}.npz" for name in bombs]
    for file, data in zip(files, bombs.values(), strict=True):
        file.write_bytes(data)
    with (tmp_path / "sparse.npz").open("wb") as f:
        f.truncate(10**12)
    paths = map(str, [path, *files, tmp_path / "sparse.npz"])
    command = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (0, len(bombs) + 1), done.stderr


# --- replace_file ---


def test_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"old", b"new"):
        with output.replace_file(path) as f:
            f.write(content)
            assert not path.exists() or path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError), output.replace_file(path) as f:
        f.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_link_is_followed_to_its_target(tmp_path: Path, exists: bool) -> None:
    target, link = tmp_path / "elsewhere" / "run.npz", tmp_path / "run.npz"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_checkpoint(link, forge.run_state(), ARRAYS)
    assert link.is_symlink()
    assert read_checkpoint(target)[1].keys() == ARRAYS.keys()


def test_temporary_file_name_cannot_be_guessed_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda n: "ab" * n)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / f".run.npz.{'ab' * 8}.tmp").symlink_to(victim)
    with pytest.raises(SaveError, match="file exists"):
        write_checkpoint(tmp_path / "run.npz", forge.run_state(), ARRAYS)
    assert victim.read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SaveError, match="not a regular file"):
        write_checkpoint(pipe, forge.run_state(), ARRAYS)
    assert pipe.is_fifo()
