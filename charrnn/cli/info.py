"""``charrnn info``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from charrnn.checkpoint import read_header
from charrnn.cli.checkpoints import newest
from charrnn.cli.threads import told
from charrnn.errors import CheckpointError
from charrnn.header import Header


@click.command()
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The whole header as JSON; the README lists its keys.")
def info(checkpoint: Path | None, as_json: bool) -> None:
    """Tell what CHECKPOINT holds.

    Without one the newest run in ./checkpoints is taken, or else the example that comes with charrnn.

    \b
      charrnn info
      charrnn info --json checkpoints/play.npz
    """  # noqa: D301
    path = checkpoint or newest()
    header = read_header(path)
    try:
        click.echo(json.dumps(header, indent=2) if as_json else readable(path, header))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise CheckpointError(f"{path}: damaged: {e!r} in its header") from None


def readable(path: Path, h: Header) -> str:
    rows: list[tuple[str, Any]] = [("file", path), ("kind", h["kind"])]
    c, v = h["config"], h["vocabulary"]
    rows += [
        ("model", f"{c['cell']} {c['num_layers']}x{c['hidden_size']}, {h['parameters']:,} parameters"),
        ("vocabulary", f"{v['size']} symbols: {v['symbols'][:100]!r}{'...' * (v['size'] > 100)}"),
        ("step", f"{h['step']:,} (epoch {h['epoch']:.2f})"),
    ]
    if h["best"]["val_loss"] is not None:
        rows.append(("validation", f"{loss(h['best']['val_loss'])} at step {h['best']['step']:,}"))
    if h["test_loss"] is not None:
        rows.append(("test", loss(h["test_loss"])))
    if h["kind"] == "run":
        k, w, plan = h["corpus"], h["windows"], h["plans"][-1]
        parts = ", ".join(f"{name} {n:,}" for name, n in k["parts"].items())
        for part, ladder in (("validation", h["ladder"]), ("test", h["ladder_test"])):
            rungs = ", ".join(f"{name} {nats:.3f}" for name, nats in ladder.items())
            rows.append(("counts", f"{part} {rungs or 'none'}"))
        rows += [
            ("plan", f"{plan['steps']:,} steps, " + ("finished" if h["finished"] else "not finished")),
            ("windows", f"{w['lanes']} lanes, {w['length']} steps, {w['per_epoch']:,} to an epoch"),
            ("corpus", f"{k['name']}: {k['characters']:,} characters, {k['bytes']:,} bytes ({parts})"),
            ("files", ", ".join(name for name, _, _ in k["files"])),
            ("sha256", k["sha256"]),
            ("time", f"{h['seconds']:.0f} s, {told(h['threads'])}"),
            ("command", h["command"]),
        ]
        rows += [("note", note) for note in h["notes"]]
        rows += [("trouble", f"step {t['step']:,}: {t['what']}") for t in h["trouble"]]
        rows.append(("written by", f"charrnn {h['charrnn']}, Python {h['python']}, NumPy {h['numpy']}"))
    rows += [("option", f"{name} {value}") for name, value in c.items() if value is not None]
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def loss(nats: float) -> str:
    return f"{nats:.4f} nats per character ({nats / math.log(2):.3f} bits)"
