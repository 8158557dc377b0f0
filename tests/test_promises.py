"""What the README promises of runs and texts, in processes of their own: what ends a run, and what comes in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charrnn
from charrnn import checkpoint
from charrnn.errors import UnknownCharacterError
from tests.conftest import CHARRNN, ENV, Cli, on_a_terminal

QUICK = ("--hidden-size", "12", "--max-steps", "12", "--seq-length", "16", "--batch-size", "8")
LONG = ("--hidden-size", "12", "--max-steps", "400", "--seq-length", "16", "--batch-size", "8", "--eval-every", "50")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are POSIX's")


def files_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, without the lock file, which stays."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


@pytest.fixture
def corpus(tmp_path: Path, text: str) -> Path:
    (tmp_path / "corpus.txt").write_text(text)
    return tmp_path / "corpus.txt"


def started(tmp_path: Path, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*CHARRNN, "train", "corpus.txt", *args], cwd=tmp_path, stderr=subprocess.PIPE, **options)


def until(process: subprocess.Popen[bytes], what: bytes) -> None:
    """Read what the process says until it says this."""
    assert process.stderr
    for line in process.stderr:
        if what in line:
            return
    raise AssertionError(what)


def same(a: Path, b: Path) -> None:
    (x, xs), (y, ys) = checkpoint.load(a), checkpoint.load(b)
    assert all(xs[name].tobytes() == ys[name].tobytes() for name in xs)
    for header in (x, y):
        for key in ("train_seconds", "command", "sha256"):
            del header[key]
        for row in header["history"]:
            del row["seconds"]
    assert x == y


# --- What ends a run. ---


@posix
@pytest.mark.parametrize(("number", "rc"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_a_save(cli: Cli, corpus: Path, tmp_path: Path, number: int, rc: int) -> None:
    cli("train", "corpus.txt", *LONG, "-q", "-o", "whole.npz")
    with started(tmp_path, *LONG, env=ENV) as process:
        until(process, b"initial loss")
        process.send_signal(number)
        assert process.stderr
        err = process.stderr.read().decode()
        assert process.wait(60) == rc
    assert "Traceback" not in err
    stopped = re.search(r"stopped at step (\d+) of 400; checkpoints/corpus.npz was saved at step (\d+)\n", err)
    assert stopped
    assert stopped[1] == stopped[2]
    assert err.endswith("resume with: charrnn train corpus.txt --resume\n")
    run = tmp_path / "checkpoints" / "corpus.npz"
    assert checkpoint.read_header(run)["step"] == int(stopped[1]) < 400
    assert files_in(run.parent) == ["corpus.npz"]
    cli("train", "corpus.txt", "--resume", "-q")
    same(run, tmp_path / "whole.npz")


@posix
def test_a_second_ctrl_c_ends_it_at_once(corpus: Path, tmp_path: Path) -> None:
    # a window takes many seconds: the first one waits for its end
    sizes = ["--hidden-size", "700", "--num-layers", "2", "--cell", "lstm", "--seq-length", "5000", "--batch-size", "1"]
    run = tmp_path / "checkpoints" / "corpus.npz"
    with started(tmp_path, *sizes, env=ENV) as process:
        while not run.exists():
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert time.monotonic() - began < 1
    assert checkpoint.read_header(run)["step"] == 0


@posix
def test_a_signal_while_the_text_is_read(tmp_path: Path) -> None:
    for number, rc in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        command = [*CHARRNN, "train", "-", "-o", "run.npz"]
        with subprocess.Popen(command, cwd=tmp_path, env=ENV, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not (tmp_path / ".run.npz.lock").exists():
                time.sleep(0.01)
            time.sleep(0.5)
            process.send_signal(number)
            assert process.wait(60) == rc
            assert process.stderr
            assert b"Traceback" not in process.stderr.read()
        assert files_in(tmp_path) == []


@posix
def test_a_signal_that_the_shell_ignores_is_ignored(corpus: Path, tmp_path: Path) -> None:
    """So does a shell without job control for what it runs in the background, and so does nohup."""
    options = " ".join(LONG)
    command = ["sh", "-c", f"trap '' INT; exec {sys.executable} -m charrnn train corpus.txt {options}"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE) as process:
        until(process, b"initial loss")
        process.send_signal(signal.SIGINT)
        assert process.stderr
        process.stderr.read()
        assert process.wait(60) == 0


@posix
def test_a_second_training_of_the_run_is_refused(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    with started(tmp_path, *LONG[:2], "--max-steps", "100000", env=ENV) as process:
        until(process, b"initial loss")
        for more in ("--resume", "--force"):
            began = time.monotonic()
            err = cli("train", "corpus.txt", more, rc=4).stderr.decode()
            assert time.monotonic() - began < 5
            assert re.fullmatch(
                rf"charrnn: checkpoints/corpus.npz: already being trained by process {process.pid} on \S+ "
                r"\(.*train corpus.txt .*\); use -o FILE to train a separate run\n",
                err,
            )
        process.kill()
    # a dead one's lock does not stay
    cli("train", "corpus.txt", "--resume", "--stop-after", "1")
    assert files_in(tmp_path / "checkpoints") == ["corpus.npz"]


@pytest.fixture(params=["limit", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[int, bool], None]]]:
    """A folder, and what makes it full, or no longer, for a process."""
    if sys.platform != "linux":
        pytest.skip("limits of another process, and tmpfs, are Linux's")
    import resource

    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":

        def full(pid: int, yes: bool) -> None:
            resource.prlimit(
                pid, resource.RLIMIT_FSIZE, (1000 if yes else resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )

        yield folder, full
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("to mount a file system takes rights that are not there")

    def fill(_: int, yes: bool) -> None:
        (folder / "filler").unlink(missing_ok=True)
        if yes:
            with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as f:
                while True:
                    f.write(bytes(1000))

    yield folder, fill
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("again", [True, False])
def test_a_full_disk_loses_nothing(
    cli: Cli, corpus: Path, tmp_path: Path, disk: tuple[Path, Callable[[int, bool], None]], again: bool
) -> None:
    """Saves fail while the disk is full: the old file stays whole, training goes on, and the exit code tells."""
    folder, full = disk
    run = folder / "run.npz"
    cli("train", "corpus.txt", *LONG, "-q", "-o", "whole.npz")
    with started(tmp_path, *LONG, "-o", str(run), "--save-every", "0.02", "-q", env=ENV) as process:
        while not run.exists():
            time.sleep(0.01)
        full(process.pid, True)
        until(process, b"could not be saved (")
        held = checkpoint.read_header(run)["step"]
        until(process, b"could not be saved (")
        assert checkpoint.load(run)[0]["step"] == held < 400
        if again:
            full(process.pid, False)
        assert process.stderr
        err = process.stderr.read().decode()
        rc = process.wait(60)
    assert "Traceback" not in err
    if not again:
        assert rc == 7
        assert re.search(
            r"charrnn: \S+run.npz: could not be saved \((no space left on device|file too large)\)\n$", err
        )
        assert checkpoint.load(run)[0]["step"] == held
        (folder / "filler").unlink(missing_ok=True)
        cli("train", "corpus.txt", "-o", run, "--resume", "-q")
    else:
        assert rc == 0
    same(run, tmp_path / "whole.npz")
    assert files_in(folder) == ["run.npz"]


def test_a_folder_that_goes_away(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    """The folder is made again: a user who has moved it finds the run in a new one."""
    with started(tmp_path, *LONG, "--save-every", "0.02", env=ENV) as process:
        until(process, b"initial loss")
        (tmp_path / "checkpoints").rename(tmp_path / "moved")
        assert process.stderr
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) == 0
    assert checkpoint.read_header(tmp_path / "checkpoints" / "corpus.npz")["finished"]
    assert not checkpoint.load(tmp_path / "moved" / "corpus.npz")[0]["finished"]


def test_a_changed_text_is_refused_and_may_begin_another_run(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    cli("train", "corpus.txt", *QUICK)
    size = corpus.stat().st_size
    corpus.write_text(corpus.read_text() + "Ünd.\n")
    err = cli("train", "corpus.txt", "--resume", rc=4).stderr.decode()
    run = "checkpoints/corpus.npz"
    assert err == (
        f"charrnn: {run}: trained on another text: corpus.txt changed from {size:,} to {size + 6:,} bytes; "
        f"--init-from {run} with -o FILE trains a new run on this one, from its weights on\n"
    )
    err = cli("train", "corpus.txt", "--init-from", run, "-o", "new.npz", *QUICK[2:]).stderr.decode()
    known = len(charrnn.load(tmp_path / run).vocabulary)
    assert f"weights from {run}: {known} symbols matched, 2 ('dÜ') added, 0 of the model's unused here\n" in err or (
        f"weights from {run}: {known} symbols matched, 1 ('Ü') added, 0 of the model's unused here\n" in err
    )


def test_init_from_takes_over_what_is_known(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    cli("train", "corpus.txt", "--hidden-size", "16", "--max-steps", "300", "--cell", "lstm", "-o", "old.npz", "-q")
    cli("export", "old.npz", "-o", "old-weights.npz")
    (tmp_path / "other.txt").write_text("# the queen of the sea shall come é\n" * 100)
    cli("train", "other.txt", "--max-steps", "1", "--hidden-size", "16", "--cell", "lstm", "-o", "fresh.npz", "-q")
    old = charrnn.load(tmp_path / "old.npz")
    for name in ("old", "old-weights"):
        begin = ("--init-from", f"{name}.npz", "--max-steps", "3", "--lr", "0")
        cli("train", "other.txt", *begin, "-o", f"{name}-new.npz", "-q")
        new = charrnn.load(tmp_path / f"{name}-new.npz")
        assert new.vocabulary.symbols == "".join(sorted({*old.vocabulary.symbols, "é", "#"}))
        for symbol in old.vocabulary.symbols:
            i, j = (v.symbols.index(symbol) for v in (old.vocabulary, new.vocabulary))
            assert (new.stack.p["0.Wxh"][:, j] == old.stack.p["0.Wxh"][:, i]).all()
            assert (new.stack.p["Why"][j] == old.stack.p["Why"][i]).all()
        assert (new.stack.p["0.Whh"] == old.stack.p["0.Whh"]).all()
        origin = checkpoint.read_header(tmp_path / f"{name}-new.npz")["init_from"]
        assert origin["file"] == f"{name}.npz"
        unused = len(set(old.vocabulary.symbols) - set((tmp_path / "other.txt").read_text()))
        assert (origin["added"], origin["unused"]) == (2, unused)
        # it knows what it has learned
        first, fresh = (checkpoint.read_header(tmp_path / f"{n}.npz")["initial_loss"] for n in (f"{name}-new", "fresh"))
        assert first < 0.7 * fresh
    err = cli("train", "other.txt", "--init-from", "old.npz", "--hidden-size", "17", "-o", "x.npz", rc=2).stderr
    assert b"hidden_size is 16 in the model that this one begins from, and cannot be 17" in err
    assert b"no such file" in cli("train", "other.txt", "--init-from", "no.npz", "-o", "x.npz", rc=4).stderr
    # the run is resumed without the file that it began from
    args = ("--init-from", "old.npz", "--max-steps", "6")
    cli("train", "other.txt", *args, "-o", "a.npz", "-q")
    cli("train", "other.txt", *args, "-o", "b.npz", "-q", "--stop-after", "2")
    (tmp_path / "old.npz").unlink()
    cli("train", "other.txt", "-o", "b.npz", "--resume", "-q")
    same(tmp_path / "a.npz", tmp_path / "b.npz")


# --- Surroundings. ---


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "xx"},
        {"TZ": "Pacific/Kiritimati"},
        {"TZ": "no such zone"},
        {"TERM": "dumb", "COLUMNS": "20"},
        {"NO_COLOR": "1", "TERM": ""},
    ],
    ids=str,
)
def test_surroundings_change_nothing(cli: Cli, tmp_path: Path, env: dict[str, str]) -> None:
    text = "naïve 한국어 👩‍👩‍👧\r\n" * 300
    (tmp_path / "für.txt").write_bytes(text.encode())
    cli("train", "für.txt", *QUICK, "-q", "-o", "plain.npz")
    err = cli("train", "für.txt", *QUICK, "-o", "run.npz", env=env).stderr
    assert err
    same(tmp_path / "plain.npz", tmp_path / "run.npz")
    args = ("run.npz", "--length", "50", "--seed", "1", "--prime", "한국")
    assert cli("sample", *args, env=env).stdout == cli("sample", *args).stdout
    assert json.loads(cli("info", "--json", "run.npz", env=env).stdout)["corpus"]["files"][0][0].endswith(".txt")


@posix
def test_without_a_home_with_another_umask_in_a_folder_that_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.umask(old := os.umask(0o077))
    env = {k: v for k, v in ENV.items() if k != "HOME"}
    command = [*CHARRNN, "train", str(corpus), *QUICK, "-q", "-o", str(tmp_path / "out" / "run.npz")]
    try:
        os.umask(0o077)
        subprocess.run(command, cwd="/proc" if Path("/proc").exists() else "/", env=env, check=True)
    finally:
        os.umask(old)
    assert (tmp_path / "out" / "run.npz").stat().st_mode & 0o777 == 0o600
    # here nothing can be written, and that is said at once
    done = subprocess.run(
        [*CHARRNN, "train", corpus, *QUICK], cwd="/proc", env=env, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 7
    assert re.fullmatch(rb"charrnn: checkpoints/corpus.npz: could not be saved \(.*\)\n", done.stderr)


@posix
def test_the_clock_may_be_wrong(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    cli("train", "corpus.txt", *QUICK, "--stop-after", "5")
    os.utime(tmp_path / "checkpoints" / "corpus.npz", (0, 0))
    os.utime(corpus, (2**33, 2**33))
    cli("train", "corpus.txt", "--resume")
    cli("sample", "--length", "5")


@posix
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_terminal_of_20_columns(corpus: Path, tmp_path: Path, term: str) -> None:
    shown, _ = on_a_terminal([*CHARRNN, "train", "corpus.txt", *QUICK], tmp_path, {**ENV, "TERM": term}, 5, 20)
    assert b"Traceback" not in shown
    bars = [part for part in re.split(rb"[\r\n]", shown) if b"%|" in part]
    assert all(len(part.decode()) <= 20 for part in bars)


# --- Every text. ---


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
@pytest.mark.parametrize("by", [(), ("--documents", "line"), ("--documents", "file")])
@pytest.mark.parametrize(
    "text",
    [
        "ab",
        "\n\n",
        "a\nb",
        "x" * 31,
        "a" * 10_000,
        "한글\n" * 40,
        "가" * 200,
        "\0\1\2" * 100,
        "שלום 👩‍👩‍👧 e\u0301\r\n" * 20,
    ],
    ids=lambda text: f"{text[:3]!r}x{len(text)}",
)
def test_every_text_trains_resumes_and_is_drawn(tmp_path: Path, text: str, by: tuple[str, ...], unit: str) -> None:
    path = tmp_path / "run.npz"
    options: dict[str, Any] = {"unit": unit, "documents": by[1] if by else None, "hidden_size": 8, "max_steps": 3}
    model = charrnn.train(text, output=path, **options)
    assert np.isfinite(model.header["history"][-1]["train_loss"])
    drawn = "".join(model.sample(20, seed=0))
    assert len(drawn) <= 20
    again = charrnn.load(path)
    assert "".join(again.sample(20, seed=0)) == drawn
    nats = again.score(text)
    assert len(nats) == (len(text.encode()) if unit == "byte" else len(text))
    assert (nats >= 0).all()
    if not by and len(set(text)) > 1 and unit != "byte":
        begun = "".join(again.sample(20, seed=0, prime=text[:30]))
        assert set(begun) <= {*text, *"".join(map(chr, range(0x1100, 0x1200))), *map(chr, range(0xAC00, 0xD7A4))}


@pytest.mark.parametrize(("text", "what"), [("", "is empty"), ("a", "has a single character")])
@pytest.mark.parametrize("by", [(), ("--documents", "file")])
def test_a_text_of_nothing(cli: Cli, text: str, by: tuple[str, ...], what: str) -> None:
    err = cli("train", "-", *by, stdin=text.encode(), rc=3).stderr.decode()
    assert err == f"charrnn: stdin {what}; at least two characters are required\n"


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
def test_half_a_surrogate_pair_in_a_prime_or_a_stop(unit: str) -> None:
    model = charrnn.train("some text\n" * 30, hidden_size=4, max_steps=1, unit=unit)
    assert len("".join(model.sample(5, prime="t\ud800", unknown="skip", until="\udfff"))) == 5
    with pytest.raises(UnknownCharacterError):
        model.sample(5, prime="t\ud800")


@pytest.mark.parametrize("max_steps", [3])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=3, max_size=60), unit=st.sampled_from(["char", "jamo"]))
def test_any_text_of_unicode(tmp_path_factory: pytest.TempPathFactory, text: str, unit: str, max_steps: int) -> None:
    path = tmp_path_factory.mktemp("any") / "run.npz"
    model = charrnn.train(text, output=path, hidden_size=4, max_steps=max_steps, unit=unit)
    v = charrnn.load(path).vocabulary
    assert v.decode(v.encode(text)) == text
    until = "".join(model.sample(5, seed=1))[-1:]
    if until:  # whatever it is: the text ends with it
        assert "".join(model.sample(1000, seed=1, until=until)).endswith(until)
    header = checkpoint.read_header(path)
    assert json.loads(json.dumps(header)) == header
    assert len(model.score(text)) == len(text)
    assert "".join(model.sample(3, prime=text, seed=0)) == "".join(model.sample(3, prime=text, seed=0))


def test_files_that_cannot_be_read(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty folder").mkdir()
    assert b"empty folder: contains no text files" in cli("train", "empty folder", rc=3).stderr
    if hasattr(os, "getuid") and os.getuid():
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "secret").chmod(0)
        assert b"secret: permission denied" in cli("train", "secret", rc=3).stderr
    assert b"file name too long" in cli("train", "x" * 300, "-o", "run.npz", rc=3).stderr
    assert b"no such file" in cli("train", "nothing.txt", rc=3).stderr
    assert files_in(tmp_path / "checkpoints") == []


@posix
def test_a_fifo_and_standard_input_by_its_name(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["sh", "-c", "cat corpus.txt > fifo"], cwd=tmp_path):
        cli("train", "fifo", *QUICK, "-q")
    cli("train", "corpus.txt", *QUICK, "-q")
    folder = tmp_path / "checkpoints"
    assert (folder / "fifo.npz").stat().st_size > 0
    assert (
        charrnn.load(folder / "fifo.npz").stack.p.vector == charrnn.load(folder / "corpus.npz").stack.p.vector
    ).all()
    cli("train", "/dev/stdin", *QUICK, "-q", "-o", "stdin.npz", stdin=corpus.read_bytes(), env={})
    command = ["sh", "-c", f"{sys.executable} -m charrnn train /dev/stdin <&-"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert done.stderr == b"charrnn: stdin is empty; at least two characters are required\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the memory that a process took is another elsewhere")
def test_a_text_of_200_mb_on_one_line_needs_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "line.txt").open("wb") as f:
        for _ in range(200):
            f.write(b"one line without an end. " * 40_000)
    # by way of a small process: one begun by this one would count its memory too
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", measure, *CHARRNN, "train", "line.txt", *QUICK, "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < 200_000
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"line.npz", ".line.npz.lock"}
    assert checkpoint.read_header(tmp_path / "checkpoints" / "line.npz")["corpus"]["bytes"] == 200_000_000


def test_units_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    text = "그는 갔다. 나는 왔다.\r\n" * 60
    (tmp_path / "ko.txt").write_bytes(text.encode())
    cli("train", "ko.txt", "--unit", "byte", *QUICK, "-o", "byte.npz", "-q")
    out = cli("sample", "byte.npz", "--length", "50", "--prime", "한", "--unknown", "skip", "--seed", "1").stdout
    assert out.startswith("한".encode())
    assert len(out) == 3 + 50
    assert set(out[3:]) <= set(text.encode())
    (tmp_path / "any.bin").write_bytes(bytes(range(256)) * 20)
    err = cli("train", "any.bin", rc=3).stderr.decode()
    assert "any.bin: invalid UTF-8 at offset 128, line 2 (bytes 80 81 82 83); specify the encoding" in err
    cli("train", "any.bin", "--unit", "byte", *QUICK, "-q")
    cli("train", "any.bin", "--encoding", "latin-1", *QUICK, "-q", "-o", "latin.npz")
    out = cli("sample", "checkpoints/any.npz", "--prime-file", "any.bin", "--length", "10").stdout
    assert out.startswith(bytes(range(256)) * 20)
    err = cli("train", "ko.txt", "--unit", "jamo", *QUICK, "-o", "jamo.npz").stderr.decode()
    assert " distinct symbols, 1.8" in err
    syllables = cli("sample", "jamo.npz", "--length", "30", "--prime", "그는 왔", "--seed", "1").stdout.decode()
    assert syllables.startswith("그는 왔")
    assert len(syllables) == 4 + 30


def test_lines_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    names = "".join(f"{a}{b}{c}\n" for a in "mnt" for b in "aeio" for c in ("", "la", "ran", "dorella") for _ in "ab")
    (tmp_path / "names.txt").write_text(names)
    err = cli("train", "names.txt", "--documents", "line", "--max-steps", "400", "--hidden-size", "32").stderr.decode()
    assert re.search(r"\d+ lines to train on, each begun afresh; \d+ windows to an epoch\n", err)
    out = cli("sample", "--num-samples", "30", "--seed", "1", "--temp", "0.5").stdout.decode()
    lines = out.splitlines()
    assert len(lines) == 30
    assert out.endswith("\n")
    assert len(set(lines) & set(names.split())) > 5
    by_nul = cli("sample", "-0", "--num-samples", "30", "--seed", "1", "--temp", "0.5").stdout.decode()
    assert by_nul.split("\0") == lines
    begun = cli("sample", "--num-samples", "9", "--prime", "mado", "--temp", "0.3").stdout.decode().splitlines()
    assert len(begun) == 9
    assert all(line.startswith("mado") for line in begun)
    cut = cli("sample", "--num-samples", "5", "--length", "1", "--seed", "0").stdout.decode()
    assert len(cut.splitlines()) == 5
    assert all(len(line) <= 1 for line in cut.splitlines())


def test_documents_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "poems").mkdir()
    for i in range(40):
        (tmp_path / "poems" / f"{i}.txt").write_text(f"one {i % 3}\ntwo\nthree\n")
    cli("train", "poems", "--documents", "file", "--max-steps", "400", "--hidden-size", "32", "-q", "--lr", "0.02")
    out = cli("sample", "-0", "--num-samples", "20", "--seed", "1", "--temp", "0.3").stdout.decode().split("\0")
    assert len(out) == 20
    whole = [text for text in out if re.fullmatch(r"one \d\ntwo\nthree\n", text)]
    assert len(whole) > 15


def test_rare_characters_and_large_vocabularies(cli: Cli, tmp_path: Path) -> None:
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 2500)))
    line = "the common text of a few letters\n"
    (tmp_path / "many.txt").write_text(line * 300 + rare, encoding="utf-8")
    known = len(set(line))
    err = cli("train", "many.txt", *QUICK, "-o", "all.npz").stderr.decode()
    assert re.search(rf"{2500 + known:,} symbols take \d+% of the parameters, .*--max-vocab N or --min-count N", err)
    for options in (("--min-count", "2"), ("--max-vocab", str(known + 1))):
        err = cli("train", "many.txt", *QUICK, *options, "-o", "few.npz", "--force").stderr.decode()
        share = 2500 / (300 * 33 + 2500)
        assert f"2,500 rare symbols, {share:.2%} of the text, are read as one unknown symbol" in err
        model = charrnn.load(tmp_path / "few.npz")
        assert len(model.vocabulary) == known + 1
        # however hot: it is never drawn
        assert "\ufffd" not in "".join(model.sample(3000, temp=1e6, seed=0))
        out = cli("sample", "few.npz", "--prime", "丁 of ", "--length", "5").stdout.decode()
        assert out.startswith("丁 of ")
