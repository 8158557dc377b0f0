"""Plots with matplotlib, and the loss curves that they share with the terminal.

matplotlib is optional, and imported only by the functions that need it. Its configuration is
ignored: the same data gives the same file, byte for byte.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from charrnn.arrays import Array
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import best_baseline, escape_control, loss_unit
from charrnn.storage.checkpoint import read_state
from charrnn.storage.output import replace_file
from charrnn.storage.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X_AXES = {"steps": "step", "epochs": "epoch", "characters": "characters_seen", "seconds": "seconds"}
MAX_PLOTTABLE = 1e18  # the axes overflow beyond
# by file ending; without the dates, which change
METADATA: dict[str, Any] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}

# Okabe and Ito (2008): colors that everyone can distinguish, as markers and dashes can without
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
GRAY = "0.35"
KINDS: dict[str, dict[str, Any]] = {
    "training": {"ls": "--", "lw": 0.9, "marker": "o", "mfc": "white"},
    "validation": {"ls": "-", "marker": "o"},
    "best weights": {"ls": "none", "marker": "o", "mfc": "none", "ms": 11},
}
# the first has no Hangul; the others supply the missing glyphs
FONTS = (
    "DejaVu Sans, Noto Sans CJK KR, Noto Sans CJK JP, Noto Sans KR, NanumGothic, Malgun Gothic, "
    "Apple SD Gothic Neo"
)
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "svg.hashsalt": "charrnn",
}
WIDTH_INCHES = 8.0
PLOT_INCHES = 4.5  # the height without the legend below
LEGEND_LINE_INCHES = 0.17
LEGEND_COLUMNS = 55  # characters per line of the legend, even if they are wide


class Curve(NamedTuple):
    """The losses of a run: arrays (n,), NaN where nothing was measured."""

    name: str
    xs: Array
    train: Array  # means since the previous row
    val: Array
    best: tuple[float, float] | None  # x and validation loss of the best weights
    label: str
    baseline: tuple[float, str] | None  # validation loss and name of the best baseline

    def loss_range(self) -> tuple[float, float]:
        """Return the lowest and the highest loss, including the baseline."""
        losses = [*self.train, *self.val, *(self.best or ())[1:], *(self.baseline or ())[:1]]
        return float(np.nanmin(losses)), float(np.nanmax(losses))


def read_states(paths: Iterable[Path]) -> dict[str, State]:
    """Return the states of runs by name: the file's stem, or its path if two stems are equal.

    Raises CheckpointError for an exported model, and for a run without a measured loss.
    """
    files = list(dict.fromkeys(paths))
    stems = [path.stem for path in files]
    states = {}
    for path in files:
        state = read_state(path)
        problem = "an exported model, which has no training history"
        if not isinstance(state, State) or (problem := _history_problem(state)):
            raise CheckpointError(escape_control(f"{path}: {problem}"))
        name = path.stem if stems.count(path.stem) == 1 else str(path)
        states[escape_control(name)] = state
    return states


def _history_problem(state: State) -> str:
    """Return the reason why the history cannot be plotted, or an empty string."""
    if all(row["train_loss"] is None and row["val_loss"] is None for row in state.history):
        return "nothing to plot: no evaluation yet"
    rows: Sequence[Mapping[str, Any]] = state.history
    keys = (*X_AXES.values(), "train_loss", "val_loss")
    numbers = [row[key] for row in rows for key in keys]
    numbers += [state.best["val_loss"], *state.baselines["val"].values()]
    in_range = all(number is None or 0 <= number <= MAX_PLOTTABLE for number in numbers)
    return "" if in_range else "damaged: a value in its history is out of range"


def loss_curves(states: Mapping[str, State], x: str, bits: bool) -> tuple[list[Curve], str, str]:
    """Return the curve of each run, and the labels of the x- and the y-axis."""
    measure = "bits" if bits else "nats"
    units = [loss_unit(state.config.unit, state.config.predict) for state in states.values()]
    comparable = len(set(units)) == 1
    curves = []
    for (name, state), unit in zip(states.items(), units, strict=True):
        label = name if comparable else f"{name} ({measure} per {unit})"
        curves.append(loss_curve(label, state, X_AXES[x], math.log(2) if bits else 1.0))
    xlabel = f"{units[0] if comparable else 'character'}s read" if x == "characters" else x
    return curves, xlabel, f"{measure} per {units[0]}" if comparable else measure


def loss_curve(name: str, state: State, x: str = "step", scale: float = 1.0) -> Curve:
    """Return the losses of a run, in units of ``scale`` nats."""
    rows: Sequence[Mapping[str, Any]] = state.history
    steps, xs, train, val = (
        np.array([row[key] for row in rows], float) for key in ("step", x, "train_loss", "val_loss")
    )
    best, label, baseline = None, name, None
    if state.best["val_loss"] is not None and len(steps):
        step, loss = state.best["step"], state.best["val_loss"] / scale
        best = float(np.interp(step, steps, xs)), loss
        label = f"{name}: best {loss:.3f} at step {step:,}"
    if kind := best_baseline(state.baselines["val"]):
        baseline = state.baselines["val"][kind] / scale, escape_control(kind)
    return Curve(name, xs, train / scale, val / scale, best, label, baseline)


def plot_losses(states: Mapping[str, State], x: str = "steps", bits: bool = False) -> Figure:
    """Plot training and validation loss, the best weights and the best baseline of runs, by name.

    ``x`` is steps, epochs, characters or seconds. Losses are in nats or bits, per byte for models
    of bytes and otherwise per character. Raises UsageError without matplotlib.
    """
    curves, xlabel, ylabel = loss_curves(states, x, bits)
    with _style():
        from matplotlib.lines import Line2D

        figure, ax = _new_figure(xlabel, ylabel)
        shown: set[str] = set()
        for i, curve in enumerate(curves):
            for kind, ys in (("training", curve.train), ("validation", curve.val)):
                if np.isfinite(ys).any():
                    every = marker_indices(ys, i / len(curves))
                    ax.plot(curve.xs, ys, markevery=every, **KINDS[kind] | _series_style(i))
                    shown.add(kind)
            if curve.best:
                ax.plot(*curve.best, **_series_style(i) | KINDS["best weights"])
                shown.add("best weights")
        ax.set_xlim(left=0)
        ax.locator_params("x", nbins=6, integer=x in ("steps", "characters"))
        ax.xaxis.set_major_formatter("{x:,.10g}")

        # above the plot the kinds of lines and markers, below it the runs and their baselines
        key = {kind: Line2D([], [], color=GRAY, **KINDS[kind]) for kind in KINDS if kind in shown}
        figure.legend(key.values(), key.keys(), loc="outside upper left", ncols=len(key))
        runs = [(Line2D([], [], **_series_style(i)), curve.label) for i, curve in enumerate(curves)]
        _add_legend(figure, runs + _plot_baselines(ax, curves))
    return figure


def _plot_baselines(ax: Axes, curves: Sequence[Curve]) -> list[tuple[Any, str]]:
    """Plot each baseline once, even if runs share it; return handles and labels for a legend."""
    baselines = sorted({curve.baseline for curve in curves if curve.baseline})
    entries = []
    for baseline in baselines:
        runs = [i for i, curve in enumerate(curves) if curve.baseline == baseline]
        several = len(baselines) > 1
        names = " of " + ", ".join(curves[i].name for i in runs) if several else ""
        color = COLORS[runs[0] % len(COLORS)] if several else GRAY
        line = ax.axhline(baseline[0], color=color, ls=":", lw=1.2)
        entries.append((line, f"best n-gram baseline{names}: {baseline[1]} {baseline[0]:.3f}"))
    return entries


def plot_lines(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]], xlabel: str, ylabel: str
) -> Figure:
    """Plot y, on a logarithmic axis, against x for each name; 0 and non-finite values are gaps.

    Raises UsageError without matplotlib.
    """
    with _style():
        figure, ax = _new_figure(xlabel, ylabel)
        entries = []
        for i, (name, (xs, values)) in enumerate(series.items()):
            ys = np.array(values, float)
            ys[~(ys > 0)] = np.nan
            every, dashes = marker_indices(ys, i / len(series)), DASHES[i % len(DASHES)]
            (line,) = ax.plot(xs, ys, ls=dashes, markevery=every, **_series_style(i))
            entries.append((line, escape_control(name)))
        ax.set_yscale("log")
        _add_legend(figure, entries)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png, .svg or .pdf. Raises UsageError for another ending, SaveError."""
    ending = path.suffix.lower()
    if ending not in METADATA:
        problem = "unsupported image format; use .png, .svg or .pdf"
        raise UsageError(escape_control(f"{path}: {problem}"))
    with _style(), replace_file(path) as f:
        figure.savefig(f, format=ending[1:], metadata=METADATA[ending])


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Use the style of this module instead of the user's configuration."""
    try:
        import matplotlib.style
        from matplotlib.font_manager import fontManager
    except ImportError:
        raise UsageError("plotting needs matplotlib: pip install 'charrnn[plot]'") from None
    installed = {font.name for font in fontManager.ttflist}
    fonts = {"font.family": [name for name in FONTS.split(", ") if name in installed]}
    with matplotlib.style.context(STYLE | fonts, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it is shown as a box
        yield


def _new_figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((WIDTH_INCHES, PLOT_INCHES), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure, ax


def _add_legend(figure: Figure, entries: Sequence[tuple[Any, str]]) -> None:
    """Add handles and their labels below the plot, and make the figure taller by as much."""
    handles, labels = zip(*entries, strict=True)
    legend = figure.legend(handles, [""] * len(labels), loc="outside lower left")
    lines = 0
    for text, label in zip(legend.get_texts(), labels, strict=True):
        wrapped = textwrap.wrap(label, LEGEND_COLUMNS)
        text.set_text("\n".join(wrapped).replace("$", r"\$"))  # set here: legend() skips "_name"
        lines += len(wrapped)
    figure.set_figheight(PLOT_INCHES + LEGEND_LINE_INCHES * lines)


def _series_style(i: int) -> dict[str, Any]:
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}


def marker_indices(ys: Array, shift: float, n: int = 10) -> list[int]:
    """Return the points with a marker: about n, shifted per curve, and all isolated ones."""
    finite = np.pad(np.isfinite(ys), 1)
    isolated = np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])
    every = max(1, len(ys) // n)
    return sorted({*range(int(shift * every), len(ys), every), *isolated.tolist()})


def round_step(about: float, tolerance: float) -> float:
    """Return the first of 1, 2 and 5, times a power of ten, that is about this large or larger."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= about * (1 - tolerance))
