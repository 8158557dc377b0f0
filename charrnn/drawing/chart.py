"""The loss curves of a run as SVG, in which every evaluation can be pointed at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from charrnn.drawing.page import escape_inline
from charrnn.formatting import format_loss

MAX_POINTS = 40
MAX_LOSS = 1e18  # nats; with larger numbers the positions could overflow
TICKS = 5
CURVES = {"train": "training", "val": "validation"}
Row = Mapping[str, Any]  # an evaluation in the history of a run


class Axes(NamedTuple):
    """The ranges of a chart; positions in it are percentages of its width and height."""

    last_step: int
    low: float
    high: float

    def x(self, step: float) -> float:
        """Return the horizontal position of a step."""
        return 100.0 * step / self.last_step

    def y(self, loss: float) -> float:
        """Return the vertical position of a loss."""
        return 100.0 * (self.high - loss) / (self.high - self.low)


def render_chart(history: Sequence[Row], best: Row, baseline: tuple[str, float] | None) -> str:
    """Return the losses of a run, over its steps, as HTML.

    ``best`` has the step and the validation loss of the best weights, ``baseline`` the name and the
    validation loss of the best baseline.
    """
    losses = [row[f"{name}_loss"] for row in history for name in CURVES]
    losses = [loss for loss in losses if loss is not None]
    if not losses:
        return "<p>No loss has been measured yet.</p>"
    losses += [baseline[1]] if baseline else []
    if not all(0 <= loss <= MAX_LOSS for loss in losses) or history[-1]["step"] < 1:
        return "<p>The losses are out of range.</p>"

    # the axes, which include the baseline
    y_ticks = ticks(min(losses), max(losses))
    axes = Axes(history[-1]["step"], y_ticks[0], y_ticks[-1])
    curves = [name for name in CURVES if any(row[f"{name}_loss"] is not None for row in history)]
    best_step = None if best["val_loss"] is None else best["step"]

    # the steps that can be pointed at, the best among them
    chosen = {*evenly_spaced(len(history), MAX_POINTS)}
    chosen |= {i for i, row in enumerate(history) if row["step"] == best_step}
    rows = [history[i] for i in sorted(chosen)]
    values = {row["step"]: _describe(row, curves, best_step) for row in rows}

    # from back to front; the lines stretch with the page, the text and the dots do not
    shapes = [*_grid(axes, y_ticks)]
    if baseline:
        shapes.append(_horizontal(axes, baseline[1], "baseline"))
    shapes.append('<svg viewBox="0 0 100 100" preserveAspectRatio="none">')
    shapes += [line for name in curves for line in _polylines(axes, history, name)]
    shapes.append("</svg>")
    shapes += _points(axes, rows, values, best_step)
    shown = values.get(best_step, values[rows[0]["step"]])
    return (
        f'<ul class="legend">{_legend(curves, best_step, baseline)}</ul>\n'
        '<div class="chart"><svg role="group" aria-label="loss curves">\n'
        + "\n".join(shapes)
        + f'\n</svg></div>\n<output id="values">{shown}</output>'
    )


def _describe(row: Row, curves: Sequence[str], best_step: int | None) -> str:
    losses = (f"{CURVES[name]} {format_loss(row[f'{name}_loss'])}" for name in curves)
    best = " (best)" if row["step"] == best_step else ""
    return f"Step {row['step']:,}: {', '.join(losses)}{best}"


def _horizontal(axes: Axes, loss: float, kind: str) -> str:
    y = f"{axes.y(loss):.2f}%"
    return f'<line class="{kind}" x2="100%" y1="{y}" y2="{y}"/>'


def _grid(axes: Axes, y_ticks: Sequence[float]) -> Iterator[str]:
    """Yield the horizontal lines of the grid, and the labels of both axes."""
    for loss in y_ticks:
        yield _horizontal(axes, loss, "grid")
        y = f"{axes.y(loss):.2f}%"
        yield f'<text x="-8" y="{y}" dy=".3em" text-anchor="end">{loss:g}</text>'
    for step in ticks(0, axes.last_step, whole=True):
        if step <= axes.last_step:
            x = f"{axes.x(step):.2f}%"
            yield f'<text x="{x}" y="100%" dy="1.4em" text-anchor="middle">{step:,.0f}</text>'


def _polylines(axes: Axes, history: Sequence[Row], name: str) -> Iterator[str]:
    """Yield the lines of a curve; a non-finite loss leaves a gap."""
    points: list[str] = []
    for row in [*history, None]:
        loss = row[f"{name}_loss"] if row else None
        if row and loss is not None:
            points.append(f"{axes.x(row['step']):.3f},{axes.y(loss):.3f}")
        elif points:
            yield f'<polyline class="{name}" points="{" ".join(points)}"/>'
            points = []


def _points(
    axes: Axes, rows: Sequence[Row], values: Mapping[int, str], best_step: int | None
) -> Iterator[str]:
    """Yield the dots of each step, in a strip of the chart that shows the values of the step."""
    centers = [axes.x(row["step"]) for row in rows]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(centers)), 100.0]
    for row, (left, right) in zip(rows, pairwise(edges), strict=True):
        step = row["step"]
        yield f'<g class="point" tabindex="0" role="img" aria-label="{values[step]}">'
        yield f'<rect x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>'
        for name in CURVES:
            loss = row[f"{name}_loss"]
            if loss is not None:
                center = f'cx="{axes.x(step):.2f}%" cy="{axes.y(loss):.2f}%"'
                yield f'<circle class="{name}" {center} r="3"/>'
                if name == "val" and step == best_step:
                    yield f'<circle class="best" {center} r="7"/>'
        yield "</g>"


def _legend(
    curves: Sequence[str], best_step: int | None, baseline: tuple[str, float] | None
) -> str:
    line = '<line class="{}" x2="100%" y1="50%" y2="50%"/>'
    items = [(line.format(name), CURVES[name]) for name in curves]
    if best_step is not None:
        items.append(('<circle class="best" cx="50%" cy="50%" r="5"/>', "best"))
    if baseline:
        name, loss = baseline
        items.append((line.format("baseline"), f"{escape_inline(name)}, {loss:.3f}"))
    return "".join(f'<li><svg aria-hidden="true">{key}</svg>{label}</li>' for key, label in items)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return about ``TICKS`` round numbers from at most ``low`` to at least ``high``."""
    about = max(high - low, abs(high) * 1e-3, 1e-9) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= about * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def evenly_spaced(n: int, most: int) -> list[int]:
    """Return at most ``most`` of the indices below n, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []
