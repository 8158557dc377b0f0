from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from charrnn.cli.choice import corpus_name, find_checkpoint
from charrnn.cli.common import format_json, json_option
from charrnn.cli.streams import print_lines, stdout
from charrnn.errors import UsageError
from charrnn.formatting import display_width, escape_control
from charrnn.storage.checkpoint import read_state
from charrnn.storage.state import ModelState, State

MAX_CELL_CHARACTERS = 30


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@json_option(help="Print one JSON object per line, one for each run.")
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare runs: the options that differ, sizes, losses and speed.

    RUN is a checkpoint, or the name of one in ./checkpoints. Losses are in nats per character; the
    lowest validation and test losses are marked by an asterisk.

    \b
      charrnn compare checkpoints/play.npz checkpoints/example.npz
      charrnn compare checkpoints/*.npz --json
    """  # noqa: D301
    stdout()
    if len(runs) < 2:
        raise UsageError("name two runs or more; charrnn info describes one")
    paths = [find_checkpoint(run) for run in runs]
    states = [read_state(path) for path in paths]
    options = differing_options(states)
    rows = [
        compared_values(path, state, options) for path, state in zip(paths, states, strict=True)
    ]
    if as_json:
        print_lines(*map(format_json, rows))
    else:
        print_lines(*format_runs(rows))


def differing_options(states: list[ModelState]) -> list[str]:
    """Return the names of the options that are not the same in all runs."""
    configs = [vars(state.config) for state in states]
    return [name for name, value in configs[0].items() if any(c[name] != value for c in configs)]


def compared_values(path: Path, state: ModelState, options: list[str]) -> dict[str, Any]:
    """Return what is compared of a run: its options, its size, its losses and its speed."""
    row: dict[str, Any] = {"run": str(path)}
    row |= {name: getattr(state.config, name) for name in options}
    row |= {"parameters": state.parameters, "step": state.step, "epoch": state.epoch}
    history = state.history if isinstance(state, State) else []
    row["train_loss"] = history[-1]["train_loss"] if history else None
    row |= {"val_loss": state.best["val_loss"], "test_loss": state.test_loss}
    if isinstance(state, State):
        rate = history[-1]["characters_seen"] / history[-1]["seconds"] if history else None
        row |= {"characters_per_second": rate, "seconds": state.train_seconds}
        row |= {"workers": state.workers, "corpus": corpus_name(state)}
    return row


def format_runs(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table with a column for each run, below each other if it is wide."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    labels = [name.replace("_", " ").replace("characters per second", "ch/s") for name in names]
    best = {
        name: min((row[name] for row in rows if row[name] is not None), default=None)
        for name in ("val_loss", "test_loss")
    }
    columns = []
    for row in rows:
        cells = [format_value(name, row.get(name)) for name in names]
        marks = [" *" if best.get(name) == row.get(name) is not None else "" for name in names]
        columns.append([cell + mark for cell, mark in zip(cells, marks, strict=True)])

    # as many runs next to each other as fit
    lines: list[str] = []
    width = shutil.get_terminal_size().columns
    head = pad(labels)
    while columns:
        table, used = head, display_width(head[0])
        shown = 0
        for column in map(pad, columns):
            used += 2 + display_width(column[0])
            if shown and used > width:
                break
            table = [f"{left}  {right}" for left, right in zip(table, column, strict=True)]
            shown += 1
        columns = columns[shown:]
        lines += ["", *table] if lines else table
    return [line.rstrip() for line in lines]


def pad(column: list[str]) -> list[str]:
    width = max(map(display_width, column))
    return [cell + " " * (width - display_width(cell)) for cell in column]


def format_value(name: str, value: Any) -> str:
    """Return a value in as many characters as a column has."""
    if value is None:
        return "-"
    if name == "characters_per_second" or type(value) is int:
        return f"{value:,.0f}"
    if name in ("train_loss", "val_loss", "test_loss"):
        return f"{value:.4f}"
    if name in ("epoch", "seconds"):
        return f"{value:.1f}"
    text = escape_control(Path(value).stem if name == "run" else str(value))
    return text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 1]}…"
