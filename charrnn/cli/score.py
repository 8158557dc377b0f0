from __future__ import annotations

import io
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import click

from charrnn.cli import common
from charrnn.cli.common import DEFAULT_THREADS, ModelFile, Number, read_splits
from charrnn.cli.streams import stdout
from charrnn.errors import TextError, UsageError
from charrnn.formatting import escape_control, format_count, loss_unit

if TYPE_CHECKING:
    from charrnn.model import Model


class Score(NamedTuple):  # of a line, of a character or of a file
    number: int  # from 1
    bits: float  # per character
    text: str


@click.command()
@click.option(
    "--per",
    type=click.Choice(["line", "char", "file"]),
    default="line",
    help="Score each line separately, each character, or the whole file.",
)
@click.option(
    "--threshold",
    type=Number(),
    metavar="BITS",
    help="Print only what scores above BITS per character.",
)
@click.option(
    "--quantile",
    type=Number(0, 1),
    metavar="P",
    help="Like --threshold, with the threshold set to this quantile of the scores of the "
    "validation split's lines.",
)
@common.flag("--sort", help="Sort by score, most surprising first.")
@common.json_option(help='Print JSON lines: {"line": 1, "bits": 2.5, "text": "..."}.')
@common.model_argument("[FILE]", last=True)
def score(
    model_file: ModelFile,
    files: list[str],
    per: str,
    threshold: float | None,
    quantile: float | None,
    sort: bool,
    as_json: bool,
) -> None:
    """Score each line of FILE by how surprising the model finds it.

    Print bits per character, a tab and the line. Without FILE, or with -, read standard input and
    print each line as soon as it arrives. The hidden state is reset at the start of every line.

    \b
      charrnn score draft.txt --sort | head -3
      tail -n 20 draft.txt | charrnn score checkpoints/play.npz --threshold 3
      charrnn score checkpoints/play.npz draft.txt --quantile 0.99 --json
    """  # noqa: D301
    if len(files) > 1:
        raise UsageError(f"give one FILE, not {len(files)} (concatenate them with cat)")
    if threshold is not None and quantile is not None:
        raise UsageError("--threshold and --quantile are mutually exclusive")
    out = stdout().buffer
    model = model_file.load()
    if quantile is not None:
        threshold = quantile_threshold(model_file, model, quantile)
    file = files[0] if files else "-"
    live = per == "line" and file == "-" and not sort
    text_encoding = "latin-1" if model.unit == "byte" else model.encoding
    scores: Iterable[Score]
    if live:
        lines = enumerate(read_lines(text_encoding), 1)
        scores = (score for n, line in lines for score in score_lines(model, line, n))
    else:
        scores = score_file(model, file, text_encoding, per)
    if sort:
        scores = sorted(scores, key=lambda score: -score.bits)
    for number, bits, text in scores:
        if threshold is not None and not bits > threshold:
            continue
        row = {"line": number, "bits": bits, "text": text}
        line = common.format_json(row) if as_json else f"{bits:.3f}\t{text}"
        # bytes that could not be decoded are written unchanged
        encoding = "latin-1" if model.unit == "byte" else "utf-8"
        out.write(line.encode(encoding, "surrogateescape") + b"\n")
        if live:
            out.flush()


def score_file(model: Model, file: str, encoding: str, per: str) -> Iterable[Score]:
    """Score a file: its lines, its characters, or all of it. Raises TextError."""
    from charrnn.text.files import decode_bytes, read_file

    data = read_file(file, raw=model.unit == "byte")
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeError:  # UTF-16 and UTF-32 have no way to escape a byte
        text = decode_bytes(data, file, encoding)
    if per == "line":
        return score_lines(model, text)
    nll = model.nll(to_input(model, text), unknown="cost")
    if per == "char":
        bits = (nll / math.log(2)).tolist()
        return map(Score, itertools.count(1), bits, map(escape_control, text))
    if not len(nll):
        return ()
    count = format_count(len(nll), loss_unit(model.unit))
    return (Score(1, float(nll.mean()) / math.log(2), count),)


def read_lines(encoding: str) -> Iterator[str]:
    """Yield each line of standard input, with its newline, as it arrives. Raises TextError."""
    if sys.stdin is None:  # after the shell's <&-
        raise TextError("standard input is closed")
    stdin = cast(io.TextIOWrapper, sys.stdin)
    stdin.reconfigure(encoding=encoding, errors="surrogateescape", newline="\n")
    try:
        yield from stdin
    except UnicodeError as e:  # UTF-16 and UTF-32 have no way to escape a byte
        reason = getattr(e, "reason", e)
        raise TextError(f"standard input: invalid {encoding.upper()} ({reason})") from None


def score_lines(model: Model, text: str, first: int = 1) -> Iterator[Score]:
    bits = model.nll_lines(to_input(model, text), threads=DEFAULT_THREADS) / math.log(2)
    lines = text.removesuffix("\n").split("\n") if text else []
    return map(Score, itertools.count(first), bits.tolist(), lines)


def to_input(model: Model, text: str) -> str | bytes:
    """Return bytes for a byte model, whose text has a character for each byte."""
    return text.encode("latin-1") if model.unit == "byte" else text


def quantile_threshold(model_file: ModelFile, model: Model, quantile: float) -> float:
    """Return the bits per character below which this fraction of the validation lines score."""
    import numpy as np

    split = read_splits(model.state, model_file.path).val
    if not len(split.ids):
        raise UsageError(
            f"{model_file.path}: the run has no validation split; use --threshold BITS instead"
        )
    text = split.text(model.vocabulary)
    nll = model.nll_lines(text, threads=DEFAULT_THREADS)
    return float(np.quantile(nll, quantile)) / math.log(2)
