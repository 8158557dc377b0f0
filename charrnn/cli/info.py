from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from charrnn import formatting as fmt
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import flag, format_json, json_option
from charrnn.cli.streams import print_lines, stdout
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import shell_command
from charrnn.storage.checkpoint import find_file, read_state
from charrnn.storage.state import Evaluation, ModelState, State
from charrnn.text.files import display_name

SHOWN_SYMBOLS = 100


@click.command()
@json_option(help="Print the complete header as JSON; docs/checkpoint-format.md lists the keys.")
@flag("--history", help="Print the evaluations of the run as tab-separated values.")
@flag("--toml", "as_toml", help="Print the options of the run, for charrnn train --config.")
@model_argument()
def info(model_file: ModelFile, as_json: bool, history: bool, as_toml: bool) -> None:
    """Describe a checkpoint.

    \b
      charrnn info
      charrnn info --json checkpoints/play.npz
      charrnn info --history checkpoints/play.npz > losses.tsv
      charrnn info --toml checkpoints/play.npz > run.toml
    """  # noqa: D301
    stdout()
    path = model_file.path
    state = read_state(path)
    if model_file.reason:
        model_file.announce()
    if as_json + history + as_toml > 1:
        raise UsageError("--json, --history and --toml are mutually exclusive")
    if history:
        print_lines(*format_history(require_history(state, path)))
    elif as_toml:
        print_lines(*format_toml(state, path))
    elif as_json:
        print_lines(*format_json(vars(state), indent=2).split("\n"))
    else:
        print_lines(*format_info(path, state))


def require_history(state: ModelState, path: Path) -> State:
    if not isinstance(state, State):
        raise CheckpointError(f"{path}: an exported model, which has no history")
    return state


def format_history(state: State) -> Iterator[str]:
    """Yield a line of names and one per evaluation; what is missing is empty."""
    names = Evaluation.__annotations__
    yield "\t".join(names)
    for row in state.history:
        values = [row[name] for name in names]  # type: ignore[literal-required]
        yield "\t".join("" if value is None else str(value) for value in values)


def format_toml(state: ModelState, path: Path) -> Iterator[str]:
    """Yield the options with which the run was started, as TOML."""
    options = {name: value for name, value in vars(state.config).items() if value is not None}
    if isinstance(state, State):
        names = [find_file(path, name) for name, _, _ in state.corpus["files"]]
        yield f"# {shell_command('charrnn', 'train', *map(display_name, names))} --config FILE"
        if len(state.plans) > 1:
            steps = [plan["steps"] for plan in state.plans]
            yield f"# The run was extended, from {steps[0]:,} to {steps[-1]:,} steps, which"
            yield "# changed its learning rates; a run of this length at once has others."
        options["workers"] = state.workers
        if state.val_corpus:
            val = find_file(path, state.val_corpus["files"][0][0])
            options["val_file"] = "-" if val is None else str(val)
        if state.init_from:
            options["init_from"] = state.init_from["file"]
    for name, value in options.items():
        yield f"{name} = {json.dumps(value, ensure_ascii=False)}"


def format_info(path: Path, state: ModelState) -> Iterator[str]:
    rows = [("file", path), ("kind", state.kind), *model_rows(state)]
    if isinstance(state, State):
        rows += run_rows(path, state)
    options = vars(state.config).items()
    rows += [("option", f"{name} {value}") for name, value in options if value is not None]
    return (f"{name:<11}{value}" for name, value in rows)


def model_rows(state: ModelState) -> Iterator[tuple[str, Any]]:
    """Yield the facts about an exported model or a run."""
    c, v, best = state.config, state.vocabulary, state.best
    size = fmt.format_count(state.parameters, "parameter")
    more = "..." if v["size"] > SHOWN_SYMBOLS else ""
    per = f"per {fmt.loss_unit(c.unit, c.predict)}"
    size += ", with attention" if c.attention else ""
    yield "model", f"{c.cell} {c.num_layers}x{c.hidden_size}, {size}"
    yield "vocabulary", f"{v['size']:,} symbols: {v['symbols'][:SHOWN_SYMBOLS]!r}{more}"
    yield "step", f"{state.step:,} (epoch {state.epoch:.2f})"
    if best["val_loss"] is not None:
        yield "validation", f"{fmt.format_loss(best['val_loss'])} {per} at step {best['step']:,}"
    if state.test_loss is not None:
        yield "test", f"{fmt.format_loss(state.test_loss)} {per}"
    if state.task and state.task["outputs"]:
        names = ", ".join(state.task["outputs"][:SHOWN_SYMBOLS])
        yield "outputs", f"{len(state.task['outputs']):,}: {names}"
    if state.mixing and state.mixing["mixed_loss"] is not None:
        yield "mixed", f"{fmt.format_loss(state.mixing['mixed_loss'])} {per}, on the test split"


def run_rows(path: Path, state: State) -> Iterator[tuple[str, Any]]:
    """Yield the facts about a run only: its text, its plan, its notes and events."""
    corpus, batches, steps = state.corpus, state.batches, state.plans[-1]["steps"]
    splits = ", ".join(f"{name} {n:,}" for name, n in corpus["split_characters"].items())
    yield "baselines", f"validation {fmt.format_baselines(state.baselines['val'])}"
    yield "baselines", f"test {fmt.format_baselines(state.baselines['test'])}"
    for name, measures in state.measures.items():
        yield "measured", f"{name}: {fmt.format_measures(measures)}"
    yield "plan", f"{steps:,} steps, {'finished' if state.finished else 'not finished'}"
    yield (
        "batches",
        f"batch size {batches['batch_size']}, sequence length {batches['seq_length']}, "
        f"{batches['steps_per_epoch']:,} steps per epoch",
    )
    yield (
        "corpus",
        f"{corpus['name']}: {corpus['characters']:,} characters, {corpus['bytes']:,} bytes "
        f"({splits})",
    )
    files = (find_file(path, name) for name, _, _ in corpus["files"])
    yield "files", ", ".join(map(display_name, files))
    yield "sha256", corpus["sha256"]
    workers = fmt.format_workers(state.workers, state.ranks, state.sync_every)
    yield "time", f"{state.train_seconds:.0f} s, {workers}"
    yield "command", state.command
    for note in state.notes:
        yield "note", note
    for event in state.nonfinite_events:
        yield "non-finite", f"step {event['step']:,}: {event['reason']}"
    yield "created by", "charrnn {charrnn}, Python {python}, NumPy {numpy}".format(**state.versions)
