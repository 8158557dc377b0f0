"""Hostile surroundings: streams, outputs, names, headers, limits and numbers."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn import scoring
from charrnn.analysis.gradients import check_gradients
from charrnn.cli import main
from charrnn.cli.common import Number
from charrnn.errors import CheckpointError, SaveError, TextError
from charrnn.storage import checkpoint
from charrnn.storage.output import replace_file
from tests import forge
from tests.conftest import CHARRNN, ENV, QUICK, Cli, posix, read_run

COMMAND = shlex.join(CHARRNN)
ESCAPES = "\x1b[31m", "\x9b31m", "a\nb", "\u202e"


def shell(script: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in the current folder, in which ``charrnn`` is this program."""
    script = f'charrnn() {{ {COMMAND} "$@"; }}\n{script}'
    command, env = ["bash", "-c", script], {**ENV, **env}
    done = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in done.stderr
    return done


# --- streams ---


@posix
@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&-", "2> >(true)", "<&- >&- 2>&-"])
def test_training_continues_without_a_voice(cli: Cli, corpus: Path, lost: str) -> None:
    assert shell(f"charrnn train corpus.txt {shlex.join(QUICK)} {lost}").returncode == 0
    assert read_run(Path("checkpoints/corpus.npz")).finished


@posix
@pytest.mark.parametrize("command", ["--help", "--version", "info", "sample -n 9", "train --help"])
@pytest.mark.parametrize(
    "streams", [">/dev/full", ">&-", ">/dev/full 2>/dev/full", ">&- 2>&-", "| true", "<&- 2>&-"]
)
def test_every_stream_may_be_closed_or_full(run: Path, command: str, streams: str) -> None:
    os.chdir(run.parent.parent)
    code = shell(f"set -o pipefail; charrnn {command} {streams}").returncode
    assert code in ((0,) if "|" in streams or streams[0] == "<" else (0, 7))
    if streams == ">/dev/full":
        assert code == 7


@posix
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_standard_output_cannot_show_is_escaped(
    cli: Cli, tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "αβ.txt").write_text("αβγ 한글\n" * 200)
    cli("train", "αβ.txt", *QUICK, "-q", "-o", "αβ.npz")
    for command in ("info {}", "eval {} αβ.txt", "show {} αβ.txt", "overlap {} αβ.txt -n 50"):
        args = command.format("αβ.npz").split()
        out = cli(*args, env={"PYTHONIOENCODING": encoding}).stdout
        assert rb"\u03b1" in out


# --- outputs ---


@pytest.mark.parametrize(
    "command",
    [
        "show {run} corpus.txt --html",
        "report {run} -o",
        "plot {run} -o",
        "export {run} -o",
        "export {run} --html",
        "gradflow {run} corpus.txt --lags 2 --plot",
    ],
)
def test_output_is_overwritten_only_by_force_and_never_an_input(
    cli: Cli, run: Path, command: str
) -> None:
    args, out = command.format(run=run).split(), Path("out.png")
    cli(*args, out)
    data = out.read_bytes()
    assert b"use --force" in cli(*args, out, rc=2).stderr
    assert out.read_bytes() == data
    before = run.read_bytes()
    assert b"is read by this command" in cli(*args, run, "--force", rc=2).stderr
    assert run.read_bytes() == before
    cli(*args, out, "--force")


@posix
@pytest.mark.parametrize("command", ["train corpus.txt -o {}", "export {run} -o {}"])
def test_only_regular_files_are_replaced(cli: Cli, run: Path, command: str) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    for name in "pipe", "loop", "/dev/null", ".", "/":
        err = cli(*command.format(name, run=run).split(), "--force", rc=2).stderr
        assert b"name a" in err
        assert err.count(b"\n") == 1
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)
    assert Path("loop").is_symlink()


@posix
def test_save_keeps_link_mode_and_lock_of_its_target(cli: Cli, run: Path) -> None:
    real = Path("real.npz")
    shutil.move(run, real)
    real.chmod(0o600)
    run.symlink_to("../real.npz")
    cli("train", "corpus.txt", "--resume", "--max-steps", "40")
    assert run.is_symlink()
    assert read_run(real).step == 40
    assert real.stat().st_mode & 0o777 == 0o600


@posix
def test_temporary_file_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / ".x.guessed.tmp").symlink_to("victim")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    with pytest.raises(SaveError), replace_file(tmp_path / "x") as f:
        f.write(b"new")
    assert (tmp_path / "victim").read_bytes() == b"old"


# --- headers ---


def strings(value: Any) -> list[tuple[Any, Any]]:
    """Return each dict or list in a header, with each of its keys that has a string."""
    if not isinstance(value, (dict, list)):
        return []
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, item in items if type(item) is str]
    return found + [pair for _, item in items for pair in strings(item)]


def test_escapes_in_no_field_reach_the_terminal(cli: Cli, run: Path, tmp_path: Path) -> None:
    data = run.read_bytes()
    n = len(strings(forge.header_of(data)))
    for i in range(n):
        header = forge.header_of(data)
        header["notes"] = ["note"]
        place, key = strings(header)[i]
        place[key] = "".join(ESCAPES)
        header["baselines"]["val"]["\x1b[31m"] = 0.1
        run.write_bytes(forge.sealed(data, header))
        for args in (["info"], ["plot", "--terminal"], ["eval", "--split", "val"]):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TERM", "dumb")
                done = run_any([*args, str(run)])
            assert not set(ESCAPES) & set(done.decode())
            assert not any(escape in done.decode() for escape in ESCAPES)


def run_any(args: list[str]) -> bytes:
    """Run a command that may fail in this process; return all that it prints."""
    out = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in "stdout", "stderr":
            stream = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit):
            main(args)
        return out.getvalue()


HOSTILE: list[tuple[str, Any]] = [
    ("nonfinite_events", [{"step": 2**62, "reason": "x", "restored": True}]),
    ("nonfinite_events", [{"step": 8, "reason": "x", "restored": True}]),
    ("history", [forge.RUN["history"][0] | {"step": 0}]),
    ("history", [forge.RUN["history"][0] | {"train_loss": 1.7e308}]),
    ("corpus", forge.RUN["corpus"] | {"files": [], "num_files": 0}),
    ("corpus", forge.RUN["corpus"] | {"files": [("a\0b", 1, 1)]}),
    ("config", {"unit": "jamo", "hidden_size": 3, "epochs": 1e308}),
    ("config", {"unit": "byte", "hidden_size": 3}),
    ("samples", [{"step": 9, "text": ""}]),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_every_field_is_checked_by_its_meaning(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "x.npz"
    checkpoint.write_checkpoint(path, forge.run_state(), forge.ARRAYS)
    header = forge.header_of(path.read_bytes()) | {key: value}
    path.write_bytes(forge.sealed(path.read_bytes(), header))
    with pytest.raises(CheckpointError, match="damaged: invalid ") as e:
        charrnn.load(path)
    assert str(e.value).isprintable()


# --- options ---


def number_options() -> list[tuple[str, str]]:
    return [
        (name, param.opts[-1])
        for name, command in main.commands.items()
        for param in command.params
        if isinstance(param.type, Number)
    ]


@pytest.mark.parametrize(("command", "option"), number_options())
def test_number_must_be_finite(cli: Cli, command: str, option: str) -> None:
    for value in ("nan", "inf", "-inf"):
        assert b"Error: Invalid value for" in cli(command, f"{option}={value}", "x", rc=2).stderr


def test_counts_are_bounded_and_many_samples_are_streamed(cli: Cli, run: Path) -> None:
    cli("sample", "--length", "9" * 20, rc=2)
    args = ("sample", run, "-n", "1", "--seed", "3", "-0", "--num-samples")
    texts = cli(*args, "1100").stdout.split(b"\0")
    assert len(texts) == 1100
    assert shell(f"charrnn {shlex.join(map(str, args))} {10**15} | head -c 9").returncode == 0


@pytest.mark.parametrize("name", ["LR", "LEARNING_RATE"])
def test_every_name_of_an_option_is_a_variable(
    cli: Cli, corpus: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"CHARRNN_TRAIN_{name}", "0.125")
    cli("train", "corpus.txt", *QUICK, "-q")
    assert read_run(Path("checkpoints/corpus.npz")).config.learning_rate == 0.125


# --- names ---


@posix
@pytest.mark.parametrize("name", ["-x.txt", "a\nb.txt", "it's.txt", os.fsdecode(b"\xff.txt")])
def test_printed_command_and_recorded_name_find_the_file(cli: Cli, corpus: Path, name: str) -> None:
    corpus.rename(name)
    done = cli("train", *QUICK, "--stop-after", "2", "-o", "run.npz", "--", name)
    resume = done.stderr.decode().splitlines()[-1].removeprefix("  ")
    assert resume.isprintable()
    assert shell(resume).returncode == 0
    assert read_run(Path("run.npz")).finished
    cli("eval", "run.npz", "--split", "val")
    cli("info", "run.npz")
    recorded = json.loads(cli("info", "run.npz", "--json").stdout)["corpus"]["files"][0][0]
    assert recorded == name.replace("\udcff", "\ufffd")


def test_json_has_no_lone_surrogates(cli: Cli, run: Path) -> None:
    row = json.loads(cli("score", run, "-", "--json", stdin=b"caf\xe9\n").stdout)
    assert row["text"] == "caf\ufffd"


# --- limits of the system ---


def test_ctrl_c_while_modules_are_loaded_has_its_exit_code(tmp_path: Path) -> None:
    code = "import charrnn.__main__ as m, sys; sys.meta_path.insert(0, Interrupt()); m.run()"
    finder = "class Interrupt:\n  def find_spec(self, *_): raise KeyboardInterrupt\n"
    command = [sys.executable, "-c", finder + code]
    done = subprocess.run(command, env=ENV, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_training_and_scoring_continue_without_more_processes(
    cli: Cli, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("train", "corpus.txt", *QUICK, "-q", "--workers", "2", "-o", "a.npz")
    monkeypatch.setattr(scoring, "MIN_WORK", 0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    done = cli("train", "corpus.txt", *QUICK, "--workers", "2", "-o", "b.npz")
    assert done.stderr.count(b"no second process available; continuing with threads") == 1
    a, b = (checkpoint.read_checkpoint(Path(name))[1] for name in ("a.npz", "b.npz"))
    assert all((a[name] == b[name]).all() for name in a)
    cli("score", "a.npz", "corpus.txt")


# --- Python ---


def test_error_state_of_the_caller_does_not_matter(text: str, tmp_path: Path) -> None:
    with np.errstate(all="raise"):
        model = charrnn.train(text, hidden_size=8, max_steps=5, output=tmp_path / "run.npz")
        model.network.params.vector *= np.float32(1e-30)
        "".join(model.sample(20, temp=1e-3, seed=1))
        model.nll(text[:100])
        model.save(tmp_path / "model.npz", half=True)
        charrnn.load(tmp_path / "model.npz")


@pytest.fixture
def huge(run: Path) -> Path:
    """A model whose gates are so far from zero that exp overflows."""
    model = charrnn.load(run)
    model.network.params.vector *= np.float32(1e4)
    model.save("huge.npz")
    return Path("huge.npz")


def test_huge_weights_do_not_warn_in_python(cli: Cli, huge: Path, text: str) -> None:
    model = charrnn.load(huge)
    "".join(model.sample(20, seed=1, prime="the king"))
    model.nll(text[:3000])
    model.nll_lines(text[:100])
    (xs, ys), state = (
        model.vocabulary.encode(text[:32]).reshape(2, 16, 1),
        model.network.zero_state(1),
    )
    list(check_gradients(model.network, xs, ys, state, np.random.default_rng(0), 1))
    charrnn.train(text, init_from=huge, max_steps=2)


@pytest.mark.parametrize(
    "command",
    [
        "train corpus.txt --init-from huge.npz --max-steps 2 -o b.npz",
        "sample huge.npz --length 20 --num-samples 2",
        "eval huge.npz corpus.txt",
        "score huge.npz corpus.txt",
        "score huge.npz corpus.txt --per char",
        "show huge.npz corpus.txt",
        "show huge.npz corpus.txt --neuron 0:3",
        "trace huge.npz king --backward",
    ],
)
def test_huge_weights_do_not_warn(cli: Cli, huge: Path, command: str) -> None:
    assert b"Warning" not in cli(*command.split()).stderr


def test_model_is_pickled_and_copied(trained: Path) -> None:
    model = charrnn.load(trained / "checkpoints" / "corpus.npz")
    for other in pickle.loads(pickle.dumps(model)), copy.deepcopy(model):
        assert "".join(other.sample(50, seed=1)) == "".join(model.sample(50, seed=1))
        other.network.params["by"][:] = 0
        assert model.network.params.vector[-1] != 0


def test_no_text_is_an_error(cli: Cli, run: Path) -> None:
    with pytest.raises(TextError, match="there is no text"):
        charrnn.train([])
    Path("empty.txt").touch()
    assert cli("eval", run, "empty.txt", rc=3).stderr.endswith(b"empty.txt is empty\n")


def test_path_of_a_header_is_read_only_if_it_is_the_recorded_file(cli: Cli, run: Path) -> None:
    header = forge.header_of(run.read_bytes())
    header["corpus"]["files"] = [["/dev/zero", 1, 1]]
    run.write_bytes(forge.sealed(run.read_bytes(), header))
    for command in (["eval", "--split", "val"], ["score", "--quantile", "0.5", "corpus.txt"]):
        err = cli(command[0], run, *command[1:], rc=3).stderr.decode()
        assert "the run's text is /dev/zero" in err
        assert err.endswith("/dev/zero: not a regular file\n")
