"""The loss curves of a run as SVG within HTML, in which every evaluation can be pointed at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from charrnn.arrays import Array
from charrnn.drawing.figures import Curve, round_step
from charrnn.drawing.highlight import escape_inline
from charrnn.formatting import format_loss

MAX_POINTS = 40  # of a chart
MAX_LOSS = 1e300  # nats; with larger numbers the positions could overflow
TICKS = 5  # about, on an axis of a chart
LABELS = {"train": "training", "val": "validation"}
LINE = '<line class="{0}" x2="100%" y1="{1}%" y2="{1}%"/>'
LAST_TICK = 0.88  # of the width: a label beyond it would touch that of the last step


def render_chart(curve: Curve) -> str:
    """Return the losses of a run, in nats, over its steps, as HTML."""
    losses = {"train": curve.train, "val": curve.val}
    losses = {name: ys for name, ys in losses.items() if np.isfinite(ys).any()}
    if not losses:
        return "<p>No loss has been measured yet.</p>"
    (low, high), last_step = curve.loss_range(), float(curve.xs[-1])
    if not 0 <= low <= high <= MAX_LOSS or last_step < 1:
        return "<p>The losses are out of range.</p>"

    # positions are percentages of the width and of the height
    y_ticks = ticks(low, high)
    top, height = y_ticks[-1], y_ticks[-1] - y_ticks[0]
    xs = 100 * curve.xs / last_step
    ys = {name: 100 * (top - values) / height for name, values in losses.items()}

    # from back to front; the lines stretch with the page, the text and the dots do not
    shapes = []
    for loss in y_ticks:
        y = f"{100 * (top - loss) / height:.2f}"
        shapes.append(LINE.format("grid", y))
        shapes.append(f'<text x="-8" y="{y}%" dy=".3em" text-anchor="end">{loss:g}</text>')
    for step in (*ticks(0, last_step, whole=True), last_step):
        if step <= LAST_TICK * last_step or step == last_step:
            x = f'x="{100 * step / last_step:.2f}%" y="100%" dy="1.4em"'
            shapes.append(f'<text {x} text-anchor="middle">{step:,.0f}</text>')
    shapes.append('<text x="50%" y="100%" dy="2.9em" text-anchor="middle">training step</text>')
    if curve.baseline:
        shapes.append(LINE.format("baseline", f"{100 * (top - curve.baseline[0]) / height:.2f}"))
    shapes.append('<svg viewBox="0 0 100 100" preserveAspectRatio="none">')
    for name in losses:
        pairs = zip(xs, ys[name], strict=True)
        points = "".join(f"{x:.3f},{y:.3f} " if np.isfinite(y) else "|" for x, y in pairs)
        segments = filter(None, points.split("|"))  # a non-finite loss leaves a gap
        shapes += [f'<polyline class="{name}" points="{s.strip()}"/>' for s in segments]
    points, shown = _points(curve, losses, xs, ys)

    # the legend, above the chart
    legend = [(LINE.format(name, 50), LABELS[name]) for name in losses]
    if curve.best:
        legend.append(('<circle class="best" cx="50%" cy="50%" r="5"/>', "best"))
    if curve.baseline:
        loss, name = curve.baseline
        legend.append((LINE.format("baseline", 50), f"{escape_inline(name)}, {loss:.3f}"))
    items = (f'<li><svg aria-hidden="true">{key}</svg>{label}</li>' for key, label in legend)
    return (
        f'<ul class="legend">{"".join(items)}</ul>\n'
        '<div class="chart"><svg role="group" aria-label="loss curves">\n'
        + "\n".join([*shapes, "</svg>", points])
        + f'\n</svg></div>\n<output id="values">{shown}</output>'
    )


def _points(
    curve: Curve, losses: Mapping[str, Array], xs: Array, ys: Mapping[str, Array]
) -> tuple[str, str]:
    """Return the dots of each step, in a strip that has its values; and the values of the best."""
    best = np.flatnonzero(curve.xs == curve.best[0]).tolist() if curve.best else []
    chosen = sorted({*evenly_spaced(len(xs), MAX_POINTS), *best})
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(xs[chosen])), 100.0]
    shapes, labels = [], {}
    for i, (left, right) in zip(chosen, pairwise(edges), strict=True):
        values, circles = [], []
        for name in losses:
            finite = bool(np.isfinite(ys[name][i]))
            values.append(f"{LABELS[name]} {format_loss(losses[name][i] if finite else None)}")
            center = f'cx="{xs[i]:.2f}%" cy="{ys[name][i]:.2f}%"'
            circles += [f'<circle class="{name}" {center} r="3"/>'] * finite
            circles += [f'<circle class="best" {center} r="7"/>'] * (name == "val" and i in best)
        labels[i] = f"Step {curve.xs[i]:,.0f}: {', '.join(values)}{' (best)' * (i in best)}"
        shapes += [
            f'<g class="point" tabindex="0" role="img" aria-label="{labels[i]}">',
            f'<rect x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>',
            *circles,
            "</g>",
        ]
    return "\n".join(shapes), labels[(best or chosen)[0]]


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return about ``TICKS`` round numbers from at most ``low`` to at least ``high``."""
    step = round_step(max(high - low, abs(high) * 1e-3, 1e-9) / (TICKS - 1), 1e-3)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def evenly_spaced(n: int, most: int) -> list[int]:
    """Return at most ``most`` of the indices below n, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []
