"""Attack the header of a checkpoint: each value becomes a hostile one, under the right checksum.

``python -m tests.fuzz_header`` gives every forged file to every command, which must refuse it in
one line or work: without a traceback, a warning, a control character, much more time or memory,
or a change of another file. ``--part 2/50`` tries one of 50 equal shares, ``--field corpus.name``
the changes of one field.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import itertools
import json
import multiprocessing
import operator
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import traceback
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

import charrnn
from charrnn.cli import main as charrnn_main
from charrnn.errors import ExitCode
from tests.forge import header_of, sealed
from tests.fuzz import MAX_BYTES, MAX_SECONDS

HOSTILE: list[Any] = [None, True, 0, -1, 1, 2, 255, 256, 65536, 2**31, 2**53, 2**62, 2**63 - 1]
HOSTILE += [2**63, 10**19, 0.5, -0.5, 1e-308, 1e38, 3.4e38, 1e300, 1.7e308, -1.7e308]
HOSTILE += ["", "x", "-", "./-", "/dev/zero", "/dev/full", "pipe", "/proc/self/mem"]
HOSTILE += ["../../../../etc/passwd", "a\0b", "\n", "\r", "\x1b[31mRED\x1b[0m", "\x1b]0;title\x07"]
HOSTILE += ["\x9b31m", "\u202e", "\u2028", "\ud800", "x" * 100_000, "<script>alert(1)</script>"]
HOSTILE += ["{x}", "%s", "e" + "\u0301" * 50, [], {}, [[]]]
FREE_FORM = [("arrays",), ("config",), ("baselines", "val"), ("baselines", "test")]

TEXT = "the quick brown fox jumps over the lazy dog; 한글 too.\n" * 60
SIZE = "--batch-size 4 --seq-length 8 --workers 1"
RUN = f"{SIZE} --max-steps 6 --stop-after 4 --eval-every 2 --sample-every 2"
SETUP = [
    f"train corpus.txt -o old.npz --hidden-size 6 {SIZE} --max-steps 2 --min-count 2",
    f"train corpus.txt --val-file val.txt -o char.npz --init-from old.npz {RUN}",
    f"train corpus.txt -o byte.npz --hidden-size 6 --unit byte --documents line {RUN}",
    f"train corpus.txt -o word.npz --hidden-size 6 --unit word --max-vocab 60 {RUN}",
    "export char.npz -o model.npz",
    "train tags.txt --predict tags --features v.npz -o frames.npz --hidden-size 6 --batch-size 4 "
    "--workers 1 --bidirectional --max-steps 6 --stop-after 4",
]
# for the file F; info comes first
COMMANDS = f"""
info F; info F --json; sample F -n 20 --seed 1; eval F draft.txt; eval F --split val;
eval F --split test --json; score F draft.txt; score F draft.txt --quantile .5; show F draft.txt;
show F draft.txt --gates; show F draft.txt --html x.html --force; plot F --terminal;
plot F -o x.png --force; report F -o x.html --force; export F -o x.npz --force;
export F --html x.html --force;
overlap F corpus.txt -n 100 --seed 1;
gradcheck F draft.txt --entries 1; gradflow F draft.txt --lags 3;
train corpus.txt -o F --stop-after 2 --resume;
train corpus.txt -o x.npz --force --init-from F {SIZE} --max-steps 2"""
# for the model of sequences of vectors
FRAME_COMMANDS = """
info F; predict F v.npz; eval F tags.txt --features v.npz; eval F --split test;
report F -o x.html --force; export F -o x.npz --force;
train tags.txt -o F --stop-after 2 --resume"""
FRAME_FIELDS = ("config", "features", "task", "vocabulary")
OUTPUTS = {"x.html", "x.npz", "x.png", ".x.npz.lock"}
SHOW_TEXT = ("sample", "score", "show")  # on stdout, unchanged
EXIT_CODES = [code for code in ExitCode if code < ExitCode.INTERRUPTED]
KILL_SECONDS = 10
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
ADDRESS_SPACE = 2**32  # of a command; the machine keeps the rest
QUOTED = 150  # characters of a message

Keys = tuple[str | int, ...]


class Case(NamedTuple):
    name: str  # the file, the path in its header, the number of the hostile value
    path: Keys
    new: Any  # takes the place of what is there


class Outcome(NamedTuple):
    code: int  # below 0: the signal that ended the command
    seconds: float = 0.0  # of the CPU
    peak: int = 0
    out: bytes = b""
    err: bytes = b""


Outcomes = dict[str, Outcome]  # by command
Failure = tuple[Case, str, str]  # with the command and the problem


def cases(name: str, value: Any, path: Keys = ()) -> Iterator[Case]:
    """Yield every change of a header: values, keys of some dicts, and lengths of lists."""
    if isinstance(value, dict):
        for (key, item), (n, new) in itertools.product([*value.items()][-2:], enumerate(HOSTILE)):
            if path in FREE_FORM and isinstance(new, str):
                rest = {k: item for k, item in value.items() if k != key}
                yield Case(f"{name}.{key}.key{n}", path, {new: item, **rest})
        for key in value if path else sorted(value.keys() - {"sha256"}):
            yield from cases(f"{name}.{key}", value[key], (*path, key))
    elif isinstance(value, list):
        if value:
            yield Case(f"{name}.empty", path, [])
            yield Case(f"{name}.twice", path, value * 2)
        for i, item in enumerate(value[:2]):
            yield from cases(f"{name}.{i}", item, (*path, i))
    else:
        for n, new in enumerate(HOSTILE):
            if ascii(new) != ascii(value):
                yield Case(f"{name}.{n}", path, new)


def import_all(folder: Path) -> None:
    """Import what the commands import late, once for all processes."""
    for module in pkgutil.walk_packages(charrnn.__path__, "charrnn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from charrnn.drawing.figures import plot_lines, save_figure

    save_figure(plot_lines({"x": ([1, 2], [1, 2])}, "x", "y"), folder / "x.png")
    gc.freeze()  # a collection in a forked process would copy all memory


def make_files(folder: Path) -> Outcomes:
    """Make the valid files and their text; return the outcome of each command, by file."""
    for name, text in {"corpus": f"{TEXT}Z{TEXT}", "val": TEXT[:500], "draft": TEXT[:150]}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    np.savez(folder / "v.npz", vectors=np.eye(80, 3), lengths=[2] * 40)
    (folder / "tags.txt").write_text("ab\n" * 40, encoding="utf-8")
    for command in SETUP:
        done = run_command(command, folder)
        assert done.code == 0, done.err.decode()
    (folder / "old.npz").unlink()
    data = (folder / "char.npz").read_bytes()
    header = header_of(data)
    event = {"step": 3, "reason": "loss nan, gradient norm nan", "restored": False}
    header |= {"nonfinite_events": [event], "notes": [*header["notes"], "a note"]}
    (folder / "char.npz").write_bytes(sealed(data, header))
    usual = {}
    for name in ("char", "byte", "word", "model", "frames"):
        data = (folder / f"{name}.npz").read_bytes()
        for command in commands_for(name):
            usual[command] = run_command(command, folder)
            (folder / f"{name}.npz").write_bytes(data)
    return usual


def commands_for(name: str) -> list[str]:
    resume = f"--resume{' --val-file val.txt' * (name == 'char')}"
    commands = FRAME_COMMANDS if name == "frames" else COMMANDS
    commands = commands.replace(" F", f" {name}.npz").replace("--resume", resume)
    return [" ".join(command.split()) for command in commands.split(";")]


def run_command(command: str, folder: Path) -> Outcome:
    """Run ``charrnn`` in a folder, in a process that is forked from this one."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (pid := os.fork()):
            become(command, folder, out.fileno(), err.fileno())
        _, status, used = os.wait4(pid, 0)
        out.seek(0)
        err.seek(0)
        code, peak = os.waitstatus_to_exitcode(status), used.ru_maxrss * RSS_UNIT
        return Outcome(code, used.ru_utime + used.ru_stime, peak, out.read(), err.read())


def become(command: str, folder: Path, out: int, err: int) -> NoReturn:
    import resource

    code = 1
    try:
        signal.alarm(KILL_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        os.chdir(folder)
        for fd, source in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(source, fd)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
        sys.argv = ["charrnn", *command.split()]
        charrnn_main(sys.argv[1:], prog_name="charrnn")
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def judge(command: str, got: Outcome, usual: Outcome) -> Iterator[str]:
    """Yield what is wrong; ``usual`` is the outcome of the same command for the valid file."""
    name, *args = command.split()
    out, err = (data.decode("utf-8", "surrogateescape") for data in (got.out, got.err))
    *lines, end = err.split("\n")
    if got.code == -signal.SIGALRM:
        yield f"killed after {KILL_SECONDS} s"
    elif got.code not in EXIT_CODES:
        yield f"exit code {got.code}: {err[-QUOTED:]!a}"
    elif got.code:
        messages = lines[-1:] if name == "train" else lines  # which prints its progress, too
        if end or not lines or not all(line.startswith("charrnn: ") for line in messages):
            yield f"refused, but not in one line: {err[-QUOTED:]!a}"
    words = [word for word in ("Traceback", "Warning", "out of memory") if word in err]
    yield from (f"{word}: {err[-QUOTED:]!a}" for word in words)
    for stream, text in (("stderr", err), ("stdout", "" if name in SHOW_TEXT else out)):
        if raw := {c for c in text if not (c.isprintable() or c in "\n\t")}:
            yield f"raw {sorted(raw)!a} on {stream}"
    if "--json" in args and not got.code:
        try:
            json.loads(out, parse_constant=int)  # which refuses NaN and Infinity
        except ValueError as e:
            yield f"invalid JSON: {e}"
    if (seconds := got.seconds - usual.seconds) > MAX_SECONDS:
        yield f"{seconds:.0f} s more"
    if (size := got.peak - usual.peak) > MAX_BYTES:
        yield f"{size / 1e6:.0f} MB more"


def snapshot(folder: Path) -> set[tuple[str, int, int, int]]:
    """Return the names of the files in a folder and beside it, with what a write changes."""
    stats = {path.name: path.lstat() for path in folder.parent.rglob("*") if path != folder}
    return {(name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats.items()}


def attack(files: Path, usual: Outcomes, every: bool, case: Case) -> tuple[int, list[Failure]]:
    """Forge a file and give it to the commands; return their number and the failures."""
    name, failures = case.name.split(".")[0], []
    commands = commands_for(name)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(shutil.copytree(files, Path(root) / "work"))
        os.mkfifo(folder / "pipe")
        path, page = folder / f"{name}.npz", folder / "x.html"
        header: Any = header_of(path.read_bytes())
        functools.reduce(operator.getitem, case.path[:-1], header)[case.path[-1]] = case.new
        data = sealed(path.read_bytes(), header)
        for n, command in enumerate(commands):
            path.write_bytes(data)
            before = snapshot(folder)
            got = run_command(command, folder)
            # all have the same reader: what info refuses is left to two more
            if not n and got.code == ExitCode.CHECKPOINT and not every:
                commands[1:] = random.Random(case.name).sample(commands[1:], 2)
            problems = [*judge(command, got, usual[command])]
            written = {path.name, f".{path.name}.lock"} if "--resume" in command else set()
            changed = {file for file, *_ in before ^ snapshot(folder)} - OUTPUTS - written
            problems += [f"changed {file}" for file in sorted(changed)]
            if got.code in (2, 3, 4, 5) and path.read_bytes() != data:
                problems.append("refused, but the checkpoint was written")
            if got.code == 0 and page.name in command and b"<script>alert" in page.read_bytes():
                problems.append("a script of the header is on the page")
            failures += [(case, command, problem) for problem in problems]
    return len(commands), failures


def report(failures: Sequence[Failure]) -> None:
    """Print the failures by field and value, each with the command that repeats it."""
    groups: dict[tuple[str, str, str], list[Failure]] = {}
    for case, command, problem in failures:
        key = ".".join(map(str, case.path)), ascii(case.new)[:60].split(": ")[0], problem
        groups.setdefault(key, []).append((case, command, problem))
    for (field, new, problem), group in sorted(groups.items()):
        commands = "; ".join(sorted({command for _, command, _ in group}))
        print(f"{field} = {new}: {problem}\n    {commands}")
        print(f"    python -m tests.fuzz_header --field '{group[0][0].name}'")


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_header", description=__doc__)
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N equal shares")
    parser.add_argument("--field", default="", help="such as corpus.name, or char.corpus.name.24")
    parser.add_argument("--every-command", action="store_true", help="for a refused file, too")
    given = parser.parse_args(args)
    part, parts = map(int, given.part.split("/"))
    os.environ |= {"COLUMNS": "80", "TERM": "dumb"}
    chosen: list[Case] = []
    with tempfile.TemporaryDirectory() as root:
        files = Path(root)
        import_all(files)
        usual = make_files(files)
        for file in ("char", "byte", "word", "model"):
            chosen += cases(file, header_of((files / f"{file}.npz").read_bytes()))
        header = header_of((files / "frames.npz").read_bytes())
        chosen += cases("frames", {field: header[field] for field in FRAME_FIELDS})
        if given.field:
            chosen = [case for case in chosen if f".{given.field}." in f".{case.name}."]
        chosen.sort(key=lambda case: zlib.crc32(case.name.encode()))
        work = functools.partial(attack, files, usual, given.every_command)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = [*pool.imap_unordered(work, chosen[part - 1 :: parts], chunksize=5)]
    failures = [failure for _, of_case in results for failure in of_case]
    report(failures)
    total = sum(number for number, _ in results)
    print(f"{len(results):,} files, {total:,} commands, {len(failures):,} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
