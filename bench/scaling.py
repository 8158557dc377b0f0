"""Measure how the cost grows, one axis at a time: ``python bench/scaling.py --help``."""

from __future__ import annotations

import statistics
import sys

import click
from compare import INSTRUCTION_SETS, environment, operations, workers

BASE = {"cell": "lstm", "L": 1, "H": 256, "B": 32, "T": 64, "V": 65}
AXES = {
    "H": (64, 128, 256, 512, 1024),
    "L": (1, 2, 3, 4),
    "B": (1, 4, 8, 16, 32, 64, 128, 256),
    "T": (16, 32, 64, 128, 256),
    "V": (27, 65, 128, 129, 500, 1500, 5000),
}


@click.command()
@click.argument("axes", nargs=-1, type=click.Choice([*AXES]))
@click.option("--workers", "size", default=1, show_default=True)
@click.option(
    "--rounds", default=3, show_default=True, help="How often a cell and the peak alternate."
)
@click.option("--seconds", default=1.0, show_default=True, help="How long each works at a time.")
@click.option("--isa", type=click.Choice([*INSTRUCTION_SETS]), help="Use this instruction set.")
def main(axes: tuple[str, ...], size: int, rounds: int, seconds: float, isa: str | None) -> None:
    """Measure along AXES, or all of them, from LSTM 1x256, B=32, T=64, V=65."""
    env = environment(size, isa)
    click.echo(
        "| | characters per second | µs per character | Gflop/s of products | % of peak |\n"
        "|---|---|---|---|---|"
    )
    for axis in axes or AXES:
        for value in AXES[axis]:
            shape = BASE | {axis: value}
            job = {"work": "train", "workers": size, **shape}
            specs = [
                (sys.executable, "charrnn", job, environment(1, isa)),
                (sys.executable, "peak", {}, env),
            ]
            with workers(specs) as (ours, peak):
                rates = [(ours.ask(seconds), peak.ask(seconds)) for _ in range(rounds)]
            speed, top = (statistics.median(each) for each in zip(*rates, strict=True))
            flops = speed * operations(**shape)
            click.echo(
                f"| {axis}={value} | {speed:,.0f} | {1e6 / speed:.2f} "
                f"| {flops / 1e9:.0f} | {flops / top:.0%} |"
            )


if __name__ == "__main__":
    main()
