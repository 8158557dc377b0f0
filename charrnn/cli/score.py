"""``charrnn score``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.checkpoints import newest, parted
from charrnn.cli.threads import THREADS, set_threads
from charrnn.errors import SaveError, TextError, UsageError, one_line

if TYPE_CHECKING:
    from charrnn.model import Model

Row = tuple[int, float, str]  # its number, bits per character, the text


@click.command()
@click.argument("paths", nargs=-1, metavar="[CHECKPOINT] [FILE]")
@click.option(
    "--per",
    type=click.Choice(["line", "char", "file"]),
    default="line",
    show_default=True,
    help="What gets a score: each line by itself, each character, or the whole.",
)
@click.option("--threshold", type=float, metavar="BITS", help="Pass on only what is above.")
@click.option(
    "--quantile",
    type=click.FloatRange(0, 1),
    help="The same, with the bits that this share of the validation part's lines stays below.",
)
@click.option("--sort", is_flag=True, help="The oddest first.")
@click.option("--last", is_flag=True, help="Use the last weights, not the best.")
@click.option("--json", "as_json", is_flag=True, help='JSON: {"line": 1, "bits": 2.5, "text": "..."}.')
def score(
    paths: tuple[str, ...],
    per: str,
    threshold: float | None,
    quantile: float | None,
    sort: bool,
    last: bool,
    as_json: bool,
) -> None:
    """Tell how odd CHECKPOINT finds each line of FILE.

    Prints bits per character, a tab, the line. Without a file, or with -, lines are read from standard input and
    passed on as they come. Every line begins afresh. Without a checkpoint (a name that ends in .npz) the newest run
    in ./checkpoints is taken, or else the example.

    \b
      charrnn score draft.txt --sort | head -3
      tail -n 20 draft.txt | charrnn score checkpoints/play.npz --threshold 3
      charrnn score checkpoints/play.npz draft.txt --quantile 0.99 --json
    """  # noqa: D301
    checkpoint, files = parted(paths, text=False)
    path = checkpoint or newest()
    if len(files) > 1:
        raise UsageError(f"one FILE at a time, not {len(files)}; cat joins them")
    if threshold is not None and quantile is not None:
        raise UsageError("--threshold and --quantile are two ways to say the same: give one of them")
    if sys.stdout is None:  # the shell's >&-
        raise SaveError("standard output is closed")
    set_threads(1)

    from charrnn.model import load

    model = load(path, last=last)
    click.echo(f"charrnn: {path}", err=True)
    if quantile is not None:
        threshold = of_quantile(path, model, quantile)
    rows = scored(model, files[0] if files else "-", per, sort)
    for n, value, text in rows:
        if threshold is not None and not value > threshold:
            continue
        line = json.dumps({"line": n, "bits": value, "text": text}) if as_json else f"{value:.3f}\t{text}"
        # what could not be decoded goes out as it came in
        data = line.encode("latin-1") if model.unit == "byte" else line.encode("utf-8", "surrogateescape")
        sys.stdout.buffer.write(data + b"\n")
        if per == "line" and not sort:
            sys.stdout.buffer.flush()


def scored(model: Model, file: str, per: str, sort: bool) -> Iterable[Row]:
    """Score a file, each line of standard input as it comes if that can be."""
    from charrnn.corpus import read_file

    if per == "line" and file == "-" and not sort:
        return live(model)
    text = read_file(file)
    rows = list(enumerate(scores(model, text, per), 1))
    order = sorted(rows, key=lambda row: -row[1][0]) if sort else rows
    return ((n, value, shown) for n, (value, shown) in order)


def live(model: Model) -> Iterator[Row]:
    if sys.stdin is None:  # the shell's <&-
        raise TextError("standard input is closed")
    for n, line in enumerate(iter(sys.stdin.buffer.readline, b""), 1):
        ((value, shown),) = scores(model, line, "line")
        yield n, value, shown


def scores(model: Model, data: bytes, per: str) -> Iterator[tuple[float, str]]:
    """Yield bits per character and the text of each line, of each character, or of the whole."""
    text = data if model.unit == "byte" else data.decode(model.encoding, "surrogateescape")
    shown = data.decode("latin-1") if isinstance(text, bytes) else text
    if per == "line":
        values = model.score_lines(text, threads=THREADS)
        lines = shown.split("\n")
        yield from zip((values / math.log(2)).tolist(), lines if lines[-1] else lines[:-1], strict=True)
        return
    nats = model.score(text, unknown="cost")
    if per == "char":
        yield from zip((nats / math.log(2)).tolist(), map(one_line, shown), strict=True)
    elif len(nats):
        yield float(nats.mean()) / math.log(2), f"{len(nats):,} characters"


def of_quantile(path: Path, model: Model, quantile: float) -> float:
    """Return the bits per character that this share of the validation part's lines stays below."""
    import numpy as np

    from charrnn.cli.eval import own, trained

    run = trained(path, model)
    if not len(run.val):
        raise UsageError(f"{path}: the run has no validation part; --threshold BITS says what is odd")
    return float(np.quantile(model.score_lines(own(run, model, "val"), threads=THREADS), quantile)) / math.log(2)
