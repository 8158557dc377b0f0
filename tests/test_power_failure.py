"""A save survives a power failure at any point, and the replay finds saves that do not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.power_failure import STRACE, Operation, check, check_save, files_in, record, replay

FOLDER, FILE, TEMPORARY = "/d", "/d/run.npz", "/d/run.tmp"
BEFORE = {FILE: b"old"}
CREATE, RENAME = Operation("create", TEMPORARY), Operation("rename", TEMPORARY, target=FILE)
WRITES = [Operation("write", TEMPORARY, i, b"new!"[i : i + 2]) for i in (0, 2)]
SYNC, SYNC_FOLDER = Operation("sync", TEMPORARY), Operation("sync", FOLDER)
SAVE = [CREATE, *WRITES, SYNC, RENAME, SYNC_FOLDER]


def is_traceable() -> bool:
    command = [*STRACE, "/dev/null", sys.executable, "-c", ""]
    return bool(shutil.which("strace")) and not subprocess.run(command, check=False).returncode


traceable = pytest.mark.skipif(not is_traceable(), reason="needs strace, and leave to use it")


@traceable
@pytest.mark.parametrize(("name", "states"), [("first save", 50), ("later save", 30)])
def test_real_save_survives_a_power_failure_at_any_point(
    tmp_path: Path, name: str, states: int
) -> None:
    lines = check_save(name, tmp_path)
    assert len(lines) > states
    assert not any(lines)


def test_safe_save_has_the_old_or_the_new_file() -> None:
    assert not any(check(SAVE, BEFORE, {FILE: b"new!"}, FILE))
    assert {content for _, content in replay(SAVE, BEFORE, FILE)} == {b"old", b"new!"}
    assert not any(check(SAVE, {}, {FILE: b"new!"}, FILE))


@pytest.mark.parametrize(
    ("operations", "found"),
    [
        (  # no sync: the name can be there before the data
            [CREATE, *WRITES, RENAME, SYNC_FOLDER],
            {b"", b"n", b"ne", b"new", b"\0\0w!", b"\0\0\0\0"},
        ),
        ([CREATE, RENAME, *(op._replace(path=FILE) for op in WRITES)], {b"", b"ne", b"\0\0w!"}),
        (  # in place
            [Operation("truncate", FILE), *(op._replace(path=FILE) for op in WRITES)],
            {b"", b"ne", b"\0\0w!", b"ned"},
        ),
        ([Operation("unlink", FILE), *SAVE], {None}),
        (SAVE[:-1], {b"old"}),  # the folder is not synced: the save can be lost after its end
    ],
    ids=["not synced", "renamed before it is written", "in place", "removed", "folder not synced"],
)
def test_replay_finds_unsafe_saves(operations: list[Operation], found: set[bytes | None]) -> None:
    assert any(check(operations, BEFORE, {FILE: b"new!"}, FILE))
    assert found <= {content for _, content in replay(operations, BEFORE, FILE)}


@traceable
@pytest.mark.parametrize(("patch", "is_lost"), [("", False), ("os.fsync = lambda fd: None", True)])
def test_recorded_save_without_sync_is_found(tmp_path: Path, patch: str, is_lost: bool) -> None:
    (tmp_path / "page.html").write_bytes(b"old")
    before, path = files_in(tmp_path), str(tmp_path.resolve() / "page.html")
    write = "from pathlib import Path; from charrnn.storage.checkpoint import replace_file"
    script = f"import os; {write}; {patch}\nwith replace_file(Path('page.html')) as f:\n"
    operations = record([sys.executable, "-c", f"{script}  f.write(b'new!')"], tmp_path)
    assert any(check(operations, before, files_in(tmp_path), path)) == is_lost
