"""The chart of losses: to scale, complete, and with the values of every step."""

import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.drawing.chart import evenly_spaced, render_chart, ticks
from charrnn.drawing.figures import Curve
from tests.pages import Page

LOSSES = [(3.1, 3.0), (2.5, 2.6), (2.0, 2.4), (1.7, 2.5)]
HISTORY = [(4 * (i + 1), *losses) for i, losses in enumerate(LOSSES)]
BEST = (12.0, 2.4)
NAN = math.nan


def chart_of(
    history: Sequence[tuple[float, ...]],
    best: tuple[float, float] | None = BEST,
    baseline: tuple[float, str] | None = None,
) -> str:
    """Return the chart of rows of a step, a training and a validation loss."""
    steps, train, val = np.array(history, float).reshape(-1, 3).T
    return render_chart(Curve("", steps, train, val, best, "", baseline))


def labels(chart: Page) -> list[str]:
    return [str(point["aria-label"]) for point in chart.of_class("g", "point")]


def corners(line: dict[str, str | None]) -> list[tuple[float, ...]]:
    return [tuple(map(float, pair.split(","))) for pair in str(line["points"]).split()]


def test_every_step_shows_its_losses_and_the_best_is_marked() -> None:
    chart = Page(chart_of(HISTORY))
    assert labels(chart)[2] == (
        "Step 12: training 2.0000 nats (2.885 bits), validation 2.4000 nats (3.462 bits) (best)"
    )
    assert ["(best)" in label for label in labels(chart)] == [False, False, True, False]
    assert chart.texts["output"] == [labels(chart)[2]]
    assert chart.texts["li"] == ["training", "validation", "best"]


def test_curves_are_to_the_scale_of_the_labels() -> None:
    html = chart_of(HISTORY, BEST, (2.2, "3-gram"))
    chart = Page(html)
    grid = re.findall(r'<text x="-8" y="([\d.]+)%".*?>([\d.]+)</text>', html)
    (y0, loss0), (y1, loss1) = ([float(v) for v in grid[i]] for i in (0, -1))
    assert (y0, y1) == (100, 0)
    for k, name in enumerate(("train", "val")):
        dots = [
            (float(str(dot["cx"]).rstrip("%")), float(str(dot["cy"]).rstrip("%")))
            for dot in chart.of_class("circle", name)
        ]
        assert [x for x, _ in dots] == pytest.approx([25, 50, 75, 100])
        heights = [loss0 + (y - y0) * (loss1 - loss0) / (y1 - y0) for _, y in dots]
        assert heights == pytest.approx([row[k] for row in LOSSES], abs=2e-3)
        (line,) = chart.of_class("polyline", name)
        assert np.array(corners(line)) == pytest.approx(np.array(dots), abs=0.01)
    baseline = chart.of_class("line", "baseline")[-1]
    height = loss0 + (float(str(baseline["y1"]).rstrip("%")) - y0) * (loss1 - loss0) / (y1 - y0)
    assert height == pytest.approx(2.2, abs=2e-3)


def test_non_finite_losses_leave_a_gap() -> None:
    chart = Page(chart_of([HISTORY[0], (8, NAN, NAN), *HISTORY[2:]]))
    assert [len(corners(line)) for line in chart.of_class("polyline", "val")] == [1, 2]
    assert "Step 8: training non-finite, validation non-finite" in labels(chart)
    for rows in ([(1.0, NAN, NAN)], []):
        assert "No loss has been measured yet." in chart_of(rows, None)
    chart = Page(chart_of([(4, 3.1, NAN)], None))  # without validation
    assert chart.texts["li"] == ["training"]
    assert labels(chart) == ["Step 4: training 3.1000 nats (4.472 bits)"]


@pytest.mark.parametrize(("step", "loss"), [(16, -1e308), (16, 1e308), (0, 2.0)])
def test_damaged_history_is_not_plotted(step: int, loss: float) -> None:
    assert "The losses are out of range." in chart_of([*HISTORY, (step, loss, 1.0)])


def test_losses_of_a_diverged_run_are_plotted() -> None:
    chart = Page(chart_of([(1, 3e18, 2e18), (2, 6e299, 8e299)], None))
    (line,) = chart.of_class("polyline", "val")
    assert corners(line) == [(50, 100), (100, 0)]


def test_long_history_is_thinned_except_for_its_lines_and_the_best_step() -> None:
    chart = Page(chart_of([(i + 1, 2.0, 3 + 1 / (i + 1)) for i in range(3000)], (1234, 3.0)))
    points = labels(chart)
    assert len(points) == 41
    assert points[0].startswith("Step 1:")
    assert points[-1].startswith("Step 3,000:")
    assert sum("Step 1,234:" in point and "(best)" in point for point in points) == 1
    (line,) = chart.of_class("polyline", "val")
    assert len(corners(line)) == 3000


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_ticks_are_round_and_enclose_the_values(low: float, length: float, whole: bool) -> None:
    t = ticks(low, low + length, whole=whole)
    assert 2 <= len(t) <= 7
    assert t[0] <= low + 1e-6
    assert t[-1] >= low + length - 1e-6
    assert np.diff(t) == pytest.approx(t[1] - t[0])
    assert not whole or all(v == int(v) for v in t)


@given(st.integers(0, 500), st.integers(2, 50))
def test_spaced_indices_include_both_ends(n: int, most: int) -> None:
    indices = evenly_spaced(n, most)
    assert len(indices) == min(n, most)
    assert indices == sorted(set(indices))
    assert not n or (indices[0], indices[-1]) == (0, n - 1)
