"""Compare charrnn with PyTorch and with the naive algorithm: ``python bench/compare.py --help``."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from charrnn.cells import load_cell

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A row of the table: the work, its alternative, and the targets."""

    title: str
    work: str
    cell: str
    L: int
    H: int
    B: int
    T: int
    target: float
    stretch_goal: float
    other: str = "torch"
    options: dict[str, Any] = field(default_factory=dict)

    def job(self, **more: Any) -> dict[str, Any]:
        """Return the job of a worker."""
        work = "train" if self.work == "memory" else self.work
        shape = {"cell": self.cell, "L": self.L, "H": self.H, "B": self.B, "T": self.T, "V": 65}
        return {"work": work, **shape, "workers": 1, "options": self.options, **more}


def operations(cell: str, L: int, H: int, V: int, work: str = "train", **_: object) -> int:
    """Return the floating-point operations of the products per character; one-hot needs none."""
    forward = 2 * (load_cell(cell).NUM_BLOCKS * H * H * (2 * L - 1) + V * H)
    return forward * (3 if work == "train" else 1)  # backward: for the input and for the weights


ADAGRAD = {"optimizer": "adagrad", "clip_norm": 0, "clip_value": 5}
ROWS = {
    "naive": Row(
        "vanilla 1x100, B=1, T=25, compared with the naive algorithm",
        "train",
        "vanilla",
        1,
        100,
        1,
        25,
        6,
        9,
        "naive",
        ADAGRAD,
    ),
    "vanilla-1": Row("vanilla 1x100, B=1, T=25", "train", "vanilla", 1, 100, 1, 25, 6, 10),
    "vanilla": Row("vanilla 1x256, B=32, T=64", "train", "vanilla", 1, 256, 32, 64, 1.6, 2.2),
    "gru": Row("GRU 1x256, B=32, T=64", "train", "gru", 1, 256, 32, 64, 1.5, 2.0),
    "lstm-2x128": Row("LSTM 2x128, B=50, T=50", "train", "lstm", 2, 128, 50, 50, 0.85, 1.1),
    "lstm-1x256": Row("LSTM 1x256, B=32, T=64", "train", "lstm", 1, 256, 32, 64, 0.85, 1.1),
    "default": Row("the defaults: GRU 1x256, B=64, T=64", "train", "gru", 1, 256, 64, 64, 1.6, 2.2),
    "lstm-1x256-64": Row("LSTM 1x256, B=64, T=64", "train", "lstm", 1, 256, 64, 64, 0.95, 1.1),
    "lstm-2x256-64": Row("LSTM 2x256, B=64, T=64", "train", "lstm", 2, 256, 64, 64, 0.95, 1.1),
    "lstm-3x512": Row("LSTM 3x512, B=50, T=50", "train", "lstm", 3, 512, 50, 50, 0.95, 1.15),
    "lstm-1": Row("LSTM 1x128, B=1, T=25", "train", "lstm", 1, 128, 1, 25, 1.3, 1.8),
    "sample-2x128": Row("sampling one text, LSTM 2x128", "sample", "lstm", 2, 128, 1, 1, 3.5, 5),
    "sample-3x512": Row("sampling one text, LSTM 3x512", "sample", "lstm", 3, 512, 1, 1, 3, 4),
    "sample-64": Row("sampling 64 texts, LSTM 2x128", "sample", "lstm", 2, 128, 64, 1, 2, 3),
    "score": Row("scoring a text, LSTM 2x128", "score", "lstm", 2, 128, 64, 64, 1.0, 1.5),
    "memory": Row(
        "peak memory, LSTM 3x512, B=50, T=50", "memory", "lstm", 3, 512, 50, 50, 1.2, 1.5
    ),
    "start": Row("start-up of --help, compared with import torch", "start", "", 0, 0, 0, 0, 10, 15),
}


# of OpenBLAS, of MKL, of PyTorch, of oneDNN
INSTRUCTION_SETS = {
    "avx2": ("Haswell", "AVX2", "avx2", "AVX2"),
    "avx512": ("SkylakeX", "AVX512", "avx512", "AVX512_CORE"),
}


def environment(threads: int, isa: str | None) -> dict[str, str]:
    """Return an environment for this many threads, and one instruction set if it is given."""
    prefixes = ("OPENBLAS_", "MKL_", "OMP_", "ONEDNN_", "DNNL_", "ATEN_", "CHARRNN_")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    clean |= {f"{name}_NUM_THREADS": str(threads) for name in ("OPENBLAS", "OMP", "MKL")}
    if isa:
        names = (
            "OPENBLAS_CORETYPE",
            "MKL_ENABLE_INSTRUCTIONS",
            "ATEN_CPU_CAPABILITY",
            "ONEDNN_MAX_CPU_ISA",
        )
        clean |= dict(zip(names, INSTRUCTION_SETS[isa], strict=True))
    if isa == "avx2":
        clean["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL"
    return clean


class Worker:
    """A process that does the work of one side on request."""

    def __init__(self, python: str, side: str, job: dict[str, Any], env: dict[str, str]) -> None:
        """Start it."""
        command = [python, str(HERE / "worker.py"), side, json.dumps(job)]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: object) -> float:
        """Return the answer to a number of seconds, or to ``memory``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(request, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise click.ClickException(f"{self.process.args!r} ended")
        return float(answer)

    def stop(self) -> None:
        """End it."""
        self.process.communicate()


@contextmanager
def workers(
    specs: Iterable[tuple[str, str, dict[str, Any], dict[str, str]]],
) -> Iterator[list[Worker]]:
    """Start a worker for each of (python, side, job, environment), and stop them at the end."""
    with ExitStack() as stack:
        started = []
        for spec in specs:
            started.append(Worker(*spec))
            stack.callback(started[-1].stop)
        yield started


def spread(ratios: list[float]) -> str:
    """Return the median with the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def speed(row: Row, torch: str, rounds: int, seconds: float, isa: str | None) -> str:
    """Measure a row of characters per second; return a line of the table."""
    # workers share the work; for sampling a single text they are threads of the library
    ours = [
        (
            sys.executable,
            "charrnn",
            row.job(workers=n),
            environment(n if row.work == "sample" and row.B == 1 else 1, isa),
        )
        for n in (1, 2)
    ]
    peaks = [(sys.executable, "peak", {}, environment(n, isa)) for n in (1, 2)]
    names = ["1 thread"]
    others = [(sys.executable, "naive", row.job(), environment(1, isa))]
    if row.other == "torch":
        kinds = [(n, kind) for n in (1, 2) for kind in ("one-hot", "embedding")]
        names = [f"{kind}, {n} thread{'s' * (n > 1)}" for n, kind in kinds]
        others = [(torch, "torch", row.job(input=kind), environment(n, isa)) for n, kind in kinds]
    with workers(ours) as mine, workers(others) as theirs, workers(peaks) as tops:
        trial = [statistics.median(w.ask(seconds) for _ in range(3)) for w in theirs]
        best = trial.index(max(trial))
        rates: list[list[float]] = [[], [], [], [], []]
        for _ in range(rounds):
            for rate, worker in zip(rates, [mine[0], theirs[best], mine[1], *tops], strict=True):
                rate.append(worker.ask(seconds))
    one, other, two, peak1, peak2 = rates
    first = [a / b for a, b in zip(one, other, strict=True)]
    second = [a / b for a, b in zip(two, other, strict=True)]
    median, flops = statistics.median, operations(**row.job())
    return (
        f"| {row.title} | {row.target:g} | {row.stretch_goal:g} "
        f"| {spread(first)} | {spread(second)} "
        f"| {median(one):,.0f}, {median(two):,.0f} | {median(other):,.0f} ({names[best]}) "
        f"| {median(one) * flops / median(peak1):.0%}, {median(two) * flops / median(peak2):.0%} |"
    )


def memory(row: Row, torch: str, rounds: int, seconds: float, isa: str | None) -> str:
    """Measure peak memory after some training; return a line of the table."""
    ours, others = [], []
    for _ in range(rounds):
        specs = [
            (sys.executable, "charrnn", row.job(), environment(1, isa)),
            (torch, "torch", row.job(input="one-hot"), environment(1, isa)),
        ]
        for spec, peaks in zip(specs, (ours, others), strict=True):
            with workers([spec]) as (worker,):
                worker.ask(seconds)
                peaks.append(worker.ask("memory"))
    ratios = [b / a for a, b in zip(ours, others, strict=True)]
    return (
        f"| {row.title} | {row.target:g} | {row.stretch_goal:g} | {spread(ratios)} | "
        f"| {statistics.median(ours):,.0f} MB | {statistics.median(others):,.0f} MB | |"
    )


def start(row: Row, torch: str, rounds: int, seconds: float, isa: str | None) -> str:
    """Measure the start-up time of both sides; return a line of the table."""
    env, ours, others = environment(1, isa), [], []
    commands = (
        [str(Path(sys.executable).parent / "charrnn"), "--help"],
        [torch, "-c", "import torch"],
    )
    for _ in range(rounds + 1):
        for command, times in zip(commands, (ours, others), strict=True):
            started = time.perf_counter()
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(ours, others, strict=True)][1:]  # the first reads the disk
    return (
        f"| {row.title} | {row.target:g} | {row.stretch_goal:g} "
        f"| {spread(ratios)} | | {statistics.median(ours):.3f} s "
        f"| {statistics.median(others):.3f} s | |"
    )


@click.command()
@click.argument("rows", nargs=-1, type=click.Choice([*ROWS]))
@click.option(
    "--torch", default=sys.executable, help="The Python that has PyTorch.  [default: this one]"
)
@click.option("--rounds", default=7, show_default=True, help="How often the sides alternate.")
@click.option("--seconds", default=1.0, show_default=True, help="How long a side works at a time.")
@click.option(
    "--isa",
    type=click.Choice([*INSTRUCTION_SETS]),
    help="Have both sides use this instruction set.  [default: each its own choice]",
)
def main(rows: tuple[str, ...], torch: str, rounds: int, seconds: float, isa: str | None) -> None:
    """Measure ROWS of the table, or all of them."""
    click.echo(
        "| work | target | stretch goal | ratio, 1 worker | 2 workers "
        "| charrnn | other | % of peak |"
    )
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in rows or ROWS:
        measure = {"memory": memory, "start": start}.get(ROWS[name].work, speed)
        click.echo(measure(ROWS[name], torch, rounds, seconds, isa))


if __name__ == "__main__":
    main()
