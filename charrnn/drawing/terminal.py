"""Loss curves as lines of text, for a terminal."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections import namedtuple
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charrnn.arrays import Array
from charrnn.drawing.figures import Curve, loss_curves, marker_indices, round_step
from charrnn.formatting import display_width
from charrnn.storage.state import State

PLOT_ROWS = 16
MIN_PLOT_COLUMNS = 8
BRAILLE = 0x2800  # the code point of its character without dots
DOT_VALUES = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # added to it for each dot
ANSI_COLORS = (34, 33, 32, 31, 36, 35)
Symbols = namedtuple("Symbols", "y_axis y_tick corner x_axis x_tick level")


def render_losses(
    states: Mapping[str, State],
    x: str = "steps",
    bits: bool = False,
    *,
    width: int = 80,
    unicode: bool = True,
    color: bool = False,
) -> str:
    """Return the loss curves of runs, by name, as text; ``x`` and ``bits`` as in ``plot_losses``.

    The lines have at most ``width`` columns. Curves are dots of braille, or ASCII without
    ``unicode``, with letters on them: capitals for validation, small letters for training.
    """
    curves, xlabel, ylabel = loss_curves(states, x, bits)

    # the axes
    lows, highs = zip(*(curve.loss_range() for curve in curves), strict=True)
    low, high = min(lows), max(highs)
    if low == high:
        low, high = low - 0.5, high + 0.5
    y_ticks = _ticks(low, high, PLOT_ROWS // 2)
    label_width = max(map(len, y_ticks.values()), default=0)
    columns = max(width - label_width - 2, MIN_PLOT_COLUMNS)
    x_max = max(float(curve.xs.max()) for curve in curves) or 1.0
    canvas = _Canvas(columns, x_max, low, high, unicode)

    # draw the curves and the baselines, and collect the legend
    legend = []
    for i, curve in enumerate(curves):
        legend += _draw_curve(canvas, curve, i, several=len(curves) > 1)
    for loss, kind in sorted({curve.baseline for curve in curves if curve.baseline}):
        canvas.levels.add(canvas.cell(0, loss)[0])
        legend.append((f"{canvas.symbols.level} best n-gram baseline: {kind} {loss:.3f}", 0))

    # put axes around the plot, and the legend below
    lines = [ylabel]
    labels = {canvas.cell(0, value)[0]: label for value, label in y_ticks.items()}
    for row, line in enumerate(canvas.lines()):
        axis = canvas.symbols.y_tick if row in labels else canvas.symbols.y_axis
        lines.append(f"{labels.get(row, ''):>{label_width}} {axis}{line}")
    axis, numbers = _x_axis(canvas)
    lines += [f"{'':{label_width}} {canvas.symbols.corner}{axis}", f"{'':{label_width}}  {numbers}"]
    lines.append(f"{xlabel:>{label_width + 2 + columns}}")
    lines += [_paint(line, ansi) for label, ansi in legend for line in _wrap(label, width)]
    if not color:
        lines = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    return "".join(line.rstrip() + "\n" for line in lines)


def _paint(text: str, ansi: int) -> str:
    return f"\x1b[{ansi}m{text}\x1b[0m" if ansi else text


class _Canvas:
    """A grid of characters, of several dots each: x from 0 to ``x_max``, y from low to high."""

    def __init__(self, columns: int, x_max: float, low: float, high: float, unicode: bool) -> None:
        self.x_max, self.low, self.high = x_max, low, high
        self.columns, self.unicode = columns, unicode
        self.symbols = Symbols(*("│┤└─┬╌" if unicode else "|++-+-"))
        self.tall, self.wide = DOT_VALUES.shape if unicode else (1, 1)
        self.dots = np.zeros((PLOT_ROWS * self.tall, columns * self.wide), bool)
        self.colors = np.zeros((PLOT_ROWS, columns), int)
        self.levels: set[int] = set()  # rows with a line under the dots
        self.letters: dict[tuple[int, int], tuple[str, int]] = {}  # over the dots, with colors

    def locate_dots(self, xs: ArrayLike, ys: ArrayLike) -> tuple[NDArray[np.int64], ...]:
        down = (self.high - np.asarray(ys)) / (self.high - self.low)
        along = np.asarray(xs) / self.x_max
        dots = (x * (n - 1) for x, n in zip((down, along), self.dots.shape, strict=True))
        return tuple(np.rint(x).astype(np.int64) for x in dots)

    def cell(self, x: float, y: float) -> tuple[int, int]:
        """Return the row and the column of the character at a point."""
        row, column = self.locate_dots(x, y)
        return int(row) // self.tall, int(column) // self.wide

    def draw(self, xs: Array, ys: Array, ansi: int) -> None:
        """Draw a curve, with a gap where y is NaN."""
        rows, columns = self.locate_dots(xs, np.nan_to_num(ys))
        finite = np.isfinite(ys)
        for j in np.flatnonzero(finite):
            start = j - 1 if j and finite[j - 1] else j
            n = max(abs(rows[j] - rows[start]), abs(columns[j] - columns[start])) + 1
            r, c = (np.rint(np.linspace(a[start], a[j], n)).astype(int) for a in (rows, columns))
            self.dots[r, c] = True
            self.colors[r // self.tall, c // self.wide] = ansi

    def lines(self) -> Iterator[str]:
        dots = self.dots.reshape(PLOT_ROWS, self.tall, self.columns, self.wide)
        values = np.einsum("rtcw,tw->rc", dots, DOT_VALUES[: self.tall, : self.wide])
        for row in range(PLOT_ROWS):
            background = self.symbols.level if row in self.levels else " "
            cells = []
            for column, value in enumerate(values[row].tolist()):
                dot = chr(BRAILLE + value) if self.unicode else "."
                cell = dot if value else background, int(self.colors[row, column])
                cells.append(self.letters.get((row, column), cell))
            colors = itertools.groupby(cells, key=lambda cell: cell[1])
            yield "".join(_paint("".join(text for text, _ in run), ansi) for ansi, run in colors)


def _draw_curve(canvas: _Canvas, curve: Curve, i: int, several: bool) -> list[tuple[str, int]]:
    """Draw the losses of run i; return its lines of the legend, with their colors."""
    legend = []
    best = " (*)" if curve.best else ""
    labels = f"training: {curve.name}", f"validation: {curve.label}{best}"
    for k, ys in enumerate((curve.train, curve.val)):
        finite = np.flatnonzero(np.isfinite(ys))
        if len(finite):
            ansi = ANSI_COLORS[(i if several else k) % len(ANSI_COLORS)]
            letter = chr(ord("aA"[k]) + i % 26)
            canvas.draw(curve.xs, ys, ansi)
            for j in sorted({*marker_indices(ys, k / 2, 3), finite[-1]} & {*finite}):
                canvas.letters[canvas.cell(curve.xs[j], ys[j])] = letter, ansi
            legend.append((f"{letter} {labels[k]}", ansi))
    if curve.best:
        canvas.letters[canvas.cell(*curve.best)] = "*", legend[-1][1]
    return legend


def _x_axis(canvas: _Canvas) -> tuple[str, str]:
    axis, numbers = [canvas.symbols.x_axis] * canvas.columns, ""
    for value, label in _ticks(0, canvas.x_max, canvas.columns // 12 + 1).items():
        column = canvas.cell(value, canvas.low)[1]
        start = max(min(column - len(label) // 2, canvas.columns - len(label)), 0)
        if start > len(numbers) or not numbers:  # they must not touch
            axis[column] = canvas.symbols.x_tick
            numbers = f"{numbers:{start}}{label}"
    return "".join(axis), numbers


def _ticks(low: float, high: float, n: int) -> dict[float, str]:
    """Return at most n + 1 round numbers from low to high, with their labels."""
    step = round_step((high - low) / max(n, 1), 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step), math.floor(high / step)
    return {k * step: f"{k * step:,.{digits}f}" for k in range(first, last + 1)}


def _wrap(text: str, width: int) -> list[str]:
    if (columns := display_width(text)) <= width:
        return [text]
    return textwrap.wrap(text, width if columns == len(text) else max(width // 2, 1))
