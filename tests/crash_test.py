"""Kill trainings at random moments and resume them: the result matches an uninterrupted run.

``python -m tests.crash_test 1000`` does this for 1,000 runs with random options, texts and kills.
Those of run R follow from the seed and R: ``1 --first R`` repeats them, but for the exact times.
"""

# ruff: noqa: E402 (the number of threads must be set before NumPy is imported)
from __future__ import annotations

from charrnn.cli.common import set_threads

set_threads(1)

import argparse
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import charrnn.training.loop  # noqa: F401 (once, for all forked processes)
from charrnn.cli import main
from charrnn.config import ARCHITECTURE_OPTIONS, CELLS
from charrnn.optim import OPTIMIZERS, SCHEDULES
from charrnn.storage import checkpoint

CORPORA = ("a.txt", "a.txt b.txt c.txt", "folder", "folder b.txt")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
REPORTED = ("cell", "num-layers", "unit", "documents", "optimizer", "dtype", "workers", "init")
ENDED = (0, 6)  # exit codes of a run that goes no further: finished, or too often not finite


class Result(NamedTuple):
    """Of a run that was killed: the step of the checkpoint at each kill, the processes' ends."""

    steps: list[int]
    ends: list[str]


def content(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the state and the arrays of a checkpoint, without times and the command."""
    state, arrays = checkpoint.read_checkpoint(path)
    fields = vars(state)
    for key in ("train_seconds", "command", "sha256"):
        del fields[key]
    for row in fields["history"]:
        del row["seconds"]
    return fields, {name: a.tobytes() for name, a in arrays.items()}


def write_texts(rng: np.random.Generator) -> None:
    """Write small texts of noise, which can only be memorized."""
    Path("folder", "deeper").mkdir(parents=True)
    names = [*"abc", "val", *(f"folder/{i}" for i in range(8)), "folder/deeper/a"]
    for name in names:
        lines = ("".join(rng.choice([*"abcdé한글12\t"], rng.integers(3, 30))) for _ in range(40))
        Path(f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_options(rng: np.random.Generator) -> dict[str, str]:
    """Draw the options of a run; "corpus" are its texts, and "init" is its initial model."""

    def draw(*values: Any) -> str:
        return str(values[rng.integers(len(values))])

    options = {
        "cell": draw(*CELLS),
        "unit": draw("char", "byte", "jamo", "word"),
        "documents": draw("none", "line", "file"),
        "num-layers": draw(1, 2, 3),
        "dtype": draw("float32", "float64"),
        "hidden-size": draw(4, 9, 16),
        "seq-length": draw(8, 16, 23),
        "batch-size": draw(2, 5, 8),
        "dropout": draw(0, 0.2, 0.5),
        "optimizer": draw(*OPTIMIZERS),
        "lr-schedule": draw(*SCHEDULES),
        "clip-value": draw(0, 0, 0.01),
        "workers": draw(1, 2),
        "max-steps": str(rng.integers(100, 251)),
        "eval-every": str(rng.integers(5, 80)),
        "sample-every": draw(0, 30, 90),
        "seed": str(rng.integers(2**62)),
        "corpus": draw(*CORPORA),
        "init": draw("none", "none", "run", "model"),
    }
    vocabulary = draw("", "", "min-count 40", "max-vocab 7")
    split = draw("", "", "val-file val.txt", "val-fraction 0", "test-fraction 0")
    for name, value in (pair.split() for pair in (vocabulary, split) if pair):
        options[name] = value
    if rng.random() < 0.2:  # some updates overflow, in a few runs too many
        low = 18 if options["dtype"] == "float32" else 152.5
        options["learning-rate"] = f"{10 ** rng.uniform(low, low + 2.5):.3g}"
    options["mask"] = (
        draw("none", "numbers", "identifiers") if options["unit"] != "byte" else "none"
    )
    return options


def commands(options: dict[str, str]) -> list[list[str]]:
    """Return the commands that write the initial model, and last the one of the run."""
    flags = {k: v for k, v in options.items() if k not in ("corpus", "init") and v != "none"}
    first, begin = ["train", "c.txt", "-o", "run-0.npz", "--max-steps", "3"], list[list[str]]()
    if options["init"] != "none":
        for name in ARCHITECTURE_OPTIONS:  # of the initial model
            if (flag := name.replace("_", "-")) in flags:
                first += [f"--{flag}", flags.pop(flag)]
        begin = [first, ["export", "run-0.npz", "-o", "model-0.npz"]]
        flags["init-from"] = f"{options['init']}-0.npz"
    args = itertools.chain(*((f"--{flag}", value) for flag, value in flags.items()))
    return [*begin, ["train", *options["corpus"].split(), *args]]


def start(command: list[str]) -> Any:
    """Start ``charrnn`` in a forked process, which imports nothing again; it prints to log.txt."""

    def run() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of SIGXCPU
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        main(command)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def finish(begin: list[str], resume: list[str], delays: Any, rng: Any) -> Result:
    """Train run.npz to its end, but kill it after each of these delays, in seconds.

    Some kills follow another signal, which may save the run or end it by itself.
    """
    run, result = Path("run.npz"), Result([], [])
    for delay in [*delays, None]:
        process = start([*(resume if run.exists() else begin), "-o", str(run)])
        process.join(delay)
        is_kill = rng.random() < 0.6
        number = signal.SIGKILL if is_kill else getattr(signal, str(rng.choice(SIGNALS)))
        if process.is_alive():
            os.kill(process.pid, number)
            process.join(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        code = process.exitcode
        result.ends.append(signal.Signals(-code).name if code < 0 else f"exit {code}")
        # the file is complete at every moment
        step = checkpoint.read_checkpoint(run)[0].step if run.exists() else 0
        if code in ENDED:
            break
        result.steps.append(step)
        # 1: Ctrl-C before the command has begun
        allowed = {-signal.SIGKILL, -number, 128 + number, number == signal.SIGINT}
        assert code in allowed, f"exit code {code} after signal {number}"
    return result


def check_run(rng: np.random.Generator, options: dict[str, str]) -> Result:
    """Do a run in the current, empty folder, and again with kills; compare them."""
    write_texts(rng)
    *before, run = commands(options)
    for command in before:
        process = start(command)
        process.join()
        assert process.exitcode == 0, command
    began = time.monotonic()
    whole = start([*run, "-o", "whole.npz"])
    whole.join()
    seconds = time.monotonic() - began
    assert whole.exitcode in ENDED, f"exit code {whole.exitcode}"

    names = {path.name for path in Path().iterdir()} | {"run.npz", ".run.npz.lock"}
    save = ["--save-every", str(rng.choice([0, 0.01, 0.05]))]
    resume = ["train", *options["corpus"].split(), "--resume", *save]
    delays = rng.uniform(0.1 * seconds, 0.8 * seconds, rng.integers(1, 6))
    result = finish([*run, *save], resume, delays, rng)
    assert result.ends[-1] == f"exit {whole.exitcode}", f"{result}, not exit {whole.exitcode}"
    assert content(Path("run.npz")) == content(Path("whole.npz")), f"another model, {result}"
    assert {path.name for path in Path().iterdir()} == names, "other files"
    log = Path("log.txt").read_text(encoding="utf-8")
    assert "KeyboardInterrupt" in log or "Traceback" not in log, "traceback"
    return result


def check_in_folder(seed: int, number: int) -> tuple[dict[str, str], Result, str]:
    """Check a run; return its options, how it went, and an error or nothing."""
    rng = np.random.default_rng([seed, number])
    options = draw_options(rng)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return options, check_run(rng, options), ""
        except Exception as e:
            log = Path("log.txt").read_text(encoding="utf-8") if Path("log.txt").exists() else ""
            return options, Result([], []), f"{type(e).__name__}: {e}\n{log[-2000:]}"
        finally:
            os.chdir(os.path.sep)


def check_runs(n: int, seed: int, first: int, workers: int) -> int:
    """Check n runs, and print what was tested; return the number of failures."""
    began, steps, ends, failures = time.monotonic(), list[int](), Counter[str](), 0
    runs, killed = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        results = pool.map(functools.partial(check_in_folder, seed), range(first, first + n))
        for i, (options, result, failure) in enumerate(results, 1):
            keys = [(name, options[name]) for name in REPORTED]
            runs.update(keys)
            killed.update(keys if result.steps else [])
            steps += result.steps
            ends.update(result.ends)
            if failure:
                failures += 1
                command = f"python -m tests.crash_test 1 --seed {seed} --first {first + i - 1}"
                print(f"{command}\n{options}\n{failure}", flush=True)
            if i % 50 == 0 or i == n:
                seconds = time.monotonic() - began
                print(
                    f"{i} runs, {len(steps)} kills, {failures} failed, {seconds:.0f} s", flush=True
                )
    print(f"{len(steps)} kills at {len(set(steps))} distinct steps")
    print("ends: " + ", ".join(f"{end} {count}" for end, count in ends.most_common()))
    print("runs that were killed at least once, of all:")
    for name in REPORTED:
        values = sorted(value for key, value in runs if key == name)
        counts = (f"{v} {killed[name, v]}/{runs[name, v]}" for v in values)
        print(f"  {name}: {', '.join(counts)}")
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int)
    for name, default in (("seed", 0), ("first", 0), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sys.exit(check_runs(**vars(parser.parse_args())) > 0)
