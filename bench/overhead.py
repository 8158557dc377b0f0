"""Overhead of the command line compared with the bare training loop: the bar and the output.

See ``overhead.py --help``.
"""

# ruff: noqa: E402 (the number of threads must be set before NumPy is imported)
from __future__ import annotations

from charrnn.cli.common import set_threads

set_threads(1)

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
from side_charrnn import NEVER, text

from charrnn.cli.progress import Display
from charrnn.config import Config
from charrnn.text.corpus import Corpus
from charrnn.training.loop import StepResult, train_steps, train_with_saves
from charrnn.training.run import Run, begin

SIZES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "vanilla 1x100, B=1, T=25": {
        "cell": "vanilla",
        "hidden_size": 100,
        "batch_size": 1,
        "seq_length": 25,
    },
}


def rate(stepping: Iterator[StepResult], seconds: float) -> float:
    """Return characters per second, measured for some seconds."""
    characters, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        characters += next(stepping).characters
    return characters / elapsed


def train_with_display(run: Run, display: Display) -> Iterator[StepResult]:
    """Train as the command does."""
    for step in train_with_saves(run, None):
        display.update(step)
        yield step


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Times that the two alternate.")
@click.option("--seconds", default=1.0, show_default=True, help="Seconds that each runs at a time.")
def main(rounds: int, seconds: float) -> None:
    """Measure the speed of the command relative to the training loop, with a bar on a terminal."""
    master, slave = os.openpty()
    reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL)
    sys.stderr = os.fdopen(slave, "w")
    click.echo("| | relative speed of the command |\n|---|---|")
    for name, options in SIZES.items():
        plan = {"max_steps": NEVER, "eval_every": NEVER, "sample_every": 0}
        config = Config(**plan, val_fraction=0, test_fraction=0, **options)
        corpus = Corpus("text", text(65))
        bare, run = (begin(corpus, config, workers=2) for _ in range(2))
        with Display(run, quiet=False) as display:
            trainer, command = train_steps(bare), train_with_display(run, display)
            ratios = []
            for i in range(rounds):
                order = (trainer, command) if i % 2 == 0 else (command, trainer)
                rates = {loop: rate(loop, seconds) for loop in order}
                ratios.append(rates[command] / rates[trainer])
        click.echo(
            f"| {name} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
        )
    reader.kill()


if __name__ == "__main__":
    main()
