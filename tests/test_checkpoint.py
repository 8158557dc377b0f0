import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charrnn
from charrnn import checkpoint
from charrnn.arrays import Array
from charrnn.corpus import Corpus
from charrnn.errors import CheckpointError, SaveError
from charrnn.training import Run, fit
from tests.conftest import ROOT

ARRAYS: dict[str, Array] = {"best": np.arange(6, dtype=np.float32), "state": np.ones((2, 3))}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new folder" / "run.npz"
    checkpoint.save(path, {"kind": "run", "name": "한\n"}, ARRAYS)
    return path


def test_what_is_saved_is_what_is_loaded(path: Path) -> None:
    header, arrays = checkpoint.load(path)
    assert header == {"format": 1, "kind": "run", "name": "한\n"} == checkpoint.read_header(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, a in ARRAYS.items():
        assert arrays[name].dtype == a.dtype
        assert (arrays[name] == a).all()
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
arrays = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    st.lists(st.floats(width=32), max_size=5).map(lambda x: np.array(x, np.float32)),
    max_size=3,
)


@given(header=st.dictionaries(st.text(max_size=5), json_values, max_size=4), arrays=arrays)
def test_any_header_and_arrays_come_back(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object], arrays: dict[str, Array]
) -> None:
    path = tmp_path_factory.mktemp("any") / "run.npz"
    checkpoint.save(path, {**header, "format": 1}, arrays)
    got, back = checkpoint.load(path)
    assert got == {**header, "format": 1}
    assert back.keys() == arrays.keys()
    assert all(back[name].tobytes() == a.tobytes() for name, a in arrays.items())


@pytest.mark.parametrize("golden", sorted((ROOT / "tests" / "golden").glob("format-*.npz")), ids=lambda p: p.stem)
def test_files_of_every_format_stay_readable(golden: Path) -> None:
    """Each is a run on "hello": it still writes it, and goes on."""
    assert "".join(charrnn.load(golden).sample(4, prime="h", temp=0)) == "ello"
    run = Run.restore(golden, Corpus("hello", "hello"))
    assert (run.step, run.finished) == (200, True)
    run.extend(210)
    assert [step.step for step in fit(run, None)] == list(range(201, 211))
    assert "".join(charrnn.load(golden, last=True).sample(4, prime="h", temp=0)) == "ello"


def test_the_same_content_gives_the_same_bytes(path: Path) -> None:
    before = path.read_bytes()
    checkpoint.save(path, {"kind": "run", "name": "한\n"}, ARRAYS)
    assert path.read_bytes() == before


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
        checkpoint.save(path, {}, ARRAYS)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError):
        checkpoint.save(tmp_path / "file" / "run.npz", {}, ARRAYS)


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as e:
        checkpoint.load(path)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "no.npz", "no such file")
    refused(tmp_path, "is a directory")


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", b"\x80\x04N."])
def test_not_a_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(data)
    refused(tmp_path / "x.npz", "not a checkpoint of charrnn")


def test_someone_elses_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", weights=np.ones(3))
    refused(tmp_path / "x.npz", r"no header\.json")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "not a checkpoint of charrnn, or a damaged one")


def test_a_flipped_bit_in_an_array(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(ARRAYS["best"].tobytes()) + 5] ^= 1
    path.write_bytes(data)
    refused(path, "damaged")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "damaged"),
        ("[]", "names no format"),
        ('{"format": "1"}', "names no format"),
        (json.dumps({"format": 2}), r"format 2 by a newer charrnn; this one reads up to 1: pip install"),
    ],
)
def test_headers(tmp_path: Path, header: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as z:
        z.writestr("header.json", header)
    refused(tmp_path / "x.npz", message)


def test_a_pickle_is_never_opened(path: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    np.savez(tmp_path / "x.npz", best=np.array([Bomb()], dtype=object))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as z:
        z.writestr("header.json", '{"format": 1}')
    refused(tmp_path / "x.npz", "Object arrays cannot be loaded")
    assert not (tmp_path / "exploded").exists()
