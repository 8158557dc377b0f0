from __future__ import annotations

import io
import math
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count, Number, read_splits
from charrnn.cli.streams import print_message, stdout
from charrnn.errors import TextError, UsageError
from charrnn.formatting import escape_control
from charrnn.text.masks import mask_text

if TYPE_CHECKING:
    from charrnn.adaptive import AdaptiveNetwork
    from charrnn.mixture import LearningMixture
    from charrnn.model import Model


class Score(NamedTuple):
    """The score of a line, of a character or of a file."""

    value: float | None  # bits per character; None for an empty line, which has no score
    shown: str  # next to it
    row: dict[str, Any]  # as JSON
    characters: int
    unknown: int  # of the characters
    is_context: bool = False


class Learners(NamedTuple):
    """What learns from line to line."""

    learner: LearningMixture | None = None
    adaptive: AdaptiveNetwork | None = None

    @classmethod
    def of(cls, model: Model, mix: bool, adapt: bool) -> Learners:
        """Return those of a model. Raises CheckpointError."""
        learner = model.learning_mixture(adapt=adapt) if mix else None
        return cls(learner, model.adaptive_network() if adapt else None)


@click.command()
@click.option(
    "--per",
    type=click.Choice(["line", "char", "file"]),
    default="line",
    help="Score each line separately, each character, or the whole file.",
)
@click.option(
    "--context",
    type=Count(0),
    help="With --threshold or --quantile: print N lines around each line as well.",
)
@common.flag(
    "--collapse",
    help="Print lines that are the same, but for what the model masks, once, with their number.",
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
@common.mix_option(
    default=False,
    help="Mix the network with the n-grams of its training text, which learn as they read.  "
    "[default: no-mix]",
)
@common.adapt_option
@common.json_option(help="Print JSON lines; docs/evaluating.md lists the keys.")
@model_argument("[FILE]...", last=True)
def score(
    model_file: ModelFile,
    files: list[str],
    per: str,
    context: int | None,
    collapse: bool,
    threshold: float | None,
    quantile: float | None,
    sort: bool,
    mix: bool,
    adapt: bool,
    as_json: bool,
) -> None:
    """Score each line of FILE by how surprising the model finds it.

    Print a score in bits per character, a tab and the line. Two thirds of the score are the mean
    over the line, one third the mean over its most surprising 12 characters. FILE may be a folder.
    Without FILE, or with -, read standard input and print each line as soon as it arrives. The
    hidden state is reset at the start of every line. An empty line has no score.

    \b
      charrnn score draft.txt --sort | head -3
      tail -n 20 draft.txt | charrnn score checkpoints/play.npz --threshold 3
      charrnn score checkpoints/play.npz draft.txt --quantile 0.99 --json
      charrnn score draft.txt --threshold 4 --context 2
    """  # noqa: D301
    check_options(per, threshold, quantile, context, collapse, sort or as_json)
    if not files:
        common.check_stdin_once(["-"])
    stdout()
    model = model_file.load()
    how = {"mix": mix, "adapt": adapt}
    if quantile is not None:
        threshold = quantile_threshold(model_file, model, quantile, how)
    learners = Learners.of(model, **how) if per == "line" else Learners()
    files = common.expand_folders(files or ["-"], model)
    live = per == "line" and files == ["-"] and not sort and not collapse
    unknown = UnknownCharacters()

    # score, filter, sort
    scores: Iterable[Score]
    found: Iterable[Score | None]
    if live:
        lines = enumerate(read_lines(text_encoding(model)), 1)
        scores = (score for n, line in lines for score in score_lines(model, line, learners, n))
    else:
        scores = (score for file in files for score in score_file(model, file, per, learners, how))
    found = scores = unknown.count(scores)
    if threshold is not None:
        found = select(scores, threshold, context)
    if collapse:
        found = collapse_repeats(found, model.mask)
    if sort:
        scored = (s for s in found if s and s.value is not None)
        found = sorted(scored, key=lambda s: -((s and s.value) or 0))

    show_file = len(files) > 1 and per == "line"
    write_scores(found, model.unit, as_json, live, show_file)
    unknown.report(model_file.path)


def check_options(
    per: str,
    threshold: float | None,
    quantile: float | None,
    context: int | None,
    collapse: bool,
    reordered: bool,
) -> None:
    """Raise UsageError for options that exclude each other."""
    if threshold is not None and quantile is not None:
        raise UsageError("--threshold and --quantile are mutually exclusive")
    if per != "line" and (context is not None or collapse):
        raise UsageError(f"--context and --collapse are about lines, not --per {per}")
    if context is not None:
        if reordered or collapse:
            raise UsageError("--context cannot be combined with --sort, --json or --collapse")
        if threshold is None and quantile is None:
            raise UsageError("--context needs --threshold or --quantile")


class UnknownCharacters:
    """Counts the characters of the scored texts that the model does not know."""

    def __init__(self) -> None:
        self.unknown = self.characters = 0

    def count(self, scores: Iterable[Score]) -> Iterator[Score]:
        for score in scores:
            self.unknown += score.unknown
            self.characters += score.characters
            yield score

    def report(self, path: Path) -> None:
        """Print on stderr which share is unknown, if any is."""
        if self.unknown:
            share = self.unknown / self.characters
            ask = ": wrong checkpoint?" * (share > common.WRONG_CHECKPOINT_SHARE)
            print_message(f"charrnn: {share:.1%} of the characters are unknown to {path}{ask}")


def select(
    scores: Iterable[Score], threshold: float, context: int | None
) -> Iterator[Score | None]:
    """Yield the scores above the threshold, each with ``context`` lines around it.

    With a context, None comes between two groups that are not adjacent.
    """
    before = deque[Score](maxlen=context or 0)
    after, is_first, is_adjacent = 0, True, True
    for score in scores:
        if score.row.get("line") == 1:  # of another file
            before.clear()
            after, is_adjacent = 0, False
        if score.value is not None and score.value > threshold:
            if not (context is None or is_first or is_adjacent):
                yield None
            yield from before
            yield score
            before.clear()
            after, is_first, is_adjacent = context or 0, False, True
        elif after:
            after -= 1
            yield score._replace(is_context=True)
        else:
            is_adjacent = is_adjacent and len(before) < (context or 0)
            before.append(score._replace(is_context=True))


def collapse_repeats(scores: Iterable[Score | None], mask: str | None) -> list[Score]:
    """Return the first of the lines that are the same once masked, with their number."""
    first, counts = dict[str, Score](), Counter[str]()
    for score in filter(None, scores):
        masked = mask_text(score.shown, mask)
        first.setdefault(masked, score)
        counts[masked] += 1
    return [s._replace(row={**s.row, "count": counts[masked]}) for masked, s in first.items()]


def write_scores(
    scores: Iterable[Score | None], unit: str, as_json: bool, live: bool, show_file: bool
) -> None:
    """Write a line for each score, if it is ``live`` at once; ``show_file``: with its place."""
    out = stdout().buffer
    # bytes that could not be decoded are written unchanged
    encoding = "latin-1" if unit == "byte" else "utf-8"
    for score in scores:
        if score is None:
            line = "--"
        elif as_json:
            line = common.format_json(score.row)
        else:
            line = format_score(score, show_file)
        out.write(line.encode(encoding, "surrogateescape") + b"\n")
        if live:
            out.flush()


def format_score(score: Score, show_file: bool) -> str:
    """Return a score and its line; a line of the context has none, and - in place of a colon."""
    value = "" if score.value is None or score.is_context else f"{score.value:.3f}"
    count = f"{score.row['count']}\t" if "count" in score.row else ""
    colon = "-" if score.is_context else ":"
    place = f"{score.row['file']}{colon}{score.row['line']}{colon}" if show_file else ""
    return f"{value}\t{count}{place}{score.shown}"


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


def score_file(
    model: Model, file: str, per: str, learners: Learners, how: dict[str, bool]
) -> Iterable[Score]:
    """Score a file: its lines, its characters, or all of it. Raises TextError."""
    from charrnn.text.files import decode_bytes, display_name, read_file

    data = read_file(file, raw=model.unit == "byte")
    encoding = text_encoding(model)
    try:
        text = data.decode(encoding, "surrogateescape")
    except UnicodeError:  # UTF-16 and UTF-32 have no way to escape a byte
        text = decode_bytes(data, file, encoding)
    name = display_name(file)
    if per == "line":
        return score_lines(model, text, learners, file=name)
    text = mask_text(text, model.mask)
    if per == "char":
        return score_characters(model, text, name, how)
    return score_whole(model, text, name, how) if text else ()


def score_lines(
    model: Model,
    text: str,
    learners: Learners,
    first: int = 1,
    file: str = "standard input",
) -> Iterator[Score]:
    lines = text.removesuffix("\n").split("\n") if text else []
    nats = model.score_lines(to_input(model, text), **learners._asdict())
    columns = [(of_lines / math.log(2)).tolist() for of_lines in (nats.score, *nats)]
    for n, (line, *of_line) in enumerate(zip(lines, *columns, strict=True), first):
        value, bits, stretch = of_line if line else (None, None, None)
        is_unknown = common.is_unknown(model, to_input(model, line))
        characters, unknown = len(is_unknown), int(is_unknown.sum())
        row = {"file": file, "line": n, "score": value, "bits": bits, "stretch": stretch}
        row |= {"unknown": unknown / max(characters, 1), "text": line}
        yield Score(value, line, row, characters, unknown)


def score_characters(model: Model, text: str, file: str, how: dict[str, bool]) -> Iterator[Score]:
    source = to_input(model, text)
    bits = (model.nll(source, unknown="cost", **how) / math.log(2)).tolist()
    line = column = 1
    for offset, (c, of_c, is_unknown) in enumerate(
        zip(text, bits, common.is_unknown(model, source).tolist(), strict=True)
    ):
        at = {"line": line, "column": column, "offset": offset}
        row = {"file": file, **at, "bits": of_c, "unknown": is_unknown, "text": c}
        yield Score(of_c, escape_control(c), row, 1, int(is_unknown))
        line, column = (line + 1, 1) if c == "\n" else (line, column + 1)


def score_whole(model: Model, text: str, file: str, how: dict[str, bool]) -> Iterator[Score]:
    source = to_input(model, text)
    bits = float(model.nll(source, unknown="cost", **how).mean()) / math.log(2)
    n, unknown = len(text), int(common.is_unknown(model, source).sum())
    lines = text.count("\n") + (not text.endswith("\n"))
    row = {"file": file, "lines": lines, "characters": n, "bits": bits, "unknown": unknown / n}
    yield Score(bits, escape_control(file), row, n, unknown)


def text_encoding(model: Model) -> str:
    """Return the encoding of the texts; a byte is read as the character of the same number."""
    return "latin-1" if model.unit == "byte" else model.encoding


def to_input(model: Model, text: str) -> str | bytes:
    """Return bytes for a byte model, whose text has a character for each byte."""
    return text.encode("latin-1") if model.unit == "byte" else text


def quantile_threshold(
    model_file: ModelFile, model: Model, quantile: float, how: dict[str, bool]
) -> float:
    """Return the score below which this fraction of the validation lines are."""
    import numpy as np

    split = read_splits(model.state, model_file.path).val
    if not len(split.ids):
        raise UsageError(
            f"{model_file.path}: the run has no validation split; use --threshold BITS instead"
        )
    text = split.text(model.vocabulary)
    nll = model.score_lines(text, **Learners.of(model, **how)._asdict()).score
    lines = text.splitlines() if isinstance(text, bytes) else text.removesuffix("\n").split("\n")
    real = nll[[len(line) > 0 for line in lines]]  # an empty line has no score
    return float(np.quantile(real if len(real) else nll, quantile)) / math.log(2)
