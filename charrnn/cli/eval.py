from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import expand_folders, is_unknown, warn_of_unknown
from charrnn.cli.eval_lines import evaluate_lines, parse_options
from charrnn.cli.streams import print_lines, stdout
from charrnn.errors import NotFiniteError, TextError, UsageError
from charrnn.formatting import best_baseline, format_count, format_loss, format_number, loss_unit

if TYPE_CHECKING:
    from charrnn.arrays import Array
    from charrnn.model import Model

MAX_EXPONENT = 700.0  # exp of a little more overflows
PREDICTORS = ("adapted", "counts", "mixed")  # beside the network
SPLITS = {"val": "validation", "test": "test"}


@click.command("eval")
@click.option(
    "--split",
    type=click.Choice([*SPLITS]),
    help="Evaluate this split of the run's corpus instead of a file.",
)
@common.mix_option(
    default=None,
    help="Mix the network with the n-grams of its training text, which learn as they read. "
    "[default: if the run has ended]",
)
@common.adapt_option
@click.option(
    "--beam",
    type=common.Count(1, 1000),
    help="With a model that writes texts: search with a beam of N texts [1: greedy].",
)
@click.option(
    "--wrong",
    type=common.Count(1),
    help="With a model of labels, tags or texts: print the N lines that are most wrong.",
)
@click.option(
    "--features",
    metavar="FILE",
    help="With a model of --features: the file of the vectors that the lines of FILE are about.",
)
@common.json_option(help="Print one JSON object per line, one for each file.")
@model_argument("[FILE]...", last=True)
def evaluate(
    model_file: ModelFile,
    files: list[str],
    split: str | None,
    mix: bool | None,
    adapt: bool,
    beam: int | None,
    wrong: int | None,
    features: str | None,
    as_json: bool,
) -> None:
    """Measure how well the model in CHECKPOINT predicts each FILE.

    FILE may be - for standard input, or a folder, whose text files are evaluated one by one.
    Losses are per character, or per byte for byte models. The first one is of the network alone. Of
    a model of labels, tags or texts, see docs/tasks.md, its accuracy is measured; of texts the loss
    too, in nats per character of what is to be written, its end included.

    \b
      charrnn eval draft.txt
      charrnn eval checkpoints/play.npz --split test
      cat data/play.txt | charrnn eval - --json
    """  # noqa: D301
    if bool(files) == bool(split):
        raise UsageError("give either FILE (- for standard input) or --split")
    stdout()
    model = model_file.load(any_task=True)
    if model.state.task:
        options = parse_options(mix, adapt, beam)
        shown: tuple[int, bool] = wrong or 0, as_json
        evaluate_lines(model_file.path, model, files, split, *shown, options, features)
        return
    if features is not None:
        raise UsageError("--features: the model reads none")
    if beam is not None:
        raise UsageError("--beam is for models that write texts (--predict text)")
    if wrong is not None:
        raise UsageError("--wrong is for models of labels, tags or texts (--predict)")
    how = {"mix": model.state.mixing is not None if mix is None else mix, "adapt": adapt}
    nonfinite = []
    for name in [split] if split else expand_folders(files, model):
        if split:
            row = evaluate_split(model_file.path, model, split, how)
        else:
            row = evaluate_file(model, name, how)
            warn_of_unknown(row["file"], row["unknown"], model_file.path)
        text = common.format_json(row) if as_json else format_metrics(row, loss_unit(model.unit))
        print_lines(text)
        if not math.isfinite(row["nats"]):
            nonfinite.append(row["file"])
    if nonfinite:
        names = ", ".join(nonfinite)
        raise NotFiniteError(f"{names}: the loss is non-finite: the weights have diverged")


def evaluate_file(model: Model, file: str, how: dict[str, bool]) -> dict[str, Any]:
    from charrnn.text.files import display_name, read_text

    text = read_text(file, model.unit, model.encoding, model.mask)
    if not text:
        raise TextError(f"{display_name(file)} is empty")
    started = time.perf_counter()
    nlls = model.text_nll(text, unknown="cost", **how)
    seconds = time.perf_counter() - started
    row = metrics(file, nlls, len(nlls["network"]), text, seconds, {})
    return {**row, "unknown": float(is_unknown(model, text).mean())}


def evaluate_split(path: Path, model: Model, name: str, how: dict[str, bool]) -> dict[str, Any]:
    """Score a split with the same loss as training. Raises CheckpointError, UsageError."""
    from charrnn.storage.state import State

    state, splits = model.state, common.read_splits(model.state, path)
    assert isinstance(state, State)
    split, baselines = splits.val, state.baselines["val"]
    if name == "test":
        split, baselines = splits.test, state.baselines["test"]
    if not len(split.ids):
        raise UsageError(f"{path}: the run has no {SPLITS[name]} split")
    text, started = split.text(model.vocabulary), time.perf_counter()
    nlls = model.split_nll(split, **how)
    seconds = time.perf_counter() - started
    return metrics(f"{name} split", nlls, split.characters, text, seconds, baselines)


def metrics(
    name: str,
    nlls: dict[str, Array],
    characters: int,
    text: str | bytes,
    seconds: float,
    baselines: Any,
) -> dict[str, Any]:
    """Return the metrics of a text; ``nlls`` are -log p of each of its symbols, in nats."""
    num_bytes = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    totals = {predictor: float(nll.sum()) for predictor, nll in nlls.items()}
    total = totals.pop("network")
    mean = total / max(characters, 1)
    perplexity = math.exp(mean) if mean < MAX_EXPONENT else math.inf
    return {
        "file": name,
        "characters": characters,
        "bytes": num_bytes,
        "nats": mean,
        "bits": mean / math.log(2),
        "bits_per_byte": total / math.log(2) / max(num_bytes, 1),
        "perplexity": perplexity,
        "characters_per_second": characters / seconds,
        **{predictor: other / max(characters, 1) for predictor, other in totals.items()},
        "baselines": baselines,
    }


def format_metrics(row: dict[str, Any], unit: str) -> str:
    rate = (
        f"{format_count(row['characters'], unit)}, {row['characters_per_second']:,.0f} per second"
    )
    if not math.isfinite(row["nats"]):
        return f"{row['file']}: the loss is non-finite; {rate}"
    finite = math.isfinite(row["perplexity"])
    perplexity = (
        format_number(row["perplexity"], 2) if finite else f"above {math.exp(MAX_EXPONENT):.0e}"
    )
    bits = format_number(row["bits_per_byte"], 3)
    line = (
        f"{row['file']}: {format_loss(row['nats'])} per {unit}, {bits} bits per byte, "
        f"perplexity {perplexity}; {rate}"
    )
    for predictor in PREDICTORS:
        if predictor in row:
            line += f"; {predictor} {format_loss(row[predictor])}"
    if row.get("unknown"):
        line += f"; {row['unknown']:.1%} of the {unit}s are unknown to the model"
    if name := best_baseline(row["baselines"]):
        line += f"; best baseline {name} {row['baselines'][name]:.3f}, model {row['nats']:.3f}"
    return line
