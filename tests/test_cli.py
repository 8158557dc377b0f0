"""The commands train, sample, info and export, and the behavior of all commands."""

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn.arrays import Array
from charrnn.cli import main
from charrnn.cli.choice import default_checkpoint
from charrnn.cli.common import default_run_name
from charrnn.formatting import format_baselines
from charrnn.storage import checkpoint
from tests.conftest import CHARRNN, ENV, QUICK, ROOT, SIZE, Cli, posix, read_run, run_on_terminal


def last_weights(path: Path) -> Array:
    return checkpoint.read_checkpoint(path)[1]["last_weights"]


# --- train ---


def test_train_reports_progress_on_stderr_only(cli: Cli, corpus: Path, text: str) -> None:
    done = cli("train", "corpus.txt", *SIZE, "--max-steps", "12")
    assert done.stdout == b""
    err = done.stderr.decode()
    assert "\r" not in err
    assert "\x1b" not in err
    size, model, baselines, initial, *_ = lines = err.splitlines()
    distinct = len(set(text))
    assert size.startswith(f"corpus: {len(text):,} characters ({distinct} distinct); ")
    assert re.search(r"; [\d,]+ for training, [\d,]+ for validation, [\d,]+ for testing$", size)
    pattern = (
        r"gru 1x12, [\d,]+ parameters; batch size 8, sequence length 16; 12 steps \([\d.]+ epochs\)"
    )
    assert re.match(rf"{pattern}; 1 worker$", model)
    assert baselines.startswith("baseline validation loss, nats per character: uniform ")
    values = [float(x) for x in re.findall(r"(?:uniform|[1-6]-gram) (\d\.\d{3})", baselines)]
    assert len(values) == 7
    assert values[:4] == sorted(values[:4], reverse=True)
    assert re.match(rf"initial loss \d\.\d+ \(uniform: ln {distinct} = \d\.\d+\)$", initial)

    # the output matches the checkpoint
    state = read_run(Path("checkpoints/corpus.npz"))
    assert len(state.history) == 12
    head = "     step   epoch    train      val    bits      ch/s     left"
    assert lines.count(head) == 3  # once per screen
    rows = [line.split() for line in lines if re.match(r" +\d+ +\d+\.\d\d +\d\.", line)]
    for row, (step, epoch, train, val, bits, rate, left) in zip(state.history, rows, strict=True):
        assert (int(step), epoch) == (row["step"], f"{row['epoch']:.2f}")
        assert train == f"{row['train_loss']:.4f}"
        losses = [r["val_loss"] for r in state.history if r["step"] <= row["step"]]
        assert val == f"{row['val_loss']:.4f}{'*' * (row['val_loss'] == min(losses))}"
        assert bits == f"{row['val_loss'] / np.log(2):.3f}"
        assert re.fullmatch(r"[\d,]+", rate)
        assert re.fullmatch(r"\d\d:\d\d", left)
    assert rows[-1][-1] == "00:00"
    assert state.samples[0]["step"] == 1
    for sample in state.samples:
        assert f"sample at step {sample['step']}:\n  | {sample['text'].split(chr(10))[0]}" in err
    best = state.best
    assert (
        f"best validation loss {best['val_loss']:.4f} nats ({best['val_loss'] / np.log(2):.3f} "
        f"bits) at step {best['step']}; test loss of the best weights {state.test_loss:.4f} nats "
    ) in err
    info = cli("info").stdout.decode()
    for split, loss in (("val", best["val_loss"]), ("test", state.test_loss)):
        name = {"val": "validation"}.get(split, split)
        expected = format_baselines(state.baselines[split])
        assert f"\n{name} loss, nats per character: {expected}, model {loss:.3f}\n" in err
        assert f"\nbaselines  {name} {expected}\n" in info
    assert lines[-2:] == [
        "saved checkpoints/corpus.npz; sample from it with:",
        "  charrnn sample checkpoints/corpus.npz",
    ]
    assert state.command == f"charrnn train corpus.txt {' '.join(SIZE)} --max-steps 12"


def test_train_reads_pipes_folders_and_several_files(cli: Cli, run: Path, corpus: Path) -> None:
    data = corpus.read_bytes()
    assert not cli("train", "-", *QUICK, "--quiet", stdin=data).stderr
    Path("src").mkdir()
    Path("src/a.txt").write_bytes(data[:3000])
    Path("src/b.txt").write_bytes(data[3000:])
    Path("src/c.bin").write_bytes(b"\0\1")
    assert "c.bin" in cli("train", "src", *QUICK).stderr.decode()
    cli("train", "src/a.txt", "src/b.txt", *QUICK, "-o", "two.npz")
    names = ["checkpoints/stdin.npz", "checkpoints/src.npz", "two.npz"]
    if sys.platform != "win32":
        os.mkfifo("fifo")
        with subprocess.Popen(["sh", "-c", "cat corpus.txt > fifo"]):
            cli("train", "fifo", *QUICK)
        cli("train", "/dev/stdin", *QUICK, "-o", "device.npz", stdin=data, env={})
        names += ["checkpoints/fifo.npz", "device.npz"]
    for name in names:
        assert (last_weights(Path(name)) == last_weights(run)).all()


def test_train_refuses_an_existing_checkpoint_with_three_ready_commands(
    cli: Cli, run: Path
) -> None:
    before = run.read_bytes()
    err = cli("train", "corpus.txt", rc=2).stderr.decode().splitlines()
    assert err == [
        "charrnn: checkpoints/corpus.npz already exists; to resume it, overwrite it, or keep both:",
        "  charrnn train corpus.txt --resume",
        "  charrnn train corpus.txt --force",
        "  charrnn train corpus.txt -o checkpoints/corpus-2.npz",
    ]
    assert run.read_bytes() == before
    cli("train", "corpus.txt", *QUICK, "--force", "--seed", "1")
    assert run.read_bytes() != before


def test_train_stops_resumes_and_extends(cli: Cli, run: Path) -> None:
    options = (*QUICK[2:], "--dropout", "0.2", "--eval-every", "5", "--init-from", run)
    cli("train", "corpus.txt", *options, "-o", "whole.npz", "-q")
    err = cli("train", "corpus.txt", *options, "-o", "parts.npz", "--stop-after", "7").stderr
    assert err.decode().endswith(
        "stopped at step 7 of 30; parts.npz was saved at step 7\n"
        "resume with:\n  charrnn train corpus.txt -o parts.npz --resume\n"
    )
    run.unlink()  # a resumed run does not need the model that it was initialized from
    resume = ("train", "corpus.txt", "-o", "parts.npz", "--resume")
    assert b"resumed at step 7\n" in cli(*resume).stderr
    (_, a), (_, b) = (checkpoint.read_checkpoint(Path(name)) for name in ("whole.npz", "parts.npz"))
    assert all((a[name] == b[name]).all() for name in a)

    err = cli(*resume).stderr
    assert err == b"parts.npz: already finished at step 30; use --max-steps N to extend it\n"
    cli(*resume, "--max-steps", "33")
    plans = read_run(Path("parts.npz")).plans
    assert [plan["steps"] for plan in plans] == [30, 33]
    err = cli(*resume, "--max-steps", "3", rc=2).stderr
    assert err.startswith(b"charrnn: --max-steps 3: must be at least 33, the planned length; ")


def test_resume_refuses_other_options(cli: Cli, run: Path) -> None:
    before = run.read_bytes()
    resume = ("train", "corpus.txt", "--resume")
    err = cli(*resume, "--hidden-size", "13", rc=2).stderr
    assert err.startswith(b"charrnn: --hidden-size cannot be used with --resume")
    assert b"mutually exclusive" in cli(*resume, "--force", rc=2).stderr
    cli(*resume, "-o", "nothing.npz", rc=4)
    assert run.read_bytes() == before


def test_init_from_reports_the_symbols(cli: Cli, run: Path, text: str) -> None:
    options = ("train", "-", "--init-from", run, "--max-steps", "1")
    err = cli(*options, stdin=f"{text}Ü".encode()).stderr.decode()
    known = len(set(text))
    assert f"initialized from {run}: {known} symbols matched, 1 new ('Ü'), 0 not in this" in err
    err = cli(*options, "--hidden-size", "13", "-o", "new.npz", rc=2).stderr.decode()
    assert "hidden_size must be 12, as in the initial model, not 13" in err


@pytest.mark.usefixtures("default_workers")
def test_resume_keeps_the_number_of_workers(cli: Cli, corpus: Path) -> None:
    path = Path("checkpoints/corpus.npz")
    cli("train", "corpus.txt", *QUICK, "--workers", "3", "--stop-after", "5")
    assert read_run(path).workers == 3
    resume = ("train", "corpus.txt", "--resume")
    assert b"; 3 workers\n" in cli(*resume, "--stop-after", "2").stderr
    assert b"from step 7: 1 worker instead of 3" in cli(*resume, "--workers", "1").stderr
    state = read_run(path)
    assert (state.workers, len(state.notes)) == (1, 1)
    assert state.command.endswith("--workers 3 --stop-after 5")


def test_rare_characters_are_reported_and_never_sampled(cli: Cli) -> None:
    line = "the common text of a few letters\n"
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 2500)))
    Path("many.txt").write_text(line * 300 + rare, encoding="utf-8", newline="\n")
    known = len(set(line))
    err = cli("train", "many.txt", *QUICK, "-o", "all.npz").stderr.decode()
    size = rf"a vocabulary of {2500 + known:,} symbols accounts for \d+% of the parameters"
    assert re.search(rf"{size} .*reduce it with --max-vocab N, --min-count N or --unit byte", err)
    for option in (("--min-count", "2"), ("--max-vocab", str(known + 1))):
        err = cli("train", "many.txt", *QUICK, *option, "-o", "few.npz", "--force").stderr.decode()
        assert "2,500 rare symbols (20.16% of the text) were mapped to the unknown symbol" in err
        model = charrnn.load(Path("few.npz"))
        assert len(model.vocabulary) == known + 1
        assert "\ufffd" not in "".join(model.sample(3000, temp=1e6, seed=0))
    out = cli("sample", "few.npz", "--prime", "丁 of ", "--length", "5").stdout.decode()
    assert out.startswith("丁 of ")


def test_environment_variables_give_defaults(
    cli: Cli, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARRNN_TRAIN_CELL", "rnn")
    monkeypatch.setenv("CHARRNN_TRAIN_SEED", "9")
    cli("train", "corpus.txt", *QUICK)
    config = read_run(Path("checkpoints/corpus.npz")).config
    assert (config.cell, config.seed) == ("vanilla", 9)


def test_train_ends_with_exit_code_6_when_the_loss_stays_nonfinite(cli: Cli, corpus: Path) -> None:
    options = ("--cell", "rnn", "--optimizer", "sgd", "--lr", "1e38", "--clip-norm", "0")
    err = cli("train", "corpus.txt", *QUICK, *options, rc=6).stderr.decode()
    assert len(re.findall(r"charrnn: step \d+: ", err)) == 10
    assert "stopped at step 10 of 30; checkpoints/corpus.npz was saved at step 10\n" in err
    assert np.isfinite(last_weights(Path("checkpoints/corpus.npz"))).all()


def test_train_warns_about_overfitting_and_copying(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    for name in ("text", "val"):
        letters = rng.choice(list("abcdefgh\n"), 400, p=[0.12] * 8 + [0.04])
        Path(name).write_text("".join(letters))
    options = ["--val-file", "val", "--hidden-size", "48", "--test-fraction", "0"]
    options += ["--lr-schedule", "constant", "--max-steps", "150", "--patience", "0"]
    warned = "while training loss fell"
    shown = cli("train", "text", *options).stderr.decode()
    assert warned in shown
    Path("abc").write_text("abcdefghi\n" * 100)
    args = ["train", "abc", "--hidden-size", "32", "--max-steps", "150"]
    shown = cli(*args).stderr.decode()
    assert "how much is copied:\n  charrnn overlap checkpoints/abc.npz abc\n" in shown
    assert warned not in shown
    assert not cli(*args, "--force", "--quiet").stderr


def test_grid_trains_every_combination_and_compares_them(cli: Cli, corpus: Path) -> None:
    grid = (
        "--grid",
        "hidden-size=4,8",
        "--grid",
        "dropout=0,.2",
        "--max-steps",
        "3",
        "--seed",
        "7",
    )
    done = cli("train", "corpus.txt", *grid, "-q")
    names = [f"corpus-hidden_size={H}-dropout={p}" for H in (4, 8) for p in ("0", ".2")]
    for name, (H, p) in zip(names, ((4, 0), (4, 0.2), (8, 0), (8, 0.2)), strict=True):
        config = read_run(Path(f"checkpoints/{name}.npz")).config
        assert (config.hidden_size, config.dropout, config.seed) == (H, p, 7)
    paths = [f"checkpoints/{name}.npz" for name in names]
    assert done.stdout == cli("compare", *paths).stdout

    # what exists is refused, resumed or replaced; what is missing is trained
    assert "use --resume or --force" in cli("train", "corpus.txt", *grid, rc=2).stderr.decode()
    Path(f"checkpoints/{names[3]}.npz").unlink()
    again = cli("train", "corpus.txt", *grid, "--resume").stderr.decode()
    assert again.count("already finished at step 3") == 3
    assert read_run(Path(f"checkpoints/{names[3]}.npz")).step == 3
    cli("train", "corpus.txt", "--grid", "max_steps=2", "--grid", "lr=.1,.2", "--force", "-q")
    rates = ("0.1", "0.2")
    for rate in rates:
        path = Path(f"checkpoints/corpus-max_steps=2-learning_rate={rate[1:]}.npz")
        assert read_run(path).config.learning_rate == float(rate)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--grid hidden=4,8", "must be OPTION=VALUE,VALUE"),
        ("--grid hidden_size=", "must be OPTION=VALUE,VALUE"),
        ("--grid hidden_size=4,x", "'x' is not a valid"),
        ("--grid seed=1 --grid seed=2", "each option can be given once"),
        ("--grid seed=1,2 -o a.npz", "nor be combined with --output"),
        ("--grid encoding=a/b", "cannot be part of a file's name"),
        (f"--grid seed={','.join(map(str, range(1001)))}", "1,001 runs are more than 1,000"),
    ],
)
def test_grid_is_checked_before_the_first_run(
    cli: Cli, corpus: Path, args: str, message: str
) -> None:
    assert message in cli("train", "corpus.txt", *args.split(), rc=2).stderr.decode()
    assert not list(Path().glob("checkpoints/*"))


def test_training_stops_when_the_validation_loss_no_longer_improves(cli: Cli) -> None:
    """The validation text has nothing in common with the training text."""
    Path("text").write_text("abcdefgh\n" * 200)
    Path("val").write_text("hgfedcba\n" * 50)
    args = ["train", "text", "--val-file", "val", "--hidden-size", "16", "--max-steps", "200"]
    args += ["--eval-every", "10", "--patience", "3"]
    resume = ["train", "text", "--val-file", "val", "--resume"]
    err = cli(*args).stderr.decode()
    path = Path("checkpoints/text.npz")
    state = read_run(path)
    assert state.finished
    assert [row["step"] for row in state.history][-1] == state.step
    assert state.best["step"] == state.step - 30
    assert state.test_loss is not None
    stopped = f"stopped early at step {state.step} of 200: no better validation loss in 3"
    assert stopped in err
    again = cli(*resume).stderr.decode()
    assert f"already finished at step {state.step} of 200, early; use --max-steps" in again

    # with the plan again it has new patience; interrupted, it ends at the same step
    cli(*resume, "--max-steps", "200")
    assert read_run(path).step == state.step + 30
    cli(*args, "-o", "parts.npz", "--stop-after", str(state.step - 5))
    cli(*resume, "-o", "parts.npz")
    assert read_run(Path("parts.npz")).step == state.step
    cli(*args[:-1], "0", "-o", "whole.npz")
    assert read_run(Path("whole.npz")).step == 200


def test_diverged_training_is_reported(cli: Cli, corpus: Path) -> None:
    options = ("--optimizer", "sgd", "--lr", "1e9", "--patience", "0")
    err = cli("train", "corpus.txt", *QUICK, *options).stderr.decode()
    assert re.search(
        r"\nthe training diverged: its loss is above .* try a lower --learning-rate", err
    )


@posix
def test_progress_fits_a_terminal_of_80_columns(corpus: Path, tmp_path: Path) -> None:
    command = [*CHARRNN, "train", "corpus.txt", *SIZE, "--max-steps", "60"]
    shown, out = run_on_terminal(command, tmp_path, ENV, 24, 80)
    assert out == b""
    assert re.search(rb"step \d+: +\d+%\|", shown)
    for expected in (b"ch/s", b"loss ", b"best validation loss"):
        assert expected in shown
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[\w+", "", shown.decode()))
    assert max(len(line) for line in lines if not line.startswith("  | ")) <= 80
    assert not re.search(r"%\|", "".join(lines[-4:]))  # the bar is gone


# --- sample ---


def test_sample_prints_text_only(cli: Cli, run: Path) -> None:
    done = cli("sample", "--length", "100", "--seed", "4")
    assert len(done.stdout.decode()) == 100
    assert re.fullmatch(
        rb"charrnn: checkpoints/corpus.npz, the only checkpoint \(\d+ \w+ old, trained on "
        rb"corpus.txt\), seed 4\n",
        done.stderr,
    )
    assert cli("sample", run, "--length", "100", "--seed", "4").stdout == done.stdout
    assert cli("sample", "--length", "100").stdout != done.stdout
    assert done.stdout.decode() == "".join(charrnn.load(run).sample(100, seed=4))


def test_sample_mentions_input_that_it_does_not_read(cli: Cli, run: Path) -> None:
    args = ("sample", run, "--length", "5", "--seed", "4")
    note = b"charrnn: standard input is ignored; to prime with it: --prime-file -\n"
    assert cli(*args, stdin=b"The king", env={}).stderr.endswith(note)
    assert note not in cli(*args).stderr
    assert note not in cli(*args, "--prime-file", "-", stdin=b"The", env={}).stderr


def test_sample_explains_an_escape_that_the_shell_has_not_replaced(cli: Cli, run: Path) -> None:
    err = cli("sample", run, "--prime", r"a\nb", rc=5).stderr.decode()
    assert r"quote it for the shell as $'...\n...'" in err
    cli("sample", run, "--prime", r"a\nb", "--unknown", "skip", "--length", "5")


@posix
def test_train_explains_how_a_text_from_the_terminal_ends(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    os.write(leader, b"to be or not to be\n\x04")
    command = [*CHARRNN, "train", "-", *QUICK, "--quiet"]
    done = subprocess.run(
        command, cwd=tmp_path, stdin=follower, capture_output=True, env=ENV, timeout=60, check=False
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0
    assert b"reading standard input from the terminal; Ctrl-D ends it" in done.stderr


def test_sample_from_a_prime(cli: Cli, run: Path) -> None:
    prime = "The king\n"
    Path("prime.txt").write_text(prime)
    args = ("sample", "--length", "50", "--seed", "1")
    out = cli(*args, "--prime", prime).stdout.decode()
    assert out.startswith(prime)
    assert len(out) == len(prime) + 50
    assert cli(*args, "--prime-file", "prime.txt").stdout.decode() == out
    assert cli(*args, "--prime-file", "-", stdin=prime.encode()).stdout.decode() == out
    assert cli(*args, "--prime", prime, "--no-echo").stdout.decode() == out[len(prime) :]


def test_several_samples_are_separated(cli: Cli, run: Path) -> None:
    args = ("sample", "--num-samples", "3", "--length", "40", "--seed", "2", "--prime", "A")
    by_nul = cli(*args, "-0").stdout.decode().split("\0")
    assert [len(text) for text in by_nul] == [41, 41, 41]
    assert all(text[0] == "A" for text in by_nul)
    assert len(set(by_nul)) == 3
    assert cli(*args).stdout.decode() == "\n\n".join(by_nul)


def test_sample_stops_and_takes_temperatures(cli: Cli, run: Path) -> None:
    out = cli("sample", "--until", "e", "--length", "100000", "--seed", "1").stdout.decode()
    assert out.index("e") == len(out) - 1
    zero = cli("sample", "--temp", "0", "--length", "50").stdout
    assert zero == cli("sample", "--temperature", "0", "--length", "50", "--seed", "8").stdout
    assert zero == cli("sample", "--top-k", "1", "--length", "50").stdout
    assert len(cli("sample", "--temp", "1e6", "--top-p", "0.5", "--length", "50").stdout) == 50
    assert len(cli("sample", "--last", "--length", "30").stdout) == 30
    cli("sample", "--temp", "-1", rc=2)
    cli("sample", "--temp", "nan", rc=2)


def test_sample_of_byte_and_jamo_models(cli: Cli) -> None:
    text = "그는 갔다. 나는 왔다.\r\n" * 60
    Path("ko.txt").write_bytes(text.encode())
    Path("any.bin").write_bytes(bytes(range(256)) * 20)
    args = ("sample", "run.npz", "--length", "30", "--seed", "1")
    cli("train", "ko.txt", "--unit", "byte", *QUICK, "-o", "run.npz")
    out = cli(*args, "--prime", "한", "--unknown", "skip").stdout
    assert out.startswith("한".encode())
    assert len(out) == 3 + 30
    assert set(out[3:]) <= set(text.encode())
    cli("train", "any.bin", "--unit", "byte", *QUICK, "-o", "run.npz", "--force")
    assert cli(*args, "--prime-file", "any.bin").stdout.startswith(bytes(range(256)) * 20)
    err = cli("train", "ko.txt", "--unit", "jamo", *QUICK, "-o", "run.npz", "--force").stderr
    assert " distinct symbols, 1.8" in err.decode()
    out = cli(*args, "--prime", "그는 왔").stdout
    assert out.decode().startswith("그는 왔")
    assert len(out.decode()) == 4 + 30


def test_samples_of_a_model_of_documents_are_documents(cli: Cli) -> None:
    options = ("--max-steps", "200", "--hidden-size", "32", "--lr", "0.02", "-q")
    names = [a + b + c for a in "mnt" for b in "aeio" for c in ("", "la", "ran", "dorella")]
    Path("names.txt").write_text("".join(f"{name}\n" for name in names * 2))
    cli("train", "names.txt", "--documents", "line", *options)
    sample = ("sample", "--num-samples", "20", "--seed", "1", "--temp", "0.5")
    lines = cli(*sample).stdout.decode().splitlines()
    assert len(lines) == 20
    assert len(set(lines) & set(names)) > 5
    assert cli(*sample, "-0").stdout.decode().split("\0") == lines
    lines = cli(*sample, "--prime", "mado").stdout.decode().splitlines()
    assert [line[:4] for line in lines] == ["mado"] * 20
    lines = cli(*sample, "--length", "1").stdout.decode().splitlines()
    assert all(len(line) <= 1 for line in lines)

    Path("poems").mkdir()
    for i in range(40):
        Path(f"poems/{i}.txt").write_text(f"one {i % 3}\ntwo\nthree\n")
    cli("train", "poems", "--documents", "file", *options)
    poems = cli(*sample, "-0").stdout.decode().split("\0")
    assert sum(bool(re.fullmatch(r"one \d\ntwo\nthree\n", poem)) for poem in poems) > 15


def test_sample_skips_unknown_characters_of_the_prime(cli: Cli, run: Path) -> None:
    err = cli("sample", "--prime", "The é", rc=5).stderr.decode().splitlines()[-1]
    assert err.startswith("charrnn: 'é' (U+00E9, offset 4) is not ")
    assert "--unknown skip" in err
    done = cli("sample", "--prime", "The é", "--unknown", "skip", "--length", "9")
    assert done.stdout.decode().startswith("The é")
    assert b"skipped 1 unknown character in the prime\n" in done.stderr


def test_sample_ends_quietly_when_the_pipe_is_closed(run: Path, tmp_path: Path) -> None:
    command = [*CHARRNN, "sample", "--length", "100000000"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=ENV, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # it arrives while it is generated: all of it would take an hour
        assert len(process.stdout.read(100)) == 100
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert re.fullmatch(r"charrnn: checkpoints/corpus.npz, .*, seed \d+\n", err)


def test_sample_does_not_keep_the_first_text(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samples(*_: Any, **__: Any) -> Iterator[tuple[str, ...]]:
        return itertools.repeat(("a",), 100_000)

    monkeypatch.setattr(charrnn.Model, "sample_batch", samples)
    tracemalloc.start()
    cli("sample")
    assert (
        tracemalloc.get_traced_memory()[1] < 700_000
    )  # bytes: a list of the characters takes more
    tracemalloc.stop()


# --- info and export ---


def test_info_describes_a_run(cli: Cli, run: Path, text: str) -> None:
    h = json.loads(cli("info", "--json").stdout)
    assert h["step"] == 30
    assert h["parameters"] == len(charrnn.load(run).network.params.vector)
    assert h["config"]["hidden_size"] == 12
    assert h["vocabulary"]["size"] == len(set(text))
    assert h["best"]["val_loss"] == min(row["val_loss"] for row in h["history"])
    out = cli("info", run).stdout.decode()
    assert f"\ntest       {h['test_loss']:.4f} nats " in out
    assert "\nmodel      gru 1x12, " in out
    assert (
        f"\nbatches    batch size 8, sequence length 16, {h['batches']['steps_per_epoch']} steps"
        in out
    )


def test_export_keeps_the_model_without_its_training_state(cli: Cli, run: Path) -> None:
    cli("export", run, "-o", "small.npz", "--half")
    err = cli("export", run, "-o", "small.npz", rc=2).stderr
    assert err == b"charrnn: small.npz already exists; use --force to overwrite it\n"
    cli("export", run, "-o", "small.npz", "--half", "--force")
    assert len(cli("sample", "small.npz", "--length", "40").stdout) == 40
    h = json.loads(cli("info", "--json", "small.npz").stdout)
    assert h["kind"] == "model"
    keys = {"step", "epoch", "parameters", "config", "vocabulary", "best", "test_loss"}
    assert keys <= h.keys()
    assert "\nmodel      gru 1x12" in cli("info", "small.npz").stdout.decode()
    err = cli("train", "corpus.txt", "-o", "small.npz", "--resume", rc=4).stderr
    assert b"an exported model, which cannot be resumed" in err


# --- the default checkpoint and name ---


def test_default_checkpoint_is_the_newest_trained_one(cli: Cli, run: Path) -> None:
    folder = run.parent
    state, arrays = checkpoint.read_checkpoint(run)
    for age, name in enumerate(["new", "corpus", "old"]):
        if name != "corpus":
            shutil.copy(run, folder / f"{name}.npz")
        os.utime(folder / f"{name}.npz", (1e9 - age, 1e9 - age))
    shutil.copy(ROOT / "checkpoints" / "example.npz", folder / "example.npz")
    path, _, reason = default_checkpoint()
    assert path == Path("checkpoints/new.npz")
    assert re.fullmatch(
        r"the newest of 4 checkpoints \([\d,]+ days old, trained on corpus.txt\)", reason
    )

    # a link to nothing, a folder, and a run that has only been started do not count
    (folder / "dangling.npz").symlink_to("nowhere.npz")
    (folder / "folder.npz").mkdir()
    checkpoint.write_checkpoint(folder / "started.npz", dataclasses.replace(state, step=0), arrays)
    assert default_checkpoint().path == Path("checkpoints/new.npz")
    assert b"checkpoints/new.npz" in cli("sample", "--length", "1").stderr

    # what is not a checkpoint is named only if nothing else is left
    (folder / "._new.npz").write_bytes(b"\0\5\x16\7")
    (folder / "damaged.npz").write_bytes(b"PK")
    assert cli("sample", "-n", "1").stderr.startswith(b"charrnn: checkpoints/new.npz, the ")
    for name in ("new", "corpus", "old", "example", "started"):
        (folder / f"{name}.npz").unlink()
    *passed_over, chosen = cli("sample", "-n", "1").stderr.decode().splitlines()
    names = {line.removeprefix("charrnn: passed over ").split(": ")[0] for line in passed_over}
    assert names == {"checkpoints/damaged.npz", "checkpoints/._new.npz"}
    assert "example.npz" in chosen


def test_default_checkpoint_without_a_run_is_the_example(cli: Cli) -> None:
    done = cli("sample", "--length", "80")
    assert len(done.stdout.decode()) == 80
    assert b"example.npz, the bundled example, because ./checkpoints has no" in done.stderr


def test_bare_name_is_a_checkpoint(cli: Cli, run: Path, corpus: Path) -> None:
    whole = cli("sample", run, "--length", "50", "--seed", "1").stdout
    for name in ("corpus", "corpus.npz", "checkpoints/corpus"):
        assert cli("sample", name, "--length", "50", "--seed", "1").stdout == whole
    assert cli("eval", "corpus", "corpus.txt").stderr == b"charrnn: checkpoints/corpus.npz\n"
    cli("train", "corpus.txt", *QUICK[-2:], "--init-from", "corpus", "-o", "new.npz", "-q")
    cli("export", "corpus", "-o", "small.npz")
    cli("report", "corpus")
    cli("plot", "corpus", "--terminal")

    # an existing file is a text, whatever checkpoints there are
    corpus.rename("corpus")
    assert b"the only checkpoint" in cli("eval", "corpus").stderr
    err = cli("sample", "corpsu", rc=4).stderr.decode()
    assert err == "charrnn: corpsu: no such file; did you mean checkpoints/corpus.npz?\n"
    assert b"charrnn ls lists" in cli("info", "xyzzy", rc=4).stderr


def test_wrong_files_are_recognized_by_their_content(cli: Cli, run: Path, tmp_path: Path) -> None:
    first = "is a charrnn checkpoint: it comes first, before the text"
    assert first in cli("eval", "corpus.txt", run, rc=2).stderr.decode()
    run.rename("renamed")
    assert cli("eval", "renamed", "corpus.txt").stdout
    assert cli("train", "renamed", rc=2).stderr.decode().splitlines()[1:] == [
        "  charrnn train CORPUS --init-from renamed -o NEW.npz",
        "  charrnn train CORPUS -o renamed --resume",
    ]
    np.savez("other.npz", a=np.zeros(3))
    np.save("array.npy", np.zeros(3))
    with zipfile.ZipFile("model.pt", "w") as z:
        z.writestr("model/data.pkl", b"")
    Path("old.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    kinds = {"other.npz": "NumPy archive", "array.npy": "NumPy array"}
    for name, kind in {**kinds, "model.pt": "PyTorch file", "old.pt": "PyTorch file"}.items():
        err = cli("info", name, rc=4).stderr.decode()
        assert err == f"charrnn: {name}: a {kind}, not a charrnn checkpoint\n"
        err = cli("train", name, rc=3).stderr.decode()
        assert err == f"charrnn: {name}: a {kind}, not text\n"
    assert "is a folder; name a checkpoint" in cli("info", tmp_path, rc=4).stderr.decode()
    assert (
        "is a folder; name a file in it" in cli("train", "a", "-o", tmp_path, rc=2).stderr.decode()
    )
    assert "download it first" in cli("train", "https://a.b/c.txt", rc=3).stderr.decode()
    assert "download it first" in cli("info", "https://a.b/c.npz", rc=4).stderr.decode()
    err = cli("report", "corpus.txt", rc=4).stderr.decode()
    assert err == "charrnn: corpus.txt: a text file, not a charrnn checkpoint\n"


def test_checkpoints_are_listed(cli: Cli, run: Path, tmp_path: Path) -> None:
    cli("export", run, "-o", "checkpoints/small.npz")
    os.utime(run, (1e9, 1e9))
    head, small, whole = cli("ls").stdout.decode().splitlines()
    assert head.split() == ["name", "age", "model", "steps", "val", "loss", "corpus"]
    assert re.fullmatch(r"small +\d+ seconds? +gru 1x12 +30 +\d\.\d{3} +\(exported\)", small)
    assert re.fullmatch(r"corpus +[\d,]+ days +gru 1x12 +30 +\d\.\d{3} +corpus.txt", whole)
    (tmp_path / "checkpoints/damaged.npz").write_bytes(b"PK")
    done = cli("ls", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["name"], row["step"], row["corpus"]) for row in rows] == [
        ("small", 30, None),
        ("corpus", 30, "corpus.txt"),
    ]
    assert b"damaged.npz: a text file, not a charrnn checkpoint" in done.stderr
    shutil.rmtree("checkpoints")
    done = cli("ls")
    assert (done.stdout, b"create one: charrnn train CORPUS" in done.stderr) == (b"", True)


def test_runs_are_compared(cli: Cli, run: Path) -> None:
    cli("train", "corpus.txt", *SIZE, "--max-steps", "12", "--seed", "1", "-o", "two.npz", "-q")
    one, two = read_run(run), read_run(Path("two.npz"))
    done = cli("compare", "corpus", "two.npz")
    table = {row[:12].strip(): row[12:].split() for row in done.stdout.decode().splitlines()}
    assert table["run"] == ["corpus", "two"]
    assert table["max steps"] == ["30", "12"]
    assert table["seed"] == ["0", "1"]
    assert "hidden size" not in table
    assert table["parameters"] == [f"{one.parameters:,}"] * 2
    losses = [state.best["val_loss"] for state in (one, two)]
    shown = [f"{loss:.4f}" for loss in losses if loss is not None]
    assert [cell for cell in table["val loss"] if cell != "*"] == shown
    rows = [
        json.loads(line) for line in cli("compare", "corpus", "two", "--json").stdout.splitlines()
    ]
    assert [row["val_loss"] for row in rows] == losses
    assert [row["seed"] for row in rows] == [0, 1]
    many = cli("compare", *["corpus"] * 12).stdout.decode().splitlines()
    assert max(map(len, many)) <= 80
    assert sum(line.startswith("run ") for line in many) > 1
    assert b"two runs or more" in cli("compare", "corpus", rc=2).stderr


def test_history_is_printed_for_a_spreadsheet(cli: Cli, run: Path) -> None:
    names, *rows = cli("info", "corpus", "--history").stdout.decode().splitlines()
    history = read_run(run).history
    assert len(rows) == len(history)
    for row, wanted in zip(rows, history, strict=True):
        values = dict(zip(names.split("\t"), map(float, row.split("\t")), strict=True))
        assert values == wanted
    assert b"mutually exclusive" in cli("info", "corpus", "--history", "--json", rc=2).stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there is no tomllib")
def test_options_of_a_run_make_it_again(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--dropout", "0.25", "--seed", "3", "--workers", "1", "--cell", "lstm")
    cli("train", "corpus.txt", *QUICK, *options, "-o", "one.npz", "-q")
    toml = cli("info", "one.npz", "--toml").stdout
    Path("run.toml").write_bytes(toml)
    assert toml.startswith(b"# charrnn train corpus.txt --config FILE\n")
    monkeypatch.setenv("CHARRNN_TRAIN_DROPOUT", "0.5")  # the file has precedence
    cli("train", "corpus.txt", "--config", "run.toml", "-o", "two.npz", "-q")
    assert (last_weights(Path("one.npz")) == last_weights(Path("two.npz"))).all()
    assert read_run(Path("two.npz")).config == read_run(Path("one.npz")).config
    cli("train", "corpus.txt", "--config", "run.toml", "--seed", "4", "-o", "three.npz", "-q")
    assert read_run(Path("three.npz")).config.seed == 4

    # faults are named with their file
    resume = ("train", "corpus.txt", "--config", "run.toml", "-o", "two.npz", "--resume")
    assert b"--config cannot be used with --resume" in cli(*resume, rc=2).stderr
    for text, message in {
        "hiden-size = 3": "run.toml: unknown option 'hiden_size'; did you mean hidden_size?",
        "hidden-size = 3.5": "run.toml: invalid hidden_size: 3.5; must be an integer",
        "cell = 'tape'": "run.toml: invalid cell: 'tape'; must be one of lstm, gru, vanilla",
        "workers = 2.5": "run.toml: invalid workers: 2.5; must be an integer",
        "init-from = [1]": "run.toml: invalid init_from: [1]; must be a string",
        "cell": "run.toml: Expected '=' after a key",
    }.items():
        Path("run.toml").write_text(text)
        err = cli("train", "corpus.txt", "--config", "run.toml", "-o", "x.npz", rc=2).stderr
        assert f"charrnn: {message}" in err.decode()
    err = cli("train", "corpus.txt", "--config", "none.toml", rc=2).stderr
    assert err == b"charrnn: none.toml: no such file or directory\n"


def test_default_run_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_run_name(["-"]) == "stdin"
    assert default_run_name(["a/tiny.shakespeare.txt", "b.txt"]) == "tiny.shakespeare"
    assert default_run_name(["."]) == tmp_path.name


# --- errors ---


@pytest.mark.parametrize(
    ("args", "stdin", "rc", "message"),
    [
        (("train",), b"", 2, "Missing argument 'CORPUS...'"),
        (("train", "-", "-"), b"", 2, "- (standard input) can be given only once"),
        (("train", "-", "-o", "."), b"", 2, ". is a folder; name a file in it"),
        (("train", "-", "--max-steps", str(2**63)), b"ab", 2, "invalid max_steps"),
        (("train", "-", "--val-file", "-"), b"", 2, "can be given only once"),
        (("train", "-", "--cell", "transformer"), b"", 2, "'transformer' is not one of"),
        (("train", "-", "--hidden-size", "0"), b"", 2, "0 is not in the range"),
        (("train", "nothing.txt"), b"", 3, "nothing.txt: no such file or directory"),
        (("train", "-"), b"", 3, "stdin is empty"),
        (("train", "-"), b"x", 3, "stdin has a single character"),
        (("train", "-"), b"ab\ncaf\xe9", 3, "UTF-8 at offset 6, line 2 (bytes e9)"),
        (("train", "-", "-o", "file/run.npz", *QUICK), b"abcabc" * 50, 7, "could not be saved"),
        (("sample", "nothing.npz"), b"", 4, "nothing.npz: no such file"),
        (("sample", "file"), b"", 4, "file: a text file, not a "),
        (("info", "file"), b"", 4, "file: a text file, not a "),
        (("export", "file", "-o", "x.npz"), b"", 4, "file: a text file, not a "),
        (("sample", "--prime", "a", "--prime-file", "b"), b"", 2, "are mutually exclusive"),
        (("sample", "--prime-file", "nothing.txt"), b"", 3, "nothing.txt: no such file"),
        (("sample", "--length", "-3"), b"", 2, "-3 is not in the range"),
        (("sample", "--top-p", "0"), b"", 2, "0.0 is not in the range"),
        (("speak",), b"", 2, "No such command 'speak'"),
    ],
)
def test_bad_input_gets_one_line_and_an_exit_code(
    cli: Cli, args: tuple[str, ...], stdin: bytes, rc: int, message: str
) -> None:
    Path("file").write_text("no checkpoint")
    done = cli(*args, stdin=stdin, rc=rc)
    assert done.stdout == b""
    last = done.stderr.decode().rstrip("\n").splitlines()[-1]
    assert message in last
    assert last.startswith(("charrnn: ", "Error: "))


@pytest.mark.parametrize(
    ("error", "rc", "message"),
    [
        (MemoryError(), 2, "charrnn: out of memory; try a smaller model\n"),
        (MemoryError("No 9 GiB"), 2, "charrnn: out of memory (no 9 gib); try a smaller model\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exceptions_get_one_line_and_an_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, rc: int, message: str
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("charrnn.model.load", load)
    assert cli("sample", rc=rc).stderr.decode() == message


@posix
@pytest.mark.parametrize(
    ("script", "rc", "message"),
    [
        ("train - <&-", 3, "standard input is closed"),
        ("sample --prime-file - <&-", 3, "standard input is closed"),
        ("sample >&-", 7, "standard output is closed"),
        ("info >&-", 7, "standard output is closed"),
        ("eval corpus.txt >&-", 7, "standard output is closed"),
        # an OSError, which wants to discard what standard output has buffered
        (f"train corpus.txt -o {'x' * 300} >&-", 7, f"{'x' * 300}: file name too long"),
        (
            f"report checkpoints/corpus.npz -o {'x' * 300} >&-",
            4,
            "checkpoints/corpus.npz: no such file; charrnn ls lists those there are",
        ),
    ],
)
def test_closed_streams_are_errors(
    corpus: Path, tmp_path: Path, script: str, rc: int, message: str
) -> None:
    command = ["sh", "-c", f"{sys.executable} -m charrnn {script}"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.decode()) == (rc, f"charrnn: {message}\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("argument", ["sample", "--help", "--version"])
def test_full_disk_behind_stdout_is_an_error(run: Path, tmp_path: Path, argument: str) -> None:
    command = [*CHARRNN, argument]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=ENV, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 7
    assert b"standard output: no space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


# --- help ---


@pytest.mark.parametrize("name", ["", *main.commands])
def test_help_has_an_example_and_cuts_no_summary(cli: Cli, name: str) -> None:
    out = cli(*[name] * bool(name), "--help").stdout.decode()
    assert out.startswith("Usage: ")
    assert "\\b" not in out
    assert "..." not in re.sub(r"[\])A-Z]\.\.\.|\"\.\.\.\"", "", out)
    assert re.search(r"^ +charrnn \w+", out, re.M)
    assert cli(*[name] * bool(name), "-h").stdout.decode() == out


def test_help_lists_every_command_once_with_its_example(cli: Cli) -> None:
    _, groups = cli("--help").stdout.decode().split("Write:")
    names = re.findall(r"^  (\w+)", groups, re.M)
    assert sorted(names) == sorted(main.commands)
    for name, example in zip(names, re.findall(r"\$ (.*)", groups), strict=True):
        assert f"charrnn {name} " in f"{example} "


def test_version_is_one_line(cli: Cli) -> None:
    out = cli("--version").stdout.decode()
    version = re.escape(charrnn.__version__)
    pattern = r"Python 3\.\S+, NumPy \S+, \S+ \S+, \d+ cores?, .+\n"
    assert re.fullmatch(rf"charrnn {version}, {pattern}", out)


def test_help_starts_without_numpy_and_tqdm() -> None:
    code = "import sys, charrnn.cli; sys.exit('numpy' in sys.modules or 'tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENV, check=False).returncode == 0


def test_sample_sets_threads_before_numpy_is_imported(run: Path, tmp_path: Path) -> None:
    code = """
import os, sys
from charrnn.cli import main
class Finder:
    def find_spec(self, name, *_):
        if name == "numpy":
            print(os.environ["OPENBLAS_NUM_THREADS"], file=sys.stderr)
sys.meta_path.insert(0, Finder())
main(sys.argv[1:])
"""
    for args, threads in (
        (["info"], ""),
        (["sample"], "1\n"),
        (["sample", "--workers", "3"], "3\n"),
    ):
        command = [sys.executable, "-c", code, *args]
        done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, check=True)
        assert done.stderr.decode().partition("charrnn: ")[0] == threads


def test_shell_completion(cli: Cli) -> None:
    assert b"_charrnn_completion" in cli(env={"_CHARRNN_COMPLETE": "bash_source"}).stdout
