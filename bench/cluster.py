"""Training on many ranks: predicted from one, and measured on those that there are.

``python bench/cluster.py`` measures a step on one rank and predicts the speed-up on more.
``mpiexec -n 2 python bench/cluster.py`` measures steps on these ranks next to the prediction.
"""

# ruff: noqa: E402 (the number of threads must be set before NumPy is imported)
from __future__ import annotations

from charrnn.cli.common import set_threads

set_threads(1)

import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import click
import numpy as np
from side_charrnn import NEVER, text

from charrnn.cluster import SINGLE, Cluster, connect
from charrnn.config import Config
from charrnn.text.corpus import Corpus
from charrnn.training.loop import train_steps
from charrnn.training.run import Run, begin

MODELS = {"1x256": (1, 256), "2x512": (2, 512), "1x1024": (1, 1024), "3x1024": (3, 1024)}
RANKS = (8, 64, 512)
SPEEDS = (1, 10, 100)  # of the network, Gbit/s
LATENCY = 50e-6  # seconds, of a message; a fast network has less
V, T = 65, 64


def new_run(model: str, lanes: int, cluster: Cluster) -> Run:
    """Return a run of a GRU with some lanes on each rank."""
    L, H = MODELS[model]
    sizes: dict[str, Any] = {"num_layers": L, "hidden_size": H, "seq_length": T}
    never: dict[str, Any] = {"max_steps": NEVER, "eval_every": NEVER, "sample_every": 0}
    none: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0}
    config = Config(**sizes, **never, **none, batch_size=lanes * cluster.size)
    corpus = Corpus("text", text(V, max(1_000_000, 4 * T * lanes * cluster.size)))
    run = begin(corpus, config, workers=1, cluster=cluster)
    run.hidden_state = run.hidden_state[..., cluster.lanes(lanes * cluster.size)].copy()
    return run


def median_time(work: Callable[[], object], rounds: int) -> float:
    """Return the median duration, in seconds; the first call does not count."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def step_time(model: str, lanes: int, cluster: Cluster, rounds: int) -> tuple[float, int]:
    """Return the duration of a training step, in seconds, and the bytes of its gradient."""
    run = new_run(model, lanes, cluster)
    steps = train_steps(run, cluster)
    return median_time(lambda: next(steps), rounds), run.network.grads.vector.nbytes


def all_reduce_time(size: int, ranks: int, gbit: float) -> float:
    """Predict the duration of an all-reduce of ``size`` bytes, in seconds.

    Reduce-scatter and all-gather (Rabenseifner, 2004; Thakur et al., 2005, section 4.5): every rank
    sends 2 (n - 1) / n of the bytes, in 2 log2 n messages.
    """
    bytes_sent = 2 * (ranks - 1) / ranks * size
    return bytes_sent * 8 / (gbit * 1e9) + 2 * math.ceil(math.log2(ranks)) * LATENCY


def predict(models: Iterable[str], lanes: int, batch_size: int | None, rounds: int) -> None:
    """Print the speed-up that is predicted for more ranks."""
    work = f"batch size {batch_size}" if batch_size else f"{lanes} sequences per rank"
    click.echo(f"| model, {work} | network | " + " | ".join(f"{n} ranks" for n in RANKS) + " |")
    click.echo("|---|---|" + "---|" * len(RANKS))
    for model in models:
        ranks = [n for n in RANKS if n <= (batch_size or n)]
        needed = {n: batch_size // n if batch_size else lanes for n in (1, *ranks)}
        measured = {each: step_time(model, each, SINGLE, rounds) for each in {*needed.values()}}
        alone, size = measured[needed[1]]
        title = f"{model}: {alone * 1000:.0f} ms per step, {size / 1e6:.1f} MB"
        for gbit in SPEEDS:
            cells = []
            for n in ranks:
                total = measured[needed[n]][0] + all_reduce_time(size, n, gbit)
                speedup = alone / total * (1 if batch_size else n)
                cells.append(f"{speedup:.1f} ({speedup / n:.0%})")
            cells += ["-"] * (len(RANKS) - len(ranks))
            click.echo(f"| {title} | {gbit} Gbit/s | " + " | ".join(cells) + " |")


def measure(
    models: Iterable[str], cluster: Any, lanes: int, gbit: float | None, rounds: int
) -> None:
    """Print what a step takes on the ranks of a cluster, and what is predicted."""
    if cluster.is_root:
        head = "| model | ranks | step alone, ms | all-reduce, ms | predicted, ms | step, ms |"
        click.echo(head + "\n|---|---|---|---|---|---|")
    for model in models:
        alone, size = step_time(model, lanes, SINGLE, rounds)  # on all ranks at once
        both, _ = step_time(model, lanes, cluster, rounds)
        gradient = np.zeros(size // 4, np.float32)
        reduce = median_time(lambda g=gradient: cluster.sum_gradient(g, 0.0), rounds)
        predicted = "-"
        if gbit:
            predicted = f"{1000 * all_reduce_time(size, cluster.size, gbit):.1f}"
        if cluster.is_root:
            click.echo(
                f"| {model} | {cluster.size} | {alone * 1000:.1f} | {reduce * 1000:.1f} "
                f"| {predicted} | {both * 1000:.1f} |"
            )


@click.command()
@click.argument("models", nargs=-1, type=click.Choice([*MODELS]))
@click.option("--lanes", default=64, show_default=True, help="Sequences of each rank.")
@click.option("--batch-size", type=int, help="Predict for this batch instead, divided by all.")
@click.option("--gbit", type=float, help="Speed of the network between these ranks, in Gbit/s.")
@click.option("--rounds", default=10, show_default=True, help="Steps of each measurement.")
def main(
    models: tuple[str, ...], lanes: int, batch_size: int | None, gbit: float | None, rounds: int
) -> None:
    """Predict the speed-up of MODELS on many ranks, or measure on those of a launcher."""
    cluster, chosen = connect(), models or [*MODELS]
    if cluster.size > 1:
        measure(chosen, cluster, lanes, gbit, rounds)
    else:
        predict(chosen, lanes, batch_size, rounds)


if __name__ == "__main__":
    main()
