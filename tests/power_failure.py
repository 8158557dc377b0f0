"""Cut the power at every point of a save: the file is the old or the new one.

``python -m tests.power_failure`` records the system calls of real saves with strace, and replays
them up to every point on the weakest disk that POSIX allows. Unsynced writes are there up to any
one (or half of it), without any one, as zeros, or not at all. Unsynced names are created, renamed
and removed in order, but any number of them, whatever becomes of the data. A file, its folder and
the folder's parent are synced separately. After the last operation only the new file is right.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from charrnn.cli import main
from charrnn.storage.checkpoint import read_checkpoint
from tests.conftest import CHARRNN, ENV

TEXT = "the quick brown fox jumps over the lazy dog; 한글 too.\n" * 40
TRAIN = "train text.txt --hidden-size 4 --seq-length 16 --batch-size 4 --max-steps 9 -q"
# name: the command, and the file that it saves; --force is added where the command has it
SAVES = {
    "first save": (f"{TRAIN} -o new.npz", "new.npz"),
    "first save in a new folder": (TRAIN, "checkpoints/text.npz"),
    "later save": ("train text.txt -o run.npz --resume --stop-after 2", "run.npz"),
    "save through a link": ("train text.txt -o link.npz --resume --stop-after 2", "far/run.npz"),
    "export": ("export run.npz -o model.npz", "model.npz"),
    "report": ("report run.npz -o page.html", "page.html"),
    "show": ("show run.npz text.txt --html text.html", "text.html"),
    "plot": ("plot run.npz -o curve.png", "curve.png"),
}
# those with a question mark do not exist on every processor
CALLS = "openat,write,ftruncate,fsync,fdatasync,lseek,renameat,renameat2,unlinkat,mkdirat,"
CALLS += "?open,?rename,?unlink,?mkdir"
STRACE = ["strace", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o"]
Files = dict[str, bytes]  # by path; empty for a folder
State = tuple[int, bytes | None]  # number of operations before a power failure; None: no file


class Operation(NamedTuple):
    """A create, mkdir, write, truncate, sync (of a file or folder), rename or unlink."""

    kind: str
    path: str
    offset: int = 0
    data: bytes | None = None
    target: str = ""


def record(command: Sequence[str], folder: Path) -> list[Operation]:
    """Run a command in a folder; return the operations of its main thread on the files there."""
    env = {**ENV, "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.NamedTemporaryFile("r") as f, open(os.devnull, "w") as null:  # noqa: PTH123
        subprocess.run([*STRACE, f.name, *command], cwd=folder, env=env, stderr=null, check=True)
        root, positions = os.path.realpath(folder), dict[str, int]()
        operations = [op for line in f for op in parse(line, root, positions)]
    return [op for op in operations if f"{op.path}/".startswith(f"{root}/")]


def parse(line: str, folder: str, positions: dict[str, int]) -> Iterator[Operation]:
    """Yield the operations of a system call; ``positions`` are those in open files."""
    call = re.match(r"(\w+)\((.*)\) += (\d+)(.*)", line)
    if not call or "(deleted)" in line:  # failed, or of a file without a name
        return
    name, args, result, file = call.groups()
    fd, path = args.partition("<")[0], decode(args.partition(",")[0])
    if name.startswith("open"):
        positions[result] = 0
        kinds = {"O_CREAT": "create", "O_TRUNC": "truncate"}
        yield from (Operation(kinds[flag], decode(file)) for flag in kinds if flag in args)
    elif name == "lseek":
        positions[fd] = int(result)
    elif name == "write":
        data, at = os.fsencode(decode(args.split('"')[1]))[: int(result)], positions.get(fd, 0)
        positions[fd] = at + len(data)
        yield Operation("write", path, at, data)
    elif name == "ftruncate":
        yield Operation("truncate", path, int(args.split(", ")[1]))
    elif "sync" in name:
        yield Operation("sync", path)
    else:
        path, *target = (str(Path(folder, decode(s))) for s in re.findall('"(.*?)"', args))
        yield Operation(re.split("at|2", name)[0], path, target="".join(target))


def decode(escaped: str) -> str:
    return os.fsdecode(bytes.fromhex("".join(re.findall(r"\\x(..)", escaped))))


class Inode:
    """A file: its bytes on the disk, and the changes since then, not yet synced."""

    def __init__(self, synced: bytes) -> None:
        self.synced, self.changes = synced, list[Operation]()

    def content(self, changes: Iterable[Operation] | None = None) -> bytes:
        """Return the bytes after these changes, or after all."""
        new = bytearray(self.synced)
        for _, _, at, data, _ in self.changes if changes is None else changes:
            new += bytes(max(at - len(new), 0))
            new[at : None if data is None else at + len(data)] = data or b""
        return bytes(new)

    def after_failure(self) -> Iterator[bytes]:
        """Yield what may be on the disk after a power failure."""
        yield self.content()
        for i, op in enumerate(self.changes):
            before = self.changes[:i]
            torn = op._replace(data=op.data and op.data[: len(op.data) // 2])
            yield self.content(before)
            yield self.content([*before, torn])
            yield self.content(before + self.changes[i + 1 :])
        if self.changes:
            zeros = (op.data and bytes(len(op.data)) for op in self.changes)
            yield self.content(map(lambda op, data: op._replace(data=data), self.changes, zeros))


class Disk:
    """Files and folders by name, as programs see them and as the disk has them."""

    def __init__(self, before: Files) -> None:
        self.names = {path: Inode(content) for path, content in before.items()}
        self.synced = dict(self.names)
        self.changes = list[tuple[Operation, Inode]]()  # of names, not yet synced

    def run(self, op: Operation) -> None:
        inode = self.names.get(op.path) or Inode(b"")
        if op.kind in ("write", "truncate"):
            inode.changes.append(op)
        elif op.kind == "sync":
            inode.synced, inode.changes = inode.content(), []
            synced = [c for c in self.changes if str(Path(c[0].path).parent) == op.path]
            self.changes = [change for change in self.changes if change not in synced]
            for change in synced:
                set_name(self.synced, *change)
        elif op.kind != "create" or op.path not in self.names:
            self.changes.append((op, inode))
            set_name(self.names, op, inode)

    def after_failure(self, path: str) -> Iterator[bytes | None]:
        """Yield what may be at a path after a power failure; None is no file."""
        names, folders = dict(self.synced), {str(folder) for folder in Path(path).parents}
        for i in range(len(self.changes) + 1):
            if i:
                set_name(names, *self.changes[i - 1])
            has_path = path in names and folders & self.names.keys() <= names.keys()
            yield from names[path].after_failure() if has_path else [None]


def set_name(names: dict[str, Inode], op: Operation, inode: Inode) -> None:
    """Create, rename or remove a name."""
    if op.kind in ("rename", "unlink"):
        names.pop(op.path, None)
    if op.kind != "unlink":
        names[op.target or op.path] = inode


def replay(operations: Sequence[Operation], before: Files, path: str) -> Iterator[State]:
    """Yield what may be at a path after a power failure at every point."""
    disk = Disk(before)
    for point in range(len(operations) + 1):
        if point:
            disk.run(operations[point - 1])
        yield from ((point, content) for content in disk.after_failure(path))


def check(operations: Sequence[Operation], before: Files, after: Files, path: str) -> list[str]:
    """Return a line for each state after a power failure: empty, or what is wrong.

    The versions of the file are the first, and each that is renamed to its path, as completed.
    """
    disk, renamed = Disk(before), [list[Inode]()]
    for op in operations:
        renamed.append([*renamed[-1], disk.names[op.path]] if op.target == path else renamed[-1])
        disk.run(op)
    left = {name: inode.content() for name, inode in disk.names.items()}
    assert left == after, "the recorded operations do not lead to the files"
    versions = [before.get(path), *(inode.content() for inode in renamed[-1])]
    assert len({*versions}) == len(versions), "a save that changes nothing shows nothing"
    lines = []
    for point, content in replay(operations, before, path):
        n, is_last = len(renamed[point]), point == len(operations)
        is_right = content in versions[n if is_last else max(n - 1, 0) : n + 1]
        found = "no file" if content is None else f"a file of {len(content)} bytes"
        lines.append("" if is_right else f"{found} after {point} of {len(operations)} operations")
    return lines


def files_in(folder: Path) -> Files:
    paths = [path for path in folder.resolve().rglob("*") if not path.is_symlink()]
    return {str(path): b"" if path.is_dir() else path.read_bytes() for path in paths}


def check_save(name: str, folder: Path) -> list[str]:
    """Do a save in an empty folder, after a run and with old files; return what ``check`` does."""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    start = [*CHARRNN, *TRAIN.split(), "--stop-after", "3", "-o", "far/run.npz"]
    subprocess.run(start, cwd=folder, env=ENV, check=True)
    (folder / "link.npz").symlink_to("far/run.npz")
    for copy in ("run.npz", "model.npz", "page.html", "text.html", "curve.png"):
        shutil.copy(folder / "link.npz", folder / copy)
    command, file = SAVES[name]
    verb, *args = command.split()
    if verb != "train" and any(p.name == "force" for p in main.commands[verb].params):
        args.append("--force")
    before, path = files_in(folder), folder.resolve() / file
    operations = record([*CHARRNN, verb, *args], folder)
    lines = check(operations, before, files_in(folder), str(path))
    for content in {content for _, content in replay(operations, before, str(path))} - {None}:
        if path.suffix == ".npz" and content is not None and not any(lines):
            path.write_bytes(content)
            read_checkpoint(path)
    return lines


if __name__ == "__main__":
    losses = list[str]()
    for name in SAVES:
        with tempfile.TemporaryDirectory() as temporary:
            lines = check_save(name, Path(temporary))
        print(f"{name}: {len(lines)} states")
        losses += [f"{name}: {line}" for line in lines if line]
    sys.exit("\n".join(losses) or None)
