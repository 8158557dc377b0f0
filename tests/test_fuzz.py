from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn import checkpoint, header
from charrnn.errors import CheckpointError
from tests import fuzz


def test_no_mutation_gets_through() -> None:
    counts, failures, _ = fuzz.fuzz(300, seed=0)
    assert failures == []
    assert sum(counts.values()) == 300
    # it did break files, and it did make ones that are read
    assert counts["broken, refused"] > 100
    assert min(counts[f"{kind}, {outcome}"] for kind, outcome in [("broken", "same"), ("forged", "loaded")]) > 5
    assert counts["forged, refused"] > 20


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> list[fuzz.Good]:
    return fuzz.good_files(tmp_path_factory.mktemp("good"))


def test_a_seed_makes_the_same_mutation_again(goods: list[fuzz.Good], tmp_path: Path) -> None:
    again = fuzz.good_files(tmp_path)
    assert [good.data for good in again] == [good.data for good in goods]
    for seed in range(50):
        assert fuzz.mutate(seed, goods)[3] == fuzz.mutate(seed, again)[3]


@pytest.mark.parametrize("i", range(4))
def test_whole_files_are_the_same(goods: list[fuzz.Good], tmp_path: Path, i: int) -> None:
    (tmp_path / "x.npz").write_bytes(goods[i].data)
    assert fuzz.judge(tmp_path / "x.npz", goods[i], forged=False) == ("same", "")
    assert fuzz.judge(tmp_path / "x.npz", goods[i - 1], forged=False)[0] == "FAILED"
    assert fuzz.judge(tmp_path / "x.npz", goods[i - 1], forged=True)[0] == "loaded"


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
    ("read", "told"),
    [(slow, "0.2 s"), (large, " MB"), (wrong, "ZeroDivisionError"), (two_lines, "more than a line")],
)
def test_what_is_a_failure(
    goods: list[fuzz.Good], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Callable[[Path], Any], told: str
) -> None:
    if read is large and not fuzz.peak():
        pytest.skip("the system does not tell")
    monkeypatch.setattr(checkpoint, "read_header", read)
    monkeypatch.setattr(fuzz, "SECONDS", 0.1 if read is slow else 10)
    # the memory of this process may have been larger once than what is asked for here
    monkeypatch.setattr(fuzz, "MEMORY", -1 if read is large else fuzz.MEMORY)
    (tmp_path / "x.npz").write_bytes(goods[0].data)
    outcome, text = fuzz.judge(tmp_path / "x.npz", goods[0], forged=True)
    assert outcome == "FAILED"
    assert told in text


def test_a_reader_that_believes_everything_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def believe(header: dict[str, Any]) -> str:
        return str(header.get("sha256"))

    assert fuzz.main(["20"]) == 0
    assert "FAILED" not in capsys.readouterr().out
    monkeypatch.setattr(header, "_checksum", believe)
    assert fuzz.main(["200"]) == 1
    out = capsys.readouterr().out
    assert "seed " in out
    assert "another content was loaded" in out
    assert "broken, FAILED" in out


def test_the_seal_of_a_forged_file_fits(goods: list[fuzz.Good], tmp_path: Path) -> None:
    header = json.loads(dict(fuzz.members(goods[0].data))["header.json"])
    (tmp_path / "x.npz").write_bytes(fuzz.sealed(goods[0].data, header | {"step": 2}))
    assert checkpoint.read_header(tmp_path / "x.npz")["step"] == 2
