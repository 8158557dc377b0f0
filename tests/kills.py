"""Kill trainings at random moments and go on with them: in the end each must be the run that was never stopped.

python -m tests.kills 500
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from charrnn import checkpoint
from charrnn.optim import OPTIMIZERS
from tests.conftest import CHARRNN, ENV

FILES = ("a.txt", "b.txt", "c.txt")
# Some 50 windows to an epoch, 1,000 in all; learned by heart, so that the best weights are not the last.
SIZES = "--hidden-size 24 --seq-length 16 --batch-size 8 --max-steps 1000 --eval-every 60 --sample-every 90"
OPTIONS = [
    f"{SIZES} --cell {cell} --num-layers {layers} --dropout {dropout} --optimizer {optimizer} {others}".split()
    for (optimizer, (cell, layers, dropout, others)) in zip(
        itertools.cycle(sorted(OPTIMIZERS)),
        (
            ("lstm", 1, 0.0, ""),
            ("gru", 2, 0.2, ""),
            ("vanilla", 1, 0.3, "--documents line"),
            ("gru", 1, 0.0, "--lr-schedule constant"),
        ),
        strict=False,
    )
]


def texts(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in FILES:  # noise: it can only be learned by heart
        lines = ("".join(rng.choice(list("abcdé한"), rng.integers(5, 30))) for _ in range(120))
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(options: list[str], output: str, *more: str) -> list[str]:
    return [*CHARRNN, "train", *FILES, *options, "-o", output, "-q", *more]


def content(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what a run's file holds, but for the time that it took and how it was called."""
    header, arrays = checkpoint.load(path)
    for key in ("train_seconds", "command", "sha256"):
        del header[key]
    for row in header["history"]:
        del row["seconds"]
    return header, {name: a.tobytes() for name, a in arrays.items()}


def kills(n: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill n trainings; return how many of what happened. Raises AssertionError if a run is lost or another one."""
    rng = np.random.default_rng(seed)
    texts(folder)
    count = dict.fromkeys(("killed", "before the first save", "runs finished and equal"), 0)
    whole: dict[int, Any] = {}
    run = folder / "run.npz"
    for i in itertools.cycle(range(len(OPTIONS))):
        if i not in whole:
            subprocess.run(command(OPTIONS[i], "whole.npz", "--force"), cwd=folder, env=ENV, check=True)
            whole[i] = content(folder / "whole.npz")
            header = json.loads(json.dumps(whole[i][0]))
            assert header["epoch"] > 3
            assert header["best"]["step"] < header["step"]
        while True:
            more = [*FILES, "-o", "run.npz", "-q", "--resume"]
            start = [*CHARRNN, "train", *more] if run.exists() else command(OPTIONS[i], "run.npz")
            with subprocess.Popen([*start, "--save-every", "0.03"], cwd=folder, env=ENV) as process:
                if count["killed"] < n:
                    time.sleep(rng.uniform(0.1, 0.9))
                    if process.poll() is None:
                        process.kill()
                        count["killed"] += 1
            if not run.exists():
                count["before the first save"] += 1
                continue
            header, _ = checkpoint.load(run)  # it is whole at every moment
            if process.returncode == 0:
                break
        assert header["finished"]
        assert content(run) == whole[i], f"another run: {' '.join(OPTIONS[i])}"
        left = {p.name for p in folder.iterdir()} - {*FILES, "whole.npz", "run.npz"}
        assert not left, f"left over: {left}"
        count["runs finished and equal"] += 1
        run.unlink()
        if count["killed"] >= n and i == len(OPTIONS) - 1:  # a slow machine kills all in the first
            return count
    raise AssertionError


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for what, n in kills(arguments.n, arguments.seed, Path(folder)).items():
            print(f"{n:6,} {what}")
