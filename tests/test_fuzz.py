"""No mutation of a checkpoint gets through, and the fuzzer would find one that did."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.errors import CheckpointError
from charrnn.storage import checkpoint, header
from tests import fuzz
from tests.forge import header_of, sealed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[fuzz.ValidFile]:
    return fuzz.valid_files(tmp_path_factory.mktemp("valid"))


def test_no_mutation_gets_through() -> None:
    counts, failures, _ = fuzz.fuzz(300, seed=0)
    assert failures == []
    assert sum(counts.values()) == 300
    # files were broken, and some could still be read
    assert counts["broken, refused"] > 100
    assert min(counts["broken, same"], counts["forged, loaded"]) > 5
    assert counts["forged, refused"] > 20


def test_seed_repeats_its_mutation(files: list[fuzz.ValidFile], tmp_path: Path) -> None:
    again = fuzz.valid_files(tmp_path)
    assert [file.data for file in again] == [file.data for file in files]
    for seed in range(50):
        assert fuzz.mutate(seed, files)[2] == fuzz.mutate(seed, again)[2]


def test_undamaged_files_are_recognized(files: list[fuzz.ValidFile], tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for file, other in zip(files, [*files[1:], files[0]], strict=True):
        path.write_bytes(file.data)
        assert fuzz.classify(path, file, forged=False) == ("same", "")
        assert fuzz.classify(path, other, forged=False)[0] == "FAILED"
        assert fuzz.classify(path, other, forged=True)[0] == "loaded"
    path.write_bytes(sealed(file.data, header_of(file.data) | {"step": 2}))
    assert checkpoint.read_state(path).step == 2


def slow(_: Path) -> Any:
    time.sleep(0.2)
    raise CheckpointError("x")


def large(_: Path) -> Any:
    np.ones(40_000_000)
    raise CheckpointError("x")


def wrong(_: Path) -> Any:
    raise ZeroDivisionError


def two_lines(_: Path) -> Any:
    raise CheckpointError("x\ny")


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (slow, "0.2 s"),
        (large, " MB"),
        (wrong, "ZeroDivisionError"),
        (two_lines, "more than a line"),
    ],
)
def test_failures_are_recognized(
    files: list[fuzz.ValidFile],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    read: Callable[[Path], Any],
    reason: str,
) -> None:
    if read is large and not fuzz.peak():
        pytest.skip("the system does not know the peak of memory")
    monkeypatch.setattr(checkpoint, "read_state", read)
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.1 if read is slow else 10)
    # this process may once have had more memory than is asked for here
    monkeypatch.setattr(fuzz, "MAX_BYTES", -1 if read is large else fuzz.MAX_BYTES)
    (tmp_path / "x.npz").write_bytes(files[0].data)
    outcome, message = fuzz.classify(tmp_path / "x.npz", files[0], forged=True)
    assert outcome == "FAILED"
    assert reason in message


def test_reader_that_trusts_the_header_is_detected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuzz.main(["20"]) == 0
    assert "FAILED" not in capsys.readouterr().out
    monkeypatch.setattr(header, "_checksum", lambda record: str(record.get("sha256")))
    assert fuzz.main(["200"]) == 1
    out = capsys.readouterr().out
    assert "seed " in out
    assert "another content was loaded" in out
    assert "broken, FAILED" in out
