from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import checkpoint
from charrnn.arrays import Array
from charrnn.config import Config
from charrnn.errors import CheckpointError, NotFiniteError, SaveError
from charrnn.stack import Stack
from tests.conftest import ENV

STACK = Stack("gru", 4, 3, 1, np.float32, np.random.default_rng(0))
ARRAYS: dict[str, Array] = {
    "best_weights": STACK.p.vector,
    "last_weights": STACK.p.vector + 1,
    "optimizer_state": np.zeros((0, len(STACK.p.vector)), np.float32),
    "hidden_state": STACK.zero_state(2),
}
MODEL: dict[str, Any] = {
    "kind": "model",
    "versions": {"charrnn": "0.2.0", "numpy": "2.0", "python": "3.13"},
    "config": dataclasses.asdict(Config(hidden_size=3, seed=2**64 - 1)),
    "vocabulary": {"size": 4, "symbols": "\n한😀", "special": [0x110000 + 5], "start_symbol": 10},
    "parameters": len(STACK.p.vector),
    "step": 7,
    "epoch": 0.5,
    "best": {"step": 7, "val_loss": 1.25},
    "test_loss": None,
}
RUN: dict[str, Any] = MODEL | {
    "kind": "run",
    "command": "charrnn train x.txt",
    "threads": 1,
    "corpus": {
        "name": "x",
        "files": [["x.txt", 5, 0], ["y.txt", None, None]],
        "bytes": 9,
        "characters": 9,
        "symbols": 8,
        "sha256": "ab",
        "val_files": ["v.txt"],
        "val_sha256": "cd",
        "split_characters": {"train": 7, "val": 1, "test": 0},
    },
    "batches": {"batch_size": 2, "seq_length": 3, "steps_per_epoch": 1},
    "plans": [{"from_step": 0, "steps": 9, "eval_every": 1, "sample_every": 0}],
    "finished": False,
    "data_position": [3, 1],
    "train_seconds": 0.5,
    "initial_loss": 2,
    "running_loss": {"sum": 1.5, "steps": 1},
    "symbols_seen": 42,
    "baselines": {"val": {"1-gram": 2.5}, "test": {"1-gram": 2.25}},
    "notes": ["a\u2028note\n"],
    "history": [
        {
            "step": 7,
            "epoch": 0.5,
            "train_loss": 1.5,
            "val_loss": 1.25,
            "grad_norm": None,
            "learning_rate": 1e-07,
            "characters_seen": 42,
            "seconds": 0.5,
        }
    ],
    "samples": [{"step": 1, "text": "한\n\\{[,"}],
    "nonfinite_events": [{"step": 3, "reason": "spike", "restored": True}],
    "nonfinite_streak": 0,
    "init_from": {"file": "z.npz", "sha256": None, "matched": 1, "added": 0, "unused": 2},
}
Members = list[tuple[str, bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "run.npz"
    checkpoint.save(path, RUN, ARRAYS)
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as z:
        return [(info.filename, z.read(info)) for info in z.infolist()]


def pack(path: Path, members: Members, **options: Any) -> None:
    with zipfile.ZipFile(path, "w", **options) as z:
        for name, data in members:
            z.writestr(name, data)


def replaced(path: Path, name: str, data: bytes) -> None:
    pack(path, [(other, data if other == name else old) for other, old in members(path)])


def sealed(header: dict[str, Any]) -> bytes:
    """A header with the checksum that fits it, computed as the README says and not by the code under test."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({**rest, "sha256": sha256}).encode()


def header_of(path: Path) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(dict(members(path))["header.json"])
    return header


def npy(a: Any) -> bytes:
    f = io.BytesIO()
    np.save(f, a)
    return f.getvalue()


def put(path: Path, name: str, data: bytes) -> None:
    """Replace an array and put its right checksum into the header: only what it holds can tell."""
    header = header_of(path)
    a = np.load(io.BytesIO(data), allow_pickle=True)
    header["arrays"][name] = hashlib.sha256(f"{a.dtype.str} {a.shape}".encode() + a.tobytes()).hexdigest()
    replaced(path, "header.json", sealed(header))
    replaced(path, f"{name}.npy", data)


def refused(path: Path, message: str, read: Callable[[Path], object] = checkpoint.load) -> None:
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match=message) as e:
        read(path)
    assert time.perf_counter() - began < 2
    assert str(e.value).isprintable()
    assert str(e.value).startswith(f"{path}: ")


def refused_by_both(path: Path, message: str) -> None:
    refused(path, message)
    refused(path, message, checkpoint.read_header)


# --- what is written comes back ---


@pytest.mark.parametrize(("header", "names"), [(RUN, list(ARRAYS)), (MODEL, ["best_weights"])])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, header: dict[str, Any], names: list[str]) -> None:
    path = tmp_path / "new folder" / "run.npz"
    checkpoint.save(path, header, {name: ARRAYS[name] for name in names})
    got, arrays = checkpoint.load(path)
    assert got == checkpoint.read_header(path)
    assert {key: got[key] for key in got if key not in ("format", "sha256", "arrays")} == header
    assert got["format"] == 3
    assert arrays.keys() == got["arrays"].keys() == set(names)
    for name, a in arrays.items():
        assert a.dtype == ARRAYS[name].dtype
        assert a.shape == ARRAYS[name].shape
        assert (a == ARRAYS[name]).all()
        assert a.flags.writeable
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_the_checksums_are_those_that_the_format_says(path: Path) -> None:
    header = header_of(path)
    assert json.loads(sealed(header))["sha256"] == header["sha256"]
    best = ARRAYS["best_weights"]
    assert header["arrays"]["best_weights"] == hashlib.sha256(f"<f4 {best.shape}".encode() + best.tobytes()).hexdigest()


def test_only_the_arrays_named_are_read(path: Path) -> None:
    replaced(path, "last_weights.npy", b"x")
    assert checkpoint.load(path, ["best_weights"])[1].keys() == {"best_weights"}
    assert checkpoint.load(path, [])[1] == {}
    refused(path, "damaged: last_weights.npy")
    checkpoint.save(path, MODEL, {"best_weights": ARRAYS["best_weights"]})
    refused(
        path,
        "holds the best weights alone, and no 'last_weights'",
        lambda path: checkpoint.load(path, ["last_weights"]),
    )


def test_any_layout_and_byte_order_is_written_as_one(path: Path) -> None:
    state = np.arange(12.0).reshape(3, 2, 2, 1).T
    for other in (np.asfortranarray(state), state.astype(">f8"), np.stack([state, state], -1)[..., 0]):
        checkpoint.save(path, RUN, ARRAYS | {"hidden_state": other})
        got = checkpoint.load(path)[1]["hidden_state"]
        assert got.dtype == np.float64
        assert (got == state).all()


texts = st.text(st.characters())
floats = st.floats(allow_nan=False, allow_infinity=False)


@given(
    notes=st.lists(texts, max_size=3),
    ladder=st.dictionaries(texts, floats, max_size=3),
    step=st.integers(0, 2**63 - 1),
    loss=st.none() | floats,
    arrays=st.tuples(*[st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5)] * 4),
)
def test_any_text_number_and_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    notes: list[str],
    ladder: dict[str, float],
    step: int,
    loss: float | None,
    arrays: tuple[list[float], ...],
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.npz"
    given = {name: np.array(x, np.float32) for name, x in zip(ARRAYS, arrays, strict=True)}
    checkpoint.save(
        path,
        {**RUN, "notes": notes, "baselines": {"val": ladder, "test": {}}, "step": step, "initial_loss": loss},
        given,
    )
    got, back = checkpoint.load(path)
    assert (got["step"], got["initial_loss"]) == (step, loss)
    assert got["notes"] == [note.encode("utf-8", "backslashreplace").decode() for note in notes]
    assert list(got["baselines"]["val"].values()) == list(ladder.values())
    assert all(back[name].tobytes() == a.tobytes() for name, a in given.items())


def test_lone_surrogates_become_their_escapes(path: Path) -> None:
    """A file's name need not be text, and must not keep a run from being saved."""
    checkpoint.save(
        path,
        {**RUN, "command": "train \udcff\\", "baselines": {"val": {}, "test": {"\ud800": 1.0}}, "notes": ["😀"]},
        ARRAYS,
    )
    header = checkpoint.read_header(path)
    assert header["command"] == "train \\xff\\"
    assert header["baselines"]["test"] == {"\\ud800": 1.0}
    assert "😀".encode() in path.read_bytes()


def test_the_same_content_gives_the_same_bytes(path: Path) -> None:
    before = path.read_bytes()
    checkpoint.save(path, *checkpoint.load(path))
    assert path.read_bytes() == before


def test_a_header_is_read_without_numpy(path: Path) -> None:
    code = (
        "import sys, pathlib; from charrnn.checkpoint import read_header; "
        "read_header(pathlib.Path(sys.argv[1])); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], env=ENV, check=False).returncode == 0


def test_a_file_of_more_than_2_gb_has_a_longer_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = path.read_bytes()
    with monkeypatch.context() as m:
        m.setattr(zipfile, "ZIP64_LIMIT", 500)
        checkpoint.save(path, RUN, ARRAYS)
    data = path.read_bytes()
    assert len(data) > len(plain) + 56
    refused(path, "not a checkpoint")  # which a small file has no reason for
    monkeypatch.setattr(checkpoint, "ZIP64", 500)
    assert checkpoint.load(path)[0]["step"] == 7
    for at in (-98, -66, -58, -50, -42, -34):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[len(data) + at + 1 :])
        refused(path, "not a checkpoint")


# --- a save that fails ---


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    """Writing fails, or the last act of all: until then the old file must stand there whole."""
    before = path.read_bytes()

    def fail(*_: object) -> None:
        assert path.read_bytes() == before
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(SaveError, match=r"run\.npz: could not be saved \(no space left on device\)"):
        checkpoint.save(path, RUN, ARRAYS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_an_interrupt_leaves_nothing_either(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, RUN, ARRAYS)
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("limit", [0, 50, 1000, 10_000, 100_000, 200_000, 400_100, 400_300, 400_900, 401_500])
def test_a_disk_that_is_full_gives_one_line(tmp_path: Path, limit: int) -> None:
    """The system refuses what goes beyond the limit, wherever that falls; nothing else is heard of it."""
    code = """
import gc, resource, sys
from pathlib import Path
import numpy as np
from charrnn import checkpoint
from charrnn import lock as lock_module
from charrnn.errors import SaveError
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    checkpoint.save(Path(sys.argv[1]), {"kind": "model"}, {"best": np.ones(100_000, np.float32)})
except SaveError as e:
    print(e)
gc.collect()
"""
    path = tmp_path / "x.npz"
    command = [sys.executable, "-X", "dev", "-c", code, str(path), str(limit)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == ("" if path.exists() else f"{path}: could not be saved (file too large)\n")
    assert path.exists() == (limit > 400_800)
    assert list(tmp_path.iterdir()) == [path][: path.exists()]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"run\.npz: could not be saved \("):
        checkpoint.save(tmp_path / "file" / "run.npz", RUN, ARRAYS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ARRAYS)
def test_no_number_that_is_not_finite_reaches_a_file(path: Path, name: str, value: float) -> None:
    before = path.read_bytes()
    with pytest.raises(NotFiniteError, match=rf"run\.npz: not saved: a number in '{name}' is not finite, as float32"):
        checkpoint.save(path, RUN, ARRAYS | {name: np.array([[0, value]], np.float32)})
    with pytest.raises(NotFiniteError, match=r"run\.npz: not saved: a number in its header"):
        checkpoint.save(path, {**RUN, "train_seconds": value}, ARRAYS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("notes", [["x" * 9_000_000], [""] * 500_001])
def test_a_header_that_could_not_be_read_is_not_written(path: Path, notes: list[str]) -> None:
    before = path.read_bytes()
    with pytest.raises(SaveError, match=r"could not be saved \(its history is too long; --eval-every"):
        checkpoint.save(path, {**RUN, "notes": notes}, ARRAYS)
    assert path.read_bytes() == before
    checkpoint.save(path, {**RUN, "notes": [n[:8_000_000] for n in notes[:400_000]]}, ARRAYS)
    assert checkpoint.read_header(path)["notes"]


# --- what is no checkpoint at all ---


def test_missing(tmp_path: Path) -> None:
    refused_by_both(tmp_path / "no.npz", "no such file")
    refused_by_both(tmp_path, "is a directory")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(Path("a\0b"))
    with pytest.raises(CheckpointError, match=r"^a\\nb\\x1b: no such file$"):
        checkpoint.load(Path("a\nb\x1b"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    refused_by_both(tmp_path / "pipe.npz", "not a regular file")
    refused_by_both(Path("/dev/zero"), "not a regular file")


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", b"\x80\x04N.", b"PK\5\6" + bytes(18), bytes(10**6)])
def test_not_a_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    refused_by_both(tmp_path / "x.npz", "not a checkpoint of charrnn")


def test_someone_elses_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", weights=np.ones(3))
    refused_by_both(tmp_path / "x.npz", r"no header\.json")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused_by_both(path, "not a checkpoint of charrnn, or a damaged one")


@pytest.mark.parametrize("data", [b"before", b"after"])
def test_bytes_before_or_after(path: Path, data: bytes) -> None:
    path.write_bytes(data + path.read_bytes() if data == b"before" else path.read_bytes() + data)
    refused_by_both(path, "not a checkpoint of charrnn, or a damaged one")


def test_a_comment(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as z:
        z.comment = b"hello"
    refused_by_both(path, "not a checkpoint of charrnn, or a damaged one")


def test_a_directory_that_is_too_large(path: Path) -> None:
    pack(path, [*members(path), ("x", b"")])
    refused_by_both(path, "not a checkpoint of charrnn, or a damaged one")
    pack(path, members(path)[:4])
    with zipfile.ZipFile(path, "a") as z:
        info = zipfile.ZipInfo("header.json")
        info.comment = bytes(2**13)
        z.writestr(info, b"{}")
    refused_by_both(path, "not a checkpoint of charrnn, or a damaged one")


# --- members ---


@pytest.mark.parametrize(
    "name", ["../best_weights.npy", "/best_weights.npy", "Best.npy", "x\nx.npy", "state", "é" * 400]
)
def test_other_members(path: Path, name: str) -> None:
    pack(path, [(name if old == "hidden_state.npy" else old, data) for old, data in members(path)])
    refused_by_both(path, "damaged: it holds '.*, which is no part of a checkpoint")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["header.json", "best_weights.npy"])
def test_a_member_twice(path: Path, name: str) -> None:
    both = [m for m in members(path) if m[0] in ("header.json", "best_weights.npy")]
    pack(path, [*both, *(m for m in both if m[0] == name)])
    refused_by_both(path, "damaged: it holds a member twice")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members(path: Path, method: int) -> None:
    pack(path, members(path), compression=method)
    refused_by_both(path, r"damaged: \w+\.\w+ is compressed; .* zip -0")


def directory(data: bytearray, name: str) -> int:
    """Where the directory speaks of a member."""
    return data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (8, b"\1\0", "best_weights.npy is encrypted"),
        (8, b"\x20\0", "or a damaged one"),
        (10, b"\x63\0", "best_weights.npy is compressed"),
        (16, b"\0\0\0\0", "damaged"),
        (20, b"\0\0\1\0", "best_weights.npy cannot be as large as it says"),
        (24, b"\0\0\1\0", "best_weights.npy cannot be as large as it says"),
        (20, b"\0\0\0\x40\0\0\0\x40", "best_weights.npy cannot be as large as it says"),
        (20, b"\0\0\0\0\0\0\0\0", "damaged"),
        (42, b"\xff\xff\xff\x7f", "best_weights.npy cannot be as large as it says"),
        (42, b"\1\0\0\0", "or a damaged one"),
    ],
)
def test_a_directory_that_lies(path: Path, at: int, value: bytes, message: str) -> None:
    data = bytearray(path.read_bytes())
    at += directory(data, "best_weights.npy")
    data[at : at + len(value)] = value
    path.write_bytes(data)
    refused(path, message)


@pytest.mark.parametrize("name", ["best_weights", "hidden_state"])
def test_members_that_are_missing(path: Path, name: str) -> None:
    pack(path, [m for m in members(path) if m[0] != f"{name}.npy"])
    refused_by_both(path, f"damaged: it lacks or has too much of {name}")


def test_members_and_kind_must_agree(path: Path) -> None:
    checkpoint.save(path, MODEL, ARRAYS)
    refused_by_both(path, "damaged: it lacks or has too much of hidden_state, last_weights, optimizer_state")
    checkpoint.save(path, RUN, {"best_weights": ARRAYS["best_weights"]})
    refused_by_both(path, "damaged: it lacks or has too much of hidden_state, last_weights, optimizer_state")
    checkpoint.save(path, RUN, ARRAYS)
    header = header_of(path)
    del header["arrays"]["optimizer_state"]
    replaced(path, "header.json", sealed(header))
    refused_by_both(path, "damaged: it lacks or has too much of optimizer_state")


# --- arrays ---


def test_a_flipped_bit_in_an_array(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["best_weights"].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    refused(path, "damaged")


def test_an_array_put_in_the_place_of_another(path: Path) -> None:
    replaced(path, "best_weights.npy", npy(ARRAYS["last_weights"]))
    refused(path, "damaged: best_weights.npy does not match its checksum")
    replaced(path, "best_weights.npy", npy(ARRAYS["best_weights"][:, None]))
    refused(path, "damaged: best_weights.npy does not match its checksum")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_are_not_finite(path: Path, value: float, dtype: type) -> None:
    put(path, "best_weights", npy(np.array([1, value], dtype)))
    refused(path, "damaged: a number in best_weights.npy is not finite")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (0, 10**15), (3,), (1, 2, 3, 4), (2, 2**19 + 1)])
def test_every_shape_of_floats(path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    a: Array = (np.arange(math.prod(shape)) % 7).reshape(shape).astype(dtype)
    checkpoint.save(path, RUN, ARRAYS | {"hidden_state": a})
    got = checkpoint.load(path, ["hidden_state"])[1]["hidden_state"]
    assert (got.dtype, got.shape) == (a.dtype, a.shape)
    assert (got == a).all()
    put(path, "hidden_state", npy(a))  # what NumPy writes is what is read
    assert (checkpoint.load(path, ["hidden_state"])[1]["hidden_state"] == a).all()


@pytest.mark.parametrize(
    "a",
    [
        np.arange(3),
        np.array([True]),
        np.array([1j]),
        np.array(["x"]),
        np.array([1.0], ">f4"),
        np.array([(1.0,)], [("x", "<f4")]),
        np.array([None]),
        np.array([1.0], np.longdouble),
        np.asfortranarray(np.ones((2, 3))),
    ],
    ids=lambda a: str(a.dtype),
)
def test_arrays_that_are_not_ours(path: Path, a: Any) -> None:
    put(path, "best_weights", npy(a))
    refused(path, "damaged: best_weights.npy is no array of floats as this program writes them")


def test_a_pickle_is_never_opened(path: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    replaced(path, "best_weights.npy", npy(np.array([Bomb()], dtype=object)))
    refused(path, "damaged: best_weights.npy is no array of floats")
    assert not (tmp_path / "exploded").exists()


def npy_head(head: str, version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + len(head).to_bytes(2 if version[0] == 1 else 4, "little") + head.encode()


@pytest.mark.parametrize(
    "shape",
    [
        *("1000000000000,", "99999999999999999, 99999999999999999", "9" * 18 + ", " * 8, "1" * 5000 + ","),
        *("-1,", "True,", "1e3,", "3 4,", "'3',", "3, ,", "1, " * 40),
    ],
)
@pytest.mark.parametrize("rest", [b"", bytes(12)])
def test_shapes_that_lie(path: Path, shape: str, rest: bytes) -> None:
    """A shape of a terabyte is refused before anything of that size is asked for."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n"
    replaced(path, "best_weights.npy", npy_head(head) + rest)
    refused(path, "damaged: best_weights.npy is n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\1\0\xff\xff",
        npy_head("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", b"\2\0") + bytes(12),
        npy_head("{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }\n") + bytes(12),
        npy_head("{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }\n") + bytes(12),
        npy_head("(" * 9000),
        npy_head("__import__('os').abort()"),
    ],
)
def test_heads_of_arrays_that_are_not_ours(path: Path, data: bytes) -> None:
    replaced(path, "best_weights.npy", data)
    refused(path, "damaged: best_weights.npy is no array of floats as this program writes them")


# --- headers ---


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "is not JSON"),
        ("\ufeff{}", "is not JSON"),
        ("[]", "names no format"),
        ("1", "names no format"),
        ("{}", "names no format"),
        ('{"format": "1"}', "names no format"),
        ('{"format": true}', "names no format"),
        ('{"format": 0}', "names no format"),
        ('{"format": 1}', "format 1 was never released and is not supported; train the model again$"),
        ('{"format": 2}', "format 2 was never released and is not supported; train the model again$"),
        ('{"format": 4}', r"format 4 needs a newer charrnn \(this version reads formats up to 3\): pip install -"),
        ('{"format": 3}', "does not match its checksum"),
        ('{"format": 3, "x": NaN}', "holds a number out of bounds"),
        ('{"format": 3, "x": -Infinity}', "holds a number out of bounds"),
        ('{"format": 3, "x": 1e999}', "holds a number out of bounds"),
        ('{"format": 3, "x": 100000000000000000000}', "holds a number out of bounds"),
        (f'{{"format": 3, "x": 1{"0" * 1_000_000}}}', "holds a number out of bounds"),
        (f'{{"format": 3, "x": 1.{"0" * 1_000_000}}}', "holds a number out of bounds"),
        ("[" * 400_000, "is not JSON"),
        ('{"a":' * 200_000, "is not JSON"),
        ('{"format": 3, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "is not JSON"),
        ("[" + "{}," * 300_000 + "{}]", "holds more than 500,000 values"),
        ("[" + "0," * 500_000 + "0]", "holds more than 500,000 values"),
        ("[" * 500_000, "holds more than 500,000 values"),
        ('{"a":' * 250_000, "holds more than 500,000 values"),
        ('"' + "x" * 9_000_000 + '"', "is larger than 8,388,608 bytes"),
    ],
    ids=lambda s: s[:30],
)
def test_headers(tmp_path: Path, header: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.writestr("header.json", header)
    refused_by_both(tmp_path / "x.npz", message)


def test_a_header_in_another_encoding(path: Path) -> None:
    replaced(path, "header.json", json.dumps(header_of(path)).encode("utf-16"))
    refused_by_both(path, "is not JSON")


def test_a_header_that_was_changed(path: Path) -> None:
    for change in ({"step": 8}, {"sha256": "0" * 64}, {"sha256": None}, {"x": 1}):
        checkpoint.save(path, RUN, ARRAYS)
        replaced(path, "header.json", json.dumps(header_of(path) | change).encode())
        refused_by_both(path, "does not match its checksum")


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a header."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(p for key, item in items for p in places(item, (*at, key)))]


def named(at: tuple[Any, ...]) -> str:
    text = ""
    for above, key in zip((None, *at), at, strict=False):
        in_dict = above in ("arrays", *(("val", "test") if at[0] == "baselines" else ()))
        text += f"[{key!r}]" if in_dict or isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


CHECKED_BY_NAME = [at for at in places({**RUN, "arrays": {"best_weights": "x"}}) if at[0] != "config" or len(at) == 1]


@pytest.mark.parametrize("at", CHECKED_BY_NAME, ids=named)
def test_every_field_is_checked_and_named(path: Path, at: tuple[Any, ...]) -> None:
    header = header_of(path)
    above: Any = header
    for key in at[:-1]:
        above = above[key]
    was = above[at[-1]]
    wrong: Any
    for wrong in (None, True, -1, 0.5, "x", "\n" * 10_000, [], [[]], {}, {"x": 1}, 2**63):
        if type(wrong) is type(was) or (type(was) is float and type(wrong) in (int, float)):
            continue
        if (wrong is None and at[-1] in NULLABLE) or (at[-1] == "initial_loss" and type(wrong) is float):
            continue
        if (type(was) is int and wrong == 2**63) or (was is None and type(wrong) in FITS_NULL.get(at[-1], ())):
            continue
        above[at[-1]] = wrong
        replaced(path, "header.json", sealed(header))
        message = (
            "names no format|newer charrnn|never released" if at == ("format",) else re_escaped(f"damaged: {named(at)}")
        )
        refused_by_both(path, message)
    if isinstance(above, dict) and (len(at) < 3 or at[0] != "baselines"):
        del above[at[-1]]
        replaced(path, "header.json", sealed(header))
        message = "it lacks" if at[0] == "arrays" and len(at) == 2 else f"damaged: {named(at)} is not in its header"
        refused_by_both(path, re_escaped("names no format" if at == ("format",) else message))
        above[at[-1]], above["x\n"] = was, 1
        replaced(path, "header.json", sealed(header))
        refused_by_both(path, "damaged: .*'x.*n'")


NULLABLE: set[Any] = {"test_loss", "val_loss", "train_loss", "grad_norm", "initial_loss", "val_files", "val_sha256"}
NULLABLE |= {"init_from", 1, 2, "sha256"}  # of a file in the corpus, and of init_from
FITS_NULL: dict[Any, tuple[type, ...]] = {
    "test_loss": (int, float),
    "grad_norm": (int, float),
    1: (int,),
    2: (int,),
    "sha256": (str,),
}


def re_escaped(text: str) -> str:
    return text.replace("[", r"\[").replace("]", r"\]").replace(".", r"\.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "x"}, "kind in its header is 'x'"),
        ({"step": -1}, "step in its header is -1"),
        ({"step": 2**63}, "step in its header is 9223372036854775808"),
        ({"threads": 0}, "threads in its header is 0"),
        ({"threads": 1025}, "threads in its header is 1025"),
        ({"plans": []}, r"plans in its header is \[\]"),
        ({"plans": [{**RUN["plans"][0], "steps": "x"}]}, r"plans\[0\].steps in its header is 'x'"),
        ({"plans": [*RUN["plans"], {**RUN["plans"][0], "steps": 0}]}, r"plans\[1\].steps in its header is 0"),
        ({"data_position": [1, 2, 3]}, r"data_position in its header is \[1, 2, 3\]"),
        ({"data_position": [1, "2"]}, r"data_position\[1\] in its header is '2'"),
        (
            {"batches": {"batch_size": 0, "seq_length": 1, "steps_per_epoch": 1}},
            "batches.batch_size in its header is 0",
        ),
        ({"command": "x" * 10**6 + "\n", "notes": 3}, "notes in its header is 3"),
        ({"notes": "x" * 10**6}, r"notes in its header is 'xx.*\.\.\.xx"),
        ({"config": {**RUN["config"], "colour": 1}}, "config in its header: .*colour"),
        ({"config": {**RUN["config"], "hidden_size": 0}}, "config in its header: invalid hidden_size: 0"),
        ({"config": {**RUN["config"], "hidden_size": True}}, "config in its header: invalid hidden_size: True"),
        ({"config": {**RUN["config"], "cell": "\n" * 10**6}}, "config in its header: invalid cell: '"),
        ({"config": {**RUN["config"], "cell": []}}, r"config in its header: invalid cell: \[\]"),
    ],
)
def test_fields_that_cannot_be(path: Path, change: dict[str, Any], message: str) -> None:
    checkpoint.save(path, {**RUN, **change}, ARRAYS)
    refused_by_both(path, f"damaged: {message}")
    with pytest.raises(CheckpointError) as e:
        checkpoint.read_header(path)
    assert len(str(e.value)) < len(str(path)) + 400


def test_the_configuration_is_whole(path: Path) -> None:
    """An option that a file does not name has its default."""
    checkpoint.save(path, {**RUN, "config": {"hidden_size": 3}}, ARRAYS)
    assert checkpoint.read_header(path)["config"] == dataclasses.asdict(Config(hidden_size=3))


@pytest.mark.parametrize(
    ("symbols", "special", "start", "message"),
    [
        ("", [], 10, "vocabulary.size in its header is 0"),
        ("ba", [], 97, "is not in order"),
        ("aa", [], 97, "is not in order"),
        ("a", [0x110001, 0x110000], 97, "is not in order"),
        ("a", [0x110001, 0x110001], 97, "is not in order"),
        ("a", [97], 97, r"vocabulary.special\[0\] in its header is 97"),
        ("a", [0x110000 + 69], 97, r"vocabulary.special\[0\] in its header"),
        ("a", [], 98, "vocabulary.start_symbol in its header is 98"),
        ("a", [0x110001], 0x110002, "vocabulary.start_symbol in its header"),
        ("ab", [], 97, ""),
        ("a", [0x110000, 0x110000 + 68], 0x110000, ""),
        ("", [0x110000], 0x110000, ""),
    ],
)
def test_vocabularies(path: Path, symbols: str, special: list[int], start: int, message: str) -> None:
    v: dict[str, Any] = {
        "size": len(symbols) + len(special),
        "symbols": symbols,
        "special": special,
        "start_symbol": start,
    }
    checkpoint.save(path, {**MODEL, "vocabulary": v}, {"best_weights": ARRAYS["best_weights"]})
    if message:
        refused_by_both(path, message)
        return
    assert checkpoint.read_header(path)["vocabulary"] == v
    for size in (v["size"] - 1, v["size"] + 1):
        checkpoint.save(path, {**MODEL, "vocabulary": {**v, "size": size}}, {"best_weights": ARRAYS["best_weights"]})
        refused_by_both(path, f"vocabulary.size in its header is {size}")


def test_lone_surrogates_are_no_text(path: Path) -> None:
    header = header_of(path)
    header["vocabulary"] |= {"symbols": "\n\ud800😀", "size": 4}
    replaced(path, "header.json", sealed(header))
    refused_by_both(path, "or a damaged one")


# --- bombs ---


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts memory otherwise")
def test_bombs_need_no_memory(path: Path, tmp_path: Path) -> None:
    """Each is opened in a process of its own, whose memory the system tells."""
    whole = members(path)
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"

    def bomb(name: str, change: dict[str, bytes], **options: Any) -> Path:
        pack(tmp_path / name, [(other, change.get(other, data)) for other, data in whole], **options)
        return tmp_path / name

    deflated = {"compression": zipfile.ZIP_DEFLATED}
    text = copy.deepcopy(header_of(path)) | {"notes": ["😀" + "\\" * 4_000_000]}
    bombs = [
        bomb("header.npz", {"header.json": bytes(500_000_000)}, **deflated),
        bomb("weights.npz", {"best_weights.npy": npy(np.zeros(50_000_000))}, **deflated),
        bomb("shape.npz", {"best_weights.npy": npy_head(head) + bytes(100)}),
        bomb("depth.npz", {"header.json": b"[" * 499_000}),
        bomb("empty.npz", {"header.json": b"[" + b"{}," * 249_000 + b"{}]"}),
        bomb("nested.npz", {"header.json": b"[" + b'{"a":{}},' * 120_000 + b"{}]"}),
        bomb("keys.npz", {"header.json": b"{" + b",".join(b'"%d":0' % i for i in range(240_000)) + b"}"}),
        bomb("text.npz", {"header.json": json.dumps(text, ensure_ascii=False).encode()}),
    ]
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as z:
        for i in range(60_000):
            z.writestr(str(i), b"")
    with (tmp_path / "sparse.npz").open("wb") as f:
        f.truncate(10**12)
    code = """
import resource, sys, time
from pathlib import Path
from charrnn import checkpoint
from charrnn import lock as lock_module
from charrnn.errors import CheckpointError
checkpoint.load(Path(sys.argv[1]))
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
try:
    checkpoint.load(Path(sys.argv[2]))
except CheckpointError as e:
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    print(e, file=sys.stderr)
    sys.exit(grown > 200_000_000 or time.perf_counter() - began > 2)
sys.exit("it was read")
"""
    for file in [*bombs, tmp_path / "many.npz", tmp_path / "sparse.npz"]:
        command = [sys.executable, "-c", code, str(path), str(file)]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (0, 1), (file.name, done.stderr)


# --- replace_file ---


def test_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"old", b"new"):
        with checkpoint.replace_file(path) as f:
            f.write(content)
            assert not path.exists() or path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError), checkpoint.replace_file(path) as f:
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
    checkpoint.save(link, RUN, ARRAYS)
    assert link.is_symlink()
    assert checkpoint.load(target)[1].keys() == ARRAYS.keys()


def test_temporary_file_name_cannot_be_guessed_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda n: "ab" * n)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / f".run.npz.{'ab' * 8}.tmp").symlink_to(victim)
    with pytest.raises(SaveError, match="file exists"):
        checkpoint.save(tmp_path / "run.npz", RUN, ARRAYS)
    assert victim.read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SaveError, match="not a regular file"):
        checkpoint.save(pipe, RUN, ARRAYS)
    assert pipe.is_fifo()
