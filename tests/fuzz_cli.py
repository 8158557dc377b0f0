"""Run random command lines: each must end with a documented exit code, and in few words.

``python -m tests.fuzz_cli 20000`` runs 20,000 command lines. Each has a seed, and ``1 --seed S``
repeats the one of seed S. Options and their types are read from the command line itself. Every line
runs in a forked process, in a new folder with texts, checkpoints and files that are neither, as one
of two users, with streams that may be closed, full or hung up; files may change while it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import encodings
import functools
import gc
import importlib
import math
import multiprocessing
import os
import pkgutil
import pty
import random
import re
import resource
import select
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import charrnn
from charrnn import cli
from charrnn.formatting import escape_control
from tests.conftest import invoke

MAX_SECONDS = 10.0
MAX_ERROR_LINES = 6
MAX_BYTES = 4 << 30  # of a process: larger models are refused for want of memory
NOBODY = 65534
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7}
SIGNALS = {"HUP": signal.SIGHUP, "INT": signal.SIGINT, "TERM": signal.SIGTERM}
# the most work that a line may ask for; these are also given if the line does not
LIMITS = {"hidden_size": 8, "seq_length": 8, "batch_size": 4, "stop_after": 4, "length": 200}
LIMITS |= {"num_samples": 5, "entries": 5, "lags": 50, "num_layers": 3}
# written by a line that names no output
DEFAULT_TARGETS = {
    "train": r"checkpoints/(\.[^/]*\.npz\.lock|[^/]*\.npz)",
    "report": r"[^/]*\.html",
}
CONTROL = rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]"
OUTPUTS = ("output", "html", "plot")
PRESSED = ("force", "resume", *OUTPUTS)  # options that matter most

BAD_BYTE = os.fsdecode(b"\xff")
NUMBERS = "0 -1 1 2 0.5 nan inf -inf 1e308 1e-308 99999999999999999999 x 64k"
STRINGS = ["", "a", "the", "\n", "é", "한", "\x1b[31m", BAD_BYTE, "x" * 5000, "-", "\u2028", "%s"]
ENCODINGS = "utf-8 latin-1 utf-16 utf-8-sig cp1252 utf-7 idna base64 rot13 undefined"
STRANGE = ["line\nend\x1b[31m", "-dash", BAD_BYTE, "한", "x" * 300, "x" * 5000, ".", "..", "--"]
STRANGE += ["", "-", "missing", "missing/x", "a.txt/x", "readonly/x.npz", "~", "NUL", "./-"]
ENVIRONMENT = {
    "NO_COLOR": ["1", ""],
    "TERM": ["dumb", "", "xterm-256color"],
    "COLORTERM": ["truecolor"],
    "COLUMNS": ["1", "0", "-1", "x", "99999", "40"],
    "PYTHONIOENCODING": ["ascii", "cp1252", "utf-8", "ascii:surrogateescape"],
}
STDIN = "text text text empty binary checkpoint closed terminal hung-up write-only"
STDOUT = "pipe pipe pipe pipe file terminal closed full broken hung-up read-only"

TEXT = "the quick brown fox jumps over the lazy dog; 한글 too.\n" * 30
FILES: dict[str, bytes] = {
    "a.txt": TEXT.encode(),
    "texts/b.txt": b"{ 'b': [1] } /* c */\n" * 30,
    "texts/binary": bytes(range(256)) * 2,
    "empty": b"",
    "one.txt": b"x",
    "cr.txt": b"ab\rc\r" * 40,
    "utf16.txt": TEXT.encode("utf-16"),
    "text.gz": b"\x1f\x8b\x08\0" + bytes(range(256)),
    "text.zip": b"PK\3\4" + bytes(99),
    "unreadable.txt": b"secret\n" * 30,
    "line\nend\x1b[31m.txt": TEXT.encode(),
    "-dash.txt": TEXT.encode(),
    BAD_BYTE + ".txt": TEXT.encode(),
    "old.html": b"old",
    "old.png": b"old",
}
LINKS = {"link.txt": "a.txt", "link.npz": "run.npz", "loop.npz": "loop.npz", "loop": "loop"}
LINKS |= {"dangling.npz": "nowhere.npz", "dangling.txt": "nowhere/x.txt"}
STDIN_DATA = {"text": TEXT.encode(), "empty": b"", "binary": bytes(range(256)) * 9}
STDIN_DATA |= {"checkpoint": b"PK\3\4" + bytes(99)}
FIFOS = ("fifo", "fifo.npz")
SIZE = "-q --hidden-size 8 --seq-length 8 --batch-size 4 --max-steps 6"
RUNS = {
    "run.npz": "a.txt --sample-every 3",
    "part.npz": "a.txt --stop-after 2",
    "checkpoints/a.npz": "a.txt --cell lstm --num-layers 2 --documents line",
    "byte.npz": "texts --unit byte --documents file --val-fraction 0 --test-fraction 0",
    "word.npz": "a.txt --unit word --max-vocab 40",
    "jamo.npz": "a.txt --unit jamo --val-file link.txt --cell vanilla",
}
CHECKPOINTS = [*RUNS, "model.npz"]
TEXTS = ["a.txt", "a.txt", "texts", "texts/b.txt", "-"]
TARGETS = ["new.npz", "new.html", "x/y.npz", "part.npz", "run.npz", "old.html"]
IMAGES = ["new.png", "new.svg", "x/y.pdf", "old.png"]


class Line(NamedTuple):
    """A command line, what surrounds it, and what happens to it while it runs."""

    command: str
    args: list[str]
    env: dict[str, str]
    streams: list[str]  # standard input, output and error
    outputs: list[str]  # the files that it is asked to write
    inputs: list[str]
    forced: bool  # with --force or --resume
    overwrites: bool  # forced, or a command that has no --force
    user: str  # "self"; "owner" or "guest" of the folder, who is not root
    event: tuple[str, str, float]  # what happens, to which file, after how many seconds


Files = dict[str, tuple[int, bytes]]  # mode and content


class Outcome(NamedTuple):
    code: int  # as a shell reports it
    err: bytes
    seconds: float
    changes: list[str]  # of files that the line was not asked to write


# --- the grammar ---


def accepts(kind: Any, value: str) -> bool:
    try:
        kind.convert(value, None, None)
    except click.UsageError:
        return False
    return True


GRIDS = ["hidden_size=3,4", "seed=1,2", "cell=gru,x", "hidden_size=4"]


def path_values(param: click.Parameter, wild: bool) -> list[str]:
    """Return files for an argument or option that names one, by what happens to the file."""
    every = [*FILES, *RUNS, "model.npz", "broken.npz", *LINKS, *STRANGE, "texts", "checkpoints"]
    if param.name in OUTPUTS:
        targets_of = IMAGES if ".png" in (getattr(param, "help", None) or "") else TARGETS
        return [*every, *FIFOS, "/", "/dev/null", "/dev/full"] if wild else targets_of
    if isinstance(param.type, click.Path) or (
        param.nargs == 1 and isinstance(param, click.Argument)
    ):
        return [*every, *FIFOS, "/", "/dev/null", "/dev/zero"] if wild else CHECKPOINTS
    return every if wild else TEXTS  # whose end is not looked for: no device, no pipe


def values(param: click.Parameter, wild: bool) -> list[str]:
    """Return values for a parameter; those that its type refuses too if ``wild``."""
    kind, metavar = param.type, getattr(param, "metavar", None) or ""
    if isinstance(param, click.Argument) or metavar in ("FILE", "CHECKPOINT"):
        return path_values(param, wild)
    if param.name == "grid":
        return [*GRIDS, *STRINGS] if wild else GRIDS
    if isinstance(kind, click.Choice):
        choices = [*kind.choices]
        return [*choices, *map(str.upper, choices), "", "x"] if wild else choices
    found = STRINGS if kind is click.STRING else [*NUMBERS.split(), ""]
    if param.name == "encoding":
        found = [*ENCODINGS.split(), *(STRINGS if wild else [])]
    for bound in (getattr(kind, "min", None), getattr(kind, "max", None)):
        if bound is not None:
            found += [str(bound), str(bound - 1), str(bound + 1)]
    if metavar not in ("", "N"):  # as LAYER:INDEX
        found += [re.sub("[A-Z]+", number, metavar) for number in ("0", "1", "99")]
    return found if wild else [value for value in found if accepts(kind, value)]


def choose(rng: random.Random, param: click.Parameter, wildness: float) -> str | None:
    """Return a value for a parameter, or None for a flag."""
    if getattr(param, "is_flag", False):
        return None
    value = rng.choice(values(param, rng.random() < wildness))
    limit = LIMITS.get(param.name or "", math.inf)
    if limit < math.inf and accepts(param.type, value) and float(value) > limit:
        return str(limit)
    return value


def spell(rng: random.Random, name: str, value: str | None) -> list[str]:
    if value is None:
        return [name]
    joined = f"{name}={value}" if name.startswith("--") else name + value
    return [joined] if rng.random() < 0.3 else [name, value]


def choose_arguments(rng: random.Random, command: click.Command, wildness: float) -> list[str]:
    """Return the values of the arguments of a command."""
    chosen: list[str] = []
    for param in command.params:
        if isinstance(param, click.Argument):
            n = rng.choice([0, 1, 1, 1, 1, 2, 3]) if param.nargs < 0 else rng.random() < 0.9
            chosen += [choose(rng, param, wildness) or "" for _ in range(n)]
            if param.type is click.STRING and param.nargs < 0 and command.name != "train":
                special = [name for name in (*LINKS, *FIFOS, "broken.npz") if ".npz" in name]
                first = rng.choice(special if rng.random() < wildness else CHECKPOINTS)
                chosen = [first, *chosen] if rng.random() < 0.6 else chosen
    return chosen


def choose_options(
    rng: random.Random, command: click.Command, wildness: float, env: dict[str, str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return words for some options of a command, and their values by name; a few go to ``env``."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    weights = [4 if param.name in PRESSED else 1 for param in options]
    path = [command.name or ""] if command is not cli.main else []
    words: list[str] = []
    given: dict[str, list[str]] = {}
    for param in rng.choices(options, weights, k=rng.choice([0, 1, 1, 2, 2, 3, 4, 7])):
        name, value = param.name or "", choose(rng, param, wildness)
        given.setdefault(name, []).append(value or "")
        if rng.random() < 0.1:
            variable = "_".join(["CHARRNN", *path, name]).upper()
            env[variable] = rng.choice(["1", "0", ""]) if value is None else value
        else:
            words += spell(rng, rng.choice(param.opts), value)
    for param in options:
        fixed = param.name != "stop_after" and given.keys() & {"resume", "init_from"}
        if param.name in LIMITS and not any(given.get(param.name, ())) and not fixed:
            words += [f"--{param.name.replace('_', '-')}", str(LIMITS[param.name])]
    return words, given


def generate(seed: int) -> Line:
    """Return the command line of a seed."""
    rng = random.Random(seed)
    commands = [*cli.main.commands.values()]
    command = rng.choice([*commands * 8, *[cli.main.commands["train"]] * 24, cli.main])
    wildness = rng.choice([0, 0, 0, 0.1, 0.3, 1])
    env = {k: rng.choice(v) for k, v in ENVIRONMENT.items() if rng.random() < 0.15}
    words, given = choose_options(rng, command, wildness, env)
    arguments = choose_arguments(rng, command, wildness)
    if rng.random() < 0.03:
        words.append(rng.choice(["--help", "--no-such", "-h", "-q"]))
    orders = [[*words, *arguments], [*arguments, *words], [*words, "--", *arguments]]
    args = rng.choice(orders) if command is cli.main else [command.name or "", *rng.choice(orders)]

    outputs = [value for name in OUTPUTS for value in given.get(name, ()) if value]
    inputs = [*arguments, *(v for name in given.keys() - {*OUTPUTS} for v in given[name] if v)]
    forced = bool(given.keys() & {"force", "resume"})
    overwrites = forced or all(param.name != "force" for param in command.params)
    user = rng.choice(["self", "self", "self", "owner", "guest"])
    if user == "self" and any(output.startswith("/") for output in outputs):
        user = "guest"  # root could replace a device
    normal = rng.random() < 0.6
    streams = [rng.choice(STDIN.split())]
    streams += ["pipe", "pipe"] if normal else rng.choices(STDOUT.split(), k=2)
    event, at = "", rng.choice([name for name in inputs if name in {*FILES, *RUNS}] or [""])
    if rng.random() < 0.2:
        changes = ["truncate", "remove", "rewrite", "folder"] if at else []
        event = rng.choice([*changes, *SIGNALS])
    delay = rng.choice([0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
    name = command.name if command is not cli.main else ""
    changed = (name or "", args, env, streams, outputs, inputs, forced, overwrites, user)
    return Line(*changed, (event, at, delay))


def describe(line: Line) -> str:
    """Return a line as a shell would read it, but for characters that would break it."""
    words = [f"{name}={shlex.quote(value)}" for name, value in line.env.items()]
    words += ["charrnn", *map(shlex.quote, line.args)]
    words = [word if len(word) < 600 else f"{word[:20]}...({len(word)})" for word in words]
    words += (f"{mark}{kind}" for mark, kind in zip(("<", ">", "2>"), line.streams, strict=True))
    event, at, delay = line.event
    words += [f"[{line.user}]", f"[{event} {at} at {delay}]" if event else ""]
    return escape_control(" ".join(words)).rstrip()


# --- the folder ---


def build_template(folder: Path) -> None:
    """Write the files that every line finds; import and draw once what is slow the first time."""
    # the other user may not be able to read Python's files
    for package in (charrnn, click, encodings):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError, AssertionError):  # of another system
                    importlib.import_module(module.name)
    with contextlib.suppress(ImportError):  # before Python 3.11
        importlib.import_module("tomllib")
    for name, data in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(data)
    for name, target in LINKS.items():
        (folder / name).symlink_to(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in RUNS.items():
            invoke(["train", *words.split(), "-o", name, *SIZE.split()])
        invoke(["export", "run.npz", "-o", "model.npz"])
        for ending in ("png", "svg", "pdf"):
            invoke(["plot", "run.npz", "-o", f"x.{ending}"])
            Path(f"x.{ending}").unlink()
        invoke(["report", "run.npz"])
        Path("run.html").unlink()
    for lock in folder.rglob(".*.lock"):
        lock.unlink()
    (folder / "broken.npz").write_bytes((folder / "run.npz").read_bytes()[:2000])
    gc.freeze()


def build_folder(template: Path, folder: Path, user: str) -> None:
    """Copy the template; the owner of the folder and of its files may be another user."""
    shutil.copytree(template, folder, symlinks=True)
    for name in FIFOS:
        os.mkfifo(folder / name)
    (folder / "readonly").mkdir(mode=0o555)
    (folder / "unreadable.txt").chmod(0)
    if user == "owner" and os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.lchown(path, NOBODY, NOBODY)


def snapshot(folder: Path) -> Files:
    """Return the mode and the content of each file in and below a folder."""
    entries = {}
    for path in folder.rglob("*"):
        mode, content = path.lstat().st_mode, b""
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(mode) and os.access(path, os.R_OK):
            content = path.read_bytes()
        entries[str(path)] = (mode, content)
    return entries


def targets(line: Line, folder: Path) -> set[str]:
    """Return the files that a line may write, as paths without links."""
    paths = [Path(os.path.realpath(folder / name)) for name in line.outputs]
    if line.command == "train":
        paths += [path.with_name(f".{path.name}.lock") for path in paths if path.name]
    return set(map(str, paths))


def strays(line: Line, folder: Path, before: Files, allowed: set[str]) -> Iterator[str]:
    """Yield the changes of files that the line was not asked to make."""
    after, default = snapshot(folder.parent), DEFAULT_TARGETS.get(line.command, "(?!)")
    inputs = {os.path.realpath(folder / name) for name in line.inputs}
    touched = line.event[1] and os.path.realpath(folder / line.event[1])
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path) or path == touched:
            continue
        name, old = path.removeprefix(f"{folder}/"), path in before
        unnamed = not line.outputs or "--" in line.args  # which makes options arguments
        asked = path in allowed or (unnamed and re.fullmatch(default, name, re.S))
        if not old and (asked or any(target.startswith(f"{path}/") for target in allowed)):
            continue
        if not asked or path not in after:
            yield f"{'wrote' if not old else 'changed' if path in after else 'removed'} {name!r}"
        elif not line.overwrites:
            yield f"changed {name!r} without --force"
        elif not line.forced and path in inputs:
            yield f"changed {name!r}, which it read"


# --- the process ---


def open_stream(kind: str) -> tuple[int, int]:
    """Return the two ends of a stream, the process's and this one's; -1 for none."""
    devices = {"full": ("/dev/full", os.O_WRONLY), "write-only": (os.devnull, os.O_WRONLY)}
    devices |= {"read-only": (os.devnull, os.O_RDONLY)}
    if kind == "closed":
        return -1, -1
    if kind in devices:
        return os.open(*devices[kind]), -1
    if kind in STDIN_DATA or kind == "file":
        with tempfile.TemporaryFile() as f:
            f.write(STDIN_DATA.get(kind, b""))
            f.seek(0)
            return os.dup(f.fileno()), -1
    here, there = pty.openpty() if kind in ("terminal", "hung-up") else os.pipe()
    if kind == "terminal":
        os.write(here, b"\x04" * 9)  # the end of the input
    if kind in ("hung-up", "broken"):
        os.close(here)
        return there, -1
    return there, here


def enter(line: Line, folder: Path, fds: list[int]) -> None:
    """Make this forked process one that was started in the folder, as a user, with streams."""
    os.setsid()
    os.chdir(folder)
    for number, fd in enumerate(fds):
        os.close(number) if fd < 0 else os.dup2(fd, number)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "HOME": str(folder), **line.env})
    if line.user != "self" and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    encoding, _, errors = line.env.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream, mode = None, "w" if number else "r"
        if fds[number] >= 0:
            how = "backslashreplace" if name == "stderr" else errors or "strict"
            buffering = 1 if name == "stderr" else -1
            stream = open(number, mode, buffering, encoding, how, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["charrnn", *line.args]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())


def interruptible(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function during which Ctrl-C interrupts; it is ignored before and after."""

    def run(group: click.Group, ctx: click.Context) -> Any:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return invoke(group, ctx)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return run


def call_main(args: list[str]) -> int:
    """Call the command line; return the exit code that Python would return."""
    code: Any = 0
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(click.Group, "invoke", interruptible(click.Group.invoke))
            cli.main(args, prog_name="charrnn")
    except SystemExit as e:
        code = e.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    gc.collect()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exception as e:
        print(f"Exception ignored in: {sys.stdout!r}\n{e!r}", file=sys.stderr)
        return 120
    return code if isinstance(code, int) else 1


def fork(line: Line, folder: Path, fds: list[int]) -> int:
    """Start the line in a new process; return its number."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS.values())
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            enter(line, folder, fds)
            code = call_main(line.args)
        except SystemExit as e:  # a signal came after the command
            code = int(e.code or 0)
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())
    return pid


def happen(event: str, path: Path, pid: int) -> None:
    """Send a signal, or change a file."""
    with contextlib.suppress(OSError):
        if event in SIGNALS:
            os.kill(pid, SIGNALS[event])
        elif event == "truncate":
            os.truncate(path, path.stat().st_size // 2)
        elif event == "rewrite":
            path.write_bytes(b"\xff" * 99)
        elif event:
            path.unlink()
            if event == "folder":
                path.mkdir()


def watch(pid: int, line: Line, folder: Path, readers: dict[int, bytes]) -> tuple[int, float]:
    """Read what a process writes until it ends; return its exit code and the seconds it took."""
    event, at, delay = line.event
    began, status, ended, left = time.monotonic(), 0, 0, [*readers]
    while True:
        ended = ended or (done := os.waitpid(pid, os.WNOHANG))[0]
        status = status or done[1]
        seconds = time.monotonic() - began
        ready = select.select(left, [], [], 0 if ended else 0.002)[0]
        for fd in ready:
            data = b""
            with contextlib.suppress(OSError):  # a terminal that nobody writes to any more
                data = os.read(fd, 2**16)
            readers[fd] += data
            if not data:
                left.remove(fd)
        if ended and not ready:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code, seconds
        if event and seconds >= delay:
            happen(event, folder / at, pid)
            event = ""
        if seconds > MAX_SECONDS and not ended:
            os.killpg(pid, signal.SIGKILL)


def run(line: Line, template: Path) -> Outcome:
    """Run a line in a new folder next to the template."""
    folder = template.parent / str(os.getpid()) / "folder"
    build_folder(template, folder, line.user)
    before, allowed = snapshot(folder.parent), targets(line, folder)
    streams = [open_stream(kind) for kind in line.streams]
    readers = {here: b"" for _, here in streams[1:] if here >= 0}
    log = streams[2][0] if line.streams[2] == "file" else -1
    pid = fork(line, folder, [there for there, _ in streams])
    for there, _ in streams:
        if there >= 0 and there != log:
            os.close(there)
    try:
        code, seconds = watch(pid, line, folder, readers)
        err = os.pread(log, 2**20, 0) if log >= 0 else readers.get(streams[2][1], b"")
        changes = [*strays(line, folder, before, allowed)] if seconds <= MAX_SECONDS else []
        return Outcome(code, err, seconds, changes)
    finally:
        for fd in (log, *(here for _, here in streams)):
            if fd >= 0:
                os.close(fd)
        shutil.rmtree(folder.parent)


# --- the verdict ---


def failures(line: Line, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong with the end of a line."""
    code, err, shown = outcome.code, outcome.err, line.streams[2] in ("pipe", "file", "terminal")
    killed = {128 + SIGNALS[line.event[0]]} if line.event[0] in SIGNALS else set()
    if outcome.seconds > MAX_SECONDS:
        yield f"took more than {MAX_SECONDS:g} s"
    elif code not in DOCUMENTED | killed:
        yield f"exit code {code}"
    if found := re.search(rb"Traceback|\w*Warning:|Exception ignored", err):
        yield f"{found[0].decode()}: {err[-400:].decode(errors='replace')!r}"
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", err) if "always" in line.args else err
    if line.streams[2] != "terminal" and (raw := re.search(CONTROL, plain)):
        yield f"raw control character: {err[max(0, raw.start() - 80) : raw.end() + 20]!r}"
    if code in DOCUMENTED - {0} and shown and line.command:  # without a command: the help
        message = re.split(rb"^(?=charrnn: |Usage: )", err, flags=re.M)[-1].splitlines()
        if not 0 < len(message) <= MAX_ERROR_LINES:
            yield f"error of {len(message)} lines: {err[-400:]!r}"
    yield from outcome.changes


def attempt(seed: int, template: Path, events: bool) -> tuple[str, int, list[str]]:
    """Run the line of a seed; return its command, its exit code, and its failures."""
    line = generate(seed)
    if not events:
        line = line._replace(event=("", "", 0.0))
    outcome = run(line, template)
    found = [f"seed {seed}: {failure}\n    {describe(line)}" for failure in failures(line, outcome)]
    return line.command, outcome.code, found


def fuzz(
    n: int, seed: int, events: bool = True, workers: int = 2
) -> tuple[Counter[tuple[str, int]], list[str]]:
    """Run ``n`` lines; return the counts of commands and exit codes, and the failures."""
    counts: Counter[tuple[str, int]] = Counter()
    failed: list[str] = []
    with folder_with_template() as template, multiprocessing.get_context("fork").Pool(workers) as p:
        run_seed = functools.partial(attempt, template=template, events=events)
        for command, code, found in p.imap(run_seed, range(seed, seed + n), 8):
            counts[command, code] += 1
            failed += found
    return counts, failed


@contextlib.contextmanager
def folder_with_template() -> Iterator[Path]:
    """Build the template in a temporary folder, in memory if the system has such a folder."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        root = Path(os.path.realpath(name))
        root.chmod(0o755)
        build_template(root / "template")
        yield root / "template"


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_cli", description=__doc__)
    parser.add_argument("n", type=int, help="number of command lines")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    help = "without signals and changes of files, which come at no exact moment"
    parser.add_argument("--repeatable", action="store_true", help=help)
    given = parser.parse_args(args)
    counts, failed = fuzz(given.n, given.seed, not given.repeatable)
    for failure in failed:
        print(failure)
    for command in sorted({command for command, _ in counts}):
        codes = sorted((code, n) for (name, code), n in counts.items() if name == command)
        print(f"{command or '(none)':10}", *(f"{code}: {n:,}" for code, n in codes), sep="  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
