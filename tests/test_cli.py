"""The real commands, each in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import charrnn
from charrnn import checkpoint
from charrnn.arrays import Array
from tests.conftest import CHARRNN, ENV, ROOT, Cli, on_a_terminal

QUICK = ("--hidden-size", "12", "--max-steps", "12", "--seq-length", "16", "--batch-size", "8")


@pytest.fixture
def corpus(tmp_path: Path, text: str) -> Path:
    (tmp_path / "corpus.txt").write_text(text)
    return tmp_path / "corpus.txt"


@pytest.fixture
def run(cli: Cli, corpus: Path, tmp_path: Path) -> Path:
    cli("train", "corpus.txt", *QUICK)
    return tmp_path / "checkpoints" / "corpus.npz"


# --- train ---


def test_train_tells_where_one_stands_on_stderr_alone(cli: Cli, corpus: Path, text: str) -> None:
    done = cli("train", "corpus.txt", *QUICK)
    assert done.stdout == b""
    err = done.stderr.decode()
    assert "\r" not in err
    assert "\x1b" not in err
    lines = err.splitlines()
    assert re.match(rf"corpus: {len(text):,} characters, {len(set(text))} distinct; training ", lines[0])
    assert re.match(r"gru 1x12, [\d,]+ parameters; 8 lanes, windows of 16; 12 steps, .* threads?$", lines[1])
    assert lines[2].startswith("validation loss, nats per character, of counts: uniform ")
    ladder = [float(x) for x in re.findall(r"(?:uniform|[1-6]-gram) (\d\.\d{3})", lines[2])]
    assert len(ladder) == 7
    assert ladder[:4] == sorted(ladder[:4], reverse=True)
    assert re.search(r"first loss \d\.\d+, beside ln \d+ = ", err)
    rows = [line for line in lines if line.startswith("step ")]
    assert len(rows) == 12
    for row in rows:
        assert re.match(
            r"step +\d+  epoch +[\d.]+  training [\d.]+ nats \([\d.]+ bits\)  "
            r"validation [\d.]+ nats \([\d.]+ bits\)  norm [\d.]+  lr [\d.e-]+$",
            row,
        )
    assert "sample at step 1:\n  | " in err
    assert re.search(r"best validation loss [\d.]+ nats .* at step \d+; test loss of the best weights [\d.]+ nats", err)
    for part in ("validation", "test"):
        assert re.search(rf"\n{part} loss, nats per character: uniform .*, 6-gram [\d.]+, this model [\d.]+\n", err)
    assert lines[-1].endswith("charrnn sample checkpoints/corpus.npz")


def test_what_is_printed_is_kept_in_the_runs_file(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    err = cli("train", "corpus.txt", *QUICK).stderr.decode()
    h = checkpoint.read_header(tmp_path / "checkpoints" / "corpus.npz")
    for row in h["history"]:
        assert f"step {row['step']:6,}  epoch {row['epoch']:5.2f}  training {row['train_loss']:.4f} nats" in err
        assert f"validation {row['val_loss']:.4f} nats" in err
    for sample in h["samples"]:
        first, *_ = sample["text"].split("\n")
        assert f"sample at step {sample['step']}:\n  | {first}" in err
    told = cli("info").stdout.decode()
    for part, ladder in (("validation", h["ladder"]), ("test", h["ladder_test"])):
        rungs = ", ".join(f"{name} {loss:.3f}" for name, loss in ladder.items())
        assert f"{part} loss, nats per character: {rungs}, this model" in err
        assert f"\nbaselines  {part} {rungs}\n" in told
    assert h["command"] == f"charrnn train corpus.txt {' '.join(QUICK)}"
    assert h["threads"] >= 1


def test_train_from_a_pipe_a_folder_and_several_files(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    data = corpus.read_bytes()
    cli("train", "-", *QUICK, "--quiet", stdin=data)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_bytes(data[:3000])
    (tmp_path / "src" / "b.txt").write_bytes(data[3000:])
    (tmp_path / "src" / "c.bin").write_bytes(b"\0\1")
    err = cli("train", "src", *QUICK).stderr.decode()
    assert "left out, not UTF-8 text: 1 files (src" in err
    assert "c.bin" in err
    cli("train", "src/a.txt", "src/b.txt", *QUICK, "-o", "two.npz")
    runs = [tmp_path / "checkpoints" / "stdin.npz", tmp_path / "checkpoints" / "src.npz", tmp_path / "two.npz"]
    weights = [checkpoint.load(path)[1]["last"] for path in runs]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] == weights[2]).all()


def test_quiet(cli: Cli, corpus: Path) -> None:
    assert cli("train", "corpus.txt", *QUICK, "-q").stderr == b""


def test_a_run_that_exists_is_refused_with_three_ready_commands(cli: Cli, run: Path) -> None:
    before = run.read_bytes()
    err = cli("train", "corpus.txt", rc=2).stderr.decode().splitlines()
    assert err[1:] == [
        "  charrnn train corpus.txt --resume",
        "  charrnn train corpus.txt --force",
        "  charrnn train corpus.txt -o checkpoints/corpus-2.npz",
    ]
    assert run.read_bytes() == before
    cli("train", "corpus.txt", *QUICK, "--force", "--seed", "1")
    assert run.read_bytes() != before


def test_stop_and_resume_is_the_run_in_one(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    options = (*QUICK, "--dropout", "0.2", "--eval-every", "5")
    cli("train", "corpus.txt", *options, "-o", "whole.npz", "-q")
    err = cli("train", "corpus.txt", *options, "-o", "parts.npz", "--stop-after", "7").stderr.decode()
    assert "stopped at step 7 of 12; parts.npz holds step 7" in err
    assert "go on with: charrnn train corpus.txt -o parts.npz --resume" in err
    err = cli("train", "corpus.txt", "-o", "parts.npz", "--resume").stderr.decode()
    assert "resumed at step 7" in err
    (_, a), (_, b) = (checkpoint.load(tmp_path / name) for name in ("whole.npz", "parts.npz"))
    assert all((a[name] == b[name]).all() for name in a)

    err = cli("train", "corpus.txt", "-o", "parts.npz", "--resume").stderr.decode()
    assert err == "parts.npz: finished at step 12; --max-steps N makes it longer\n"
    cli("train", "corpus.txt", "-o", "parts.npz", "--resume", "--max-steps", "15")
    plans = checkpoint.read_header(tmp_path / "parts.npz")["plans"]
    assert [plan["steps"] for plan in plans] == [12, 15]
    err = cli("train", "corpus.txt", "-o", "parts.npz", "--resume", "--max-steps", "3", rc=2).stderr.decode()
    assert err == "charrnn: --max-steps 3: the plan is 15 steps; --stop-after N ends a sitting earlier\n"


def test_resume_takes_no_other_options(cli: Cli, run: Path) -> None:
    err = cli("train", "corpus.txt", "--resume", "--hidden-size", "13", rc=2).stderr
    assert err.startswith(b"charrnn: --hidden-size cannot go with --resume")
    cli("train", "corpus.txt", "--resume", "--force", rc=2)
    cli("train", "corpus.txt", "-o", "nothing.npz", "--resume", rc=4)


def test_resume_of_a_changed_text(cli: Cli, run: Path, corpus: Path) -> None:
    before = run.read_bytes()
    corpus.write_text(corpus.read_text() + "more")
    err = cli("train", "corpus.txt", "--resume", rc=4).stderr
    assert b"trained on another text" in err
    assert run.read_bytes() == before


def test_a_validation_file_and_its_resume(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("The king shall not come.\n" * 9)
    cli("train", "corpus.txt", *QUICK, "--val", "val.txt", "--stop-after", "5")
    cli("train", "corpus.txt", "--resume")
    h = checkpoint.read_header(tmp_path / "checkpoints" / "corpus.npz")
    assert h["corpus"]["parts"]["val"] == 9 * 25
    assert h["finished"]


def test_threads_are_kept_by_a_resume(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "corpus.npz"
    cli("train", "corpus.txt", *QUICK, "--threads", "3", "--stop-after", "5")
    assert checkpoint.read_header(path)["threads"] == 3
    assert b"; 3 threads\n" in cli("train", "corpus.txt", "--resume", "--stop-after", "2").stderr
    assert b"from step 7: 1 thread instead of 3" in cli("train", "corpus.txt", "--resume", "--threads", "1").stderr
    h = checkpoint.read_header(path)
    assert (h["threads"], len(h["notes"])) == (1, 1)
    assert h["command"].endswith("--threads 3 --stop-after 5")


def test_one_thread_trains_as_two_do_but_for_rounding(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    runs: dict[str, Array] = {}
    for threads in ("1", "2", "2"):
        cli("train", "corpus.txt", *QUICK, "--threads", threads, "--force")
        run = checkpoint.load(tmp_path / "checkpoints" / "corpus.npz")[1]["last"]
        if threads in runs:
            assert (runs[threads] == run).all()
        runs[threads] = run
    np.testing.assert_allclose(runs["1"], runs["2"], rtol=0, atol=1e-4)


def test_environment_variables_give_defaults(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    cli("train", "corpus.txt", *QUICK, env={"CHARRNN_TRAIN_CELL": "rnn", "CHARRNN_TRAIN_SEED": "9"})
    config = checkpoint.read_header(tmp_path / "checkpoints" / "corpus.npz")["config"]
    assert (config["cell"], config["seed"]) == ("vanilla", 9)


def test_a_loss_that_is_not_finite(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    options = ("--cell", "rnn", "--optimizer", "sgd", "--lr", "1e38", "--clip-norm", "0")
    err = cli("train", "corpus.txt", *QUICK, *options, rc=6).stderr.decode()
    told = re.findall(r"charrnn: step \d+: .* not finite .*; the learning rate is halved to \S+, .* are back", err)
    assert len(told) == 10
    assert re.search(
        r"charrnn: not finite for the 10th time, at step 10; a lower --learning-rate or --clip-norm may help\n$", err
    )
    assert "stopped at step 10 of 12; checkpoints/corpus.npz holds step 10" in err
    assert np.isfinite(checkpoint.load(tmp_path / "checkpoints" / "corpus.npz")[1]["last"]).all()


def test_the_bar_is_for_terminals_only(corpus: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("pseudo-terminals are POSIX's")
    shown, out = on_a_terminal([*CHARRNN, "train", "corpus.txt", *QUICK], tmp_path, ENV, 24, 80)
    assert out == b""
    assert re.search(rb"\d+%\|", shown)
    assert b"ch/s" in shown
    assert b"loss " in shown
    assert b"best validation loss" in shown


# --- sample ---


def test_sample_writes_text_and_nothing_else(cli: Cli, run: Path) -> None:
    done = cli("sample", "--length", "100", "--seed", "4")
    assert len(done.stdout.decode()) == 100
    assert done.stderr == b"charrnn: checkpoints/corpus.npz, seed 4\n"
    assert cli("sample", run, "--length", "100", "--seed", "4").stdout == done.stdout
    assert cli("sample", "--length", "100").stdout != done.stdout
    model = charrnn.load(run)
    assert done.stdout.decode() == "".join(model.sample(100, seed=4))


def test_sample_from_a_prime(cli: Cli, run: Path, tmp_path: Path) -> None:
    prime = "The king\n"
    (tmp_path / "prime.txt").write_text(prime)
    args = ("sample", "--length", "50", "--seed", "1")
    out = cli(*args, "--prime", prime).stdout.decode()
    assert out.startswith(prime)
    assert len(out) == len(prime) + 50
    assert cli(*args, "--prime-file", "prime.txt").stdout.decode() == out
    assert cli(*args, "--prime-file", "-", stdin=prime.encode()).stdout.decode() == out
    assert cli(*args, "--prime", prime, "--no-echo").stdout.decode() == out[len(prime) :]


def test_several_samples(cli: Cli, run: Path) -> None:
    args = ("sample", "--num-samples", "3", "--length", "40", "--seed", "2", "--prime", "A")
    by_nul = cli(*args, "-0").stdout.decode().split("\0")
    assert [len(text) for text in by_nul] == [41, 41, 41]
    assert all(text[0] == "A" for text in by_nul)
    assert len(set(by_nul)) == 3
    assert cli(*args).stdout.decode() == "\n\n".join(by_nul)


def test_until(cli: Cli, run: Path) -> None:
    out = cli("sample", "--until", "e", "--length", "100000", "--seed", "1").stdout.decode()
    assert out.index("e") == len(out) - 1


def test_temperatures(cli: Cli, run: Path) -> None:
    zero = cli("sample", "--temp", "0", "--length", "50").stdout
    assert zero == cli("sample", "--temperature", "0", "--length", "50", "--seed", "8").stdout
    assert zero == cli("sample", "--top-k", "1", "--length", "50").stdout
    assert len(cli("sample", "--temp", "1e6", "--top-p", "0.5", "--length", "50").stdout) == 50
    cli("sample", "--temp", "-1", rc=2)
    cli("sample", "--temp", "nan", rc=2)


def test_unknown_characters_of_the_prime(cli: Cli, run: Path) -> None:
    err = cli("sample", "--prime", "The é", rc=5).stderr.decode()
    err = err.splitlines(keepends=True)[-1]
    assert err.startswith("charrnn: 'é' (U+00E9, offset 4) is not among the model's ")
    assert err.endswith("characters; --unknown skip leaves it out\n")
    args = ("--length", "9", "--seed", "0")
    done = cli("sample", "--prime", "The é", "--unknown", "skip", *args)
    assert done.stdout.decode().startswith("The é")
    assert b"skipped 1 unknown character in the prime" in done.stderr


def test_a_closed_pipe_ends_it_quietly(cli: Cli, run: Path, tmp_path: Path) -> None:
    command = [*CHARRNN, "sample", "--length", "100000000"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(100)) == 100  # it comes as it is drawn: all of it would take an hour
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert err.count("\n") == 1
    assert err.startswith("charrnn: checkpoints/corpus.npz, seed ")


def test_other_alphabets_go_through_a_pipe(cli: Cli, tmp_path: Path) -> None:
    text = "한국어 글자와 é, ü, 👩‍👩‍👧 — right\r\nto left: שלום\r\n" * 40
    cli("train", "-", *QUICK, "-q", stdin=text.encode(), env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    env = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    out = cli("sample", "--length", "200", "--prime-file", "-", stdin="한국\r\n".encode(), env=env).stdout
    assert out.decode().startswith("한국\r\n")
    assert len(out.decode()) == 204
    assert set(out.decode()) <= set(text)


def test_hello(cli: Cli) -> None:
    cli("train", ROOT / "data" / "hello.txt", "--max-steps", "300", "--hidden-size", "16", "-q")
    assert cli("sample", "--prime", "h", "--length", "4", "--temp", "0").stdout == b"hello"


def test_last_weights(cli: Cli, run: Path) -> None:
    assert len(cli("sample", "--last", "--length", "30").stdout) == 30


# --- info and export ---


def test_info(cli: Cli, run: Path, text: str) -> None:
    h = json.loads(cli("info", "--json").stdout)
    assert h["step"] == 12
    assert h["epoch"] == pytest.approx(12 / h["windows"]["per_epoch"])
    assert h["parameters"] == len(charrnn.load(run).stack.p.vector)
    assert h["config"]["hidden_size"] == 12
    assert h["vocabulary"]["size"] == len(set(text))
    assert h["best"]["step"] <= 12
    assert h["best"]["val_loss"] == min(row["val_loss"] for row in h["history"])
    assert h["test_loss"] > 0
    out = cli("info", run).stdout.decode()
    assert f"{h['test_loss']:.4f} nats" in out
    assert "gru 1x12" in out


def test_export(cli: Cli, run: Path, tmp_path: Path) -> None:
    cli("export", run, "-o", "small.npz", "--half")
    assert "small.npz already exists" in cli("export", run, "-o", "small.npz", rc=2).stderr.decode()
    cli("export", run, "-o", "small.npz", "--half", "--force")
    assert len(cli("sample", "small.npz", "--length", "40").stdout) == 40
    h = json.loads(cli("info", "--json", "small.npz").stdout)
    assert h["kind"] == "model"
    assert {"step", "epoch", "parameters", "config", "vocabulary", "best", "test_loss"} <= h.keys()
    assert "model      gru 1x12" in cli("info", "small.npz").stdout.decode()
    assert b"weights alone" in cli("train", "corpus.txt", "-o", "small.npz", "--resume", rc=4).stderr


def test_info_of_a_damaged_header(cli: Cli, run: Path) -> None:
    header, arrays = checkpoint.load(run)
    for broken in ({}, {**header, "config": 3}, {**header, "best": None}, {**header, "epoch": "x"}):
        checkpoint.save(run, {"format": 1, **broken}, arrays)
        assert b"checkpoints/corpus.npz: damaged: " in cli("info", rc=4).stderr


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("args", "stdin", "rc", "message"),
    [
        (("train",), b"", 2, "Missing argument 'CORPUS...'"),
        (("train", "-", "-"), b"", 2, "can be given only once"),
        (("train", "-", "--val", "-"), b"", 2, "can be given only once"),
        (("train", "-", "--cell", "transformer"), b"", 2, "'transformer' is not one of"),
        (("train", "-", "--hidden-size", "0"), b"", 2, "0 is not in the range"),
        (("train", "nothing.txt"), b"", 3, "nothing.txt: no such file or directory"),
        (("train", "-"), b"", 3, "stdin is empty"),
        (("train", "-"), b"x", 3, "stdin has a single character"),
        (("train", "-"), b"ab\ncaf\xe9", 3, "standard input: not UTF-8 at offset 6, line 2 (bytes e9)"),
        (("train", "-", "-o", "file/run.npz", *QUICK), b"abcabc" * 50, 7, "could not be saved"),
        (("sample", "nothing.npz"), b"", 4, "nothing.npz: no such file"),
        (("sample", "file"), b"", 4, "file: not a checkpoint of charrnn"),
        (("info", "file"), b"", 4, "file: not a checkpoint of charrnn"),
        (("export", "file", "-o", "x.npz"), b"", 4, "file: not a checkpoint of charrnn"),
        (("sample", "--prime", "a", "--prime-file", "b"), b"", 2, "are mutually exclusive"),
        (("sample", "--prime-file", "nothing.txt"), b"", 3, "nothing.txt: no such file"),
        (("sample", "--length", "-3"), b"", 2, "-3 is not in the range"),
        (("sample", "--top-p", "0"), b"", 2, "0.0 is not in the range"),
        (("speak",), b"", 2, "No such command 'speak'"),
    ],
)
def test_bad_input_gets_a_line_and_an_exit_code(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], stdin: bytes, rc: int, message: str
) -> None:
    (tmp_path / "file").write_text("no checkpoint")
    done = cli(*args, stdin=stdin, rc=rc)
    assert done.stdout == b""
    err = done.stderr.decode()
    last = err.rstrip("\n").splitlines()[-1]
    assert message in last
    assert last.startswith(("charrnn: ", "Error: "))


def test_no_checkpoint_at_all_means_the_example(cli: Cli) -> None:
    done = cli("sample", "--length", "80")
    assert len(done.stdout.decode()) == 80
    assert b"example.npz" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_behind_stdout(run: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*CHARRNN, "sample"]
        done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 7
    assert b"standard output: no space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "rc", "message"),
    [
        ("train - <&-", 3, "standard input is closed"),
        ("sample --prime-file - <&-", 3, "standard input is closed"),
        ("sample >&-", 7, "standard output is closed"),
    ],
)
def test_closed_streams(tmp_path: Path, script: str, rc: int, message: str) -> None:
    command = ["sh", "-c", f"{sys.executable} -m charrnn {script}"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.decode()) == (rc, f"charrnn: {message}\n")


# --- help ---


@pytest.mark.parametrize("command", ["", "train", "sample", "info", "plot", "export"])
def test_help(cli: Cli, command: str) -> None:
    args = [command, "--help"] if command else ["--help"]
    out = cli(*args).stdout.decode()
    assert out.startswith("Usage: ")
    assert "\\b" not in out
    assert "..." not in out.replace("[ARGS]...", "").replace("CORPUS...", "").replace(
        "[RUN]...", ""
    )  # no summary is cut short
    assert re.search(r"^ +charrnn \w+", out, re.M)  # examples keep their lines
    assert cli(*[a.replace("--help", "-h") for a in args]).stdout.decode() == out


def test_version_is_one_line(cli: Cli) -> None:
    out = cli("--version").stdout.decode()
    version = re.escape(charrnn.__version__)
    assert re.fullmatch(rf"charrnn {version}, Python 3\.\S+, NumPy \S+, \S+ \S+, \d+ threads? in training, .+\n", out)


def test_help_starts_without_numpy() -> None:
    code = "import sys, charrnn.cli; sys.exit('numpy' in sys.modules or 'tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENV, check=False).returncode == 0


def test_completion(cli: Cli) -> None:
    assert b"_charrnn_completion" in cli(env={"_CHARRNN_COMPLETE": "bash_source"}).stdout
