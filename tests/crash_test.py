"""Kill trainings at random moments and resume them: the result matches an uninterrupted run.

python -m tests.crash_test 500
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.cli import main
from charrnn.optim import OPTIMIZERS
from charrnn.storage import checkpoint

FILES = ("a.txt", "b.txt", "c.txt")
# about 50 steps per epoch: the model overfits, so that the best weights are not the last
SIZES = (
    "--hidden-size 24 --seq-length 16 --batch-size 8 --max-steps 700 "
    "--eval-every 60 --sample-every 90"
)
MODELS = (
    "--cell lstm",
    "--cell gru --num-layers 2 --dropout 0.2 --threads 1",
    "--cell vanilla --dropout 0.3 --documents line --threads 1",
    "--cell gru --lr-schedule constant --threads 1",
)
OPTIONS = [
    f"{SIZES} {model} --optimizer {optimizer}".split()
    for model, optimizer in zip(MODELS, itertools.cycle(sorted(OPTIMIZERS)), strict=False)
]


def write_texts() -> None:
    rng = np.random.default_rng(0)
    for name in FILES:  # noise, which can only be memorized
        lines = ("".join(rng.choice(list("abcdé한"), rng.integers(5, 30))) for _ in range(120))
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def content(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the state and the arrays of a checkpoint, without times and the command."""
    state, arrays = checkpoint.read_checkpoint(path)
    fields = vars(state)
    for key in ("train_seconds", "command", "sha256"):
        del fields[key]
    for row in fields["history"]:
        del row["seconds"]
    return fields, {name: a.tobytes() for name, a in arrays.items()}


def start(*args: str) -> Any:
    """Start ``charrnn train`` in a forked process, which imports nothing again."""
    command = ["train", *FILES, "-q", *args]
    process = multiprocessing.get_context("fork").Process(target=main, args=(command,))
    process.start()
    return process


def finish(options: list[str], delays: Iterable[float]) -> list[int]:
    """Train a run to its end, but kill it after each of these delays, in seconds.

    Return the step of the checkpoint at each kill.
    """
    run, steps = Path("run.npz"), list[int]()
    for delay in itertools.chain(delays, itertools.repeat(None)):
        begin = ["--resume"] if run.exists() else options
        process = start(*begin, "-o", str(run), "--save-every", "0.03")
        process.join(delay)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        # the file is complete at every moment
        step = checkpoint.read_checkpoint(run)[0].step if run.exists() else 0
        if process.exitcode == 0:
            break
        steps.append(step)
    return steps


def kill_trainings(n: int, seed: int = 0) -> None:
    """Kill n trainings in the current folder.

    Raises AssertionError if a run is lost or differs from the uninterrupted one.
    """
    rng = np.random.default_rng(seed)
    write_texts()
    for k, options in enumerate(OPTIONS):
        began = time.monotonic()
        start(*options, "-o", "whole.npz", "--force").join()
        seconds = time.monotonic() - began
        state, _ = whole = content(Path("whole.npz"))
        assert state["epoch"] > 3
        assert state["best"]["step"] < state["step"]
        left = n * (k + 1) // len(OPTIONS) - n * k // len(OPTIONS)
        while left > 0:
            steps = finish(options, rng.uniform(0, seconds / 2, left))
            assert content(Path("run.npz")) == whole, " ".join(options)
            Path("run.npz").unlink()
            print(f"killed {len(steps):3} times, at steps {steps}; equal in the end")
            left -= len(steps)
    files = {path.name for path in Path().iterdir() if not path.name.endswith(".lock")}
    assert files == {*FILES, "whole.npz"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        kill_trainings(arguments.n, arguments.seed)
