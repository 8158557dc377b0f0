"""Measure models of public texts on their test splits: ``python bench/quality.py --help``.

The texts are not part of the project; data/README.md says where they come from. A copy that differs
is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

TEXTS = {
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed": "tinyshakespeare",
    "34e74f03cc0843a41c5aba62f753fc921b2e0416e2b3d49f981a5c10e21e621b": "Linux, C",
    "baf4504af9c4b16ce50f3fdb0ca6f4985e75f78bb4b8f0c1165cdee677bc8e44": "LaTeX",
    "fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e": "War and Peace",
    "01db1e8cb630b3e717afc6ad2d42ef2c8cd402b5e39b399c4c3a462974548ee4": "Korean",
}
ROWS = {
    "bits": "network",
    "adapted": "network, adapted",
    "baseline": "best fixed n-grams",
    "counts": "n-grams that learn",
    "mixed": "adapted and mixed",
}


def charrnn(*args: str | Path) -> str:
    """Run a command; return what it prints on standard output."""
    command = [sys.executable, "-m", "charrnn", *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def identify(text: Path) -> str:
    """Return the name of a public text. Raises BadParameter for another one."""
    sha256 = hashlib.sha256(text.read_bytes()).hexdigest()
    if sha256 not in TEXTS:
        raise click.BadParameter(f"{text} is none of {', '.join(TEXTS.values())}")
    return TEXTS[sha256]


def measure(text: Path, folder: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """Train on a text; return the losses of its test split, in bits per character."""
    path = folder / f"{text.stem}.npz"
    charrnn("train", text, "-o", path, "--force", "--quiet", *options)
    row = json.loads(charrnn("eval", path, "--split", "test", "--adapt", "--json"))
    nats = {**row, "bits": row["nats"], "baseline": min(row["baselines"].values())}
    return {key: nats[key] / math.log(2) for key in ROWS}


@click.command()
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--folder", default=Path("checkpoints"), type=click.Path(path_type=Path))
@click.option("--options", default="", help="Options of charrnn train, in one argument.")
def main(texts: tuple[Path, ...], folder: Path, options: str) -> None:
    """Train on copies of the TEXTS, and print a table of their test losses."""
    names = [identify(text) for text in texts]
    columns = [measure(text, folder, tuple(options.split())) for text in texts]
    click.echo(f"| bits per character | {' | '.join(names)} |")
    click.echo("|---|" + "---:|" * len(names))
    for key, title in ROWS.items():
        click.echo(f"| {title} | {' | '.join(f'{column[key]:.3f}' for column in columns)} |")


if __name__ == "__main__":
    main()
