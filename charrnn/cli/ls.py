from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from charrnn.cli.choice import corpus_name, format_age, list_checkpoints
from charrnn.cli.common import CHECKPOINT_DIR, format_json, json_option
from charrnn.cli.streams import print_lines, print_message
from charrnn.formatting import format_number
from charrnn.storage.state import ModelState, State


@click.command("ls")
@json_option(help="Print one JSON object per line.")
def list_command(as_json: bool) -> None:
    """List the checkpoints in ./checkpoints, the newest first.

    Print for each its name, its age, cell and size, the steps so far, the lowest validation loss
    in nats and the text that it was trained on.

    \b
      charrnn ls
      charrnn ls --json
    """  # noqa: D301
    checkpoints, unusable = list_checkpoints()
    rows = [listed_values(path, state) for path, state in checkpoints]
    if as_json:
        print_lines(*map(format_json, rows))
    elif rows:
        print_lines(*format_table([format_row(row) for row in rows]))
    print_message(*(f"charrnn: {e}" for e in unusable))
    if not rows:
        print_message(f"no checkpoint in ./{CHECKPOINT_DIR}; create one: charrnn train CORPUS")


def listed_values(path: Path, state: ModelState) -> dict[str, Any]:
    """Return what the list shows of a checkpoint."""
    c, is_run = state.config, isinstance(state, State)
    return {
        "name": path.stem,
        "file": str(path),
        "age": format_age(path),
        "modified": path.stat().st_mtime,
        "model": f"{c.cell} {c.num_layers}x{c.hidden_size}",
        "step": state.step,
        "steps": state.plans[-1]["steps"] if isinstance(state, State) else None,
        "finished": state.finished if isinstance(state, State) else None,
        "val_loss": state.best["val_loss"],
        "corpus": corpus_name(state) if isinstance(state, State) else None,
        "kind": "run" if is_run else "model",
    }


def format_row(row: dict[str, Any]) -> list[str]:
    loss = "-" if row["val_loss"] is None else format_number(row["val_loss"], 3)
    steps = f"{row['step']:,}" + ("" if row["finished"] is not False else f"/{row['steps']:,}")
    age = row["age"].removesuffix(" old")
    return [row["name"], age, row["model"], steps, loss, row["corpus"] or "(exported)"]


def format_table(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table whose columns are aligned."""
    rows = [["name", "age", "model", "steps", "val loss", "corpus"], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]
