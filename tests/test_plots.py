"""Plots show the measured losses; nothing is cut, overlaps, or depends on the environment."""

import copy
import dataclasses
import io
import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

import charrnn
from charrnn.drawing import figures, terminal
from charrnn.drawing.figures import plot_lines, plot_losses, read_states, save_figure
from charrnn.drawing.terminal import PLOT_ROWS, render_losses
from charrnn.errors import CheckpointError
from charrnn.formatting import display_width
from charrnn.storage import checkpoint
from tests.conftest import ENV, Cli, read_run

LONG = "a name that is long, " * 5 + "W" * 120
KOREAN = "아주 긴 한국어 이름 " * 8


@pytest.fixture
def state(trained: Path) -> Any:
    return read_run(trained / "checkpoints" / "corpus.npz")


def column(state: Any, key: str) -> list[float]:
    return [math.nan if row[key] is None else row[key] for row in state.history]


def changed(
    state: Any, rows: int | None = None, train: Any = (), val: Any = (), **fields: Any
) -> Any:
    """Return a copy with this number of rows, nulls at some indices, and other fields."""
    copied = dataclasses.replace(copy.deepcopy(state), **fields)
    copied.history = copied.history[:rows]
    for name, nulls in (("train_loss", train), ("val_loss", val)):
        for k in nulls:
            copied.history[k][name] = None
    return copied


def of_bytes(state: Any) -> Any:
    return changed(state, config=dataclasses.replace(state.config, unit="byte"))


NONE: dict[str, Any] = {"val": {}, "test": {}}
UNKNOWN: dict[str, Any] = {"best": {"step": 0, "val_loss": None}, "baselines": NONE}
CASES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "one": lambda h: {"play": h},
    "long names": lambda h: {LONG: h, KOREAN: h, "_$x^2$": h},
    "five": lambda h: {
        f"run {k}": changed(h, 12 - k, baselines={"val": {"3-gram": 2 + k / 100, "uniform": 3.0}})
        for k in range(5)
    },
    "one row": lambda h: {"play": changed(h, 1)},
    "no validation": lambda h: {"play": changed(h, val=range(len(h.history)), **UNKNOWN)},
    "holes": lambda h: {"play": changed(h, train=[0, 3, 5], val=[4, 6])},
    "units": lambda h: {"play": h, "bytes": of_bytes(h)},
    "flat": lambda h: {"play": changed(h, 1, val=[0], **UNKNOWN)},
    "pruned": lambda h: {"play": changed(h, 5, best={"step": 11, "val_loss": 0.5}, baselines=NONE)},
}


# --- reading ---


def test_runs_are_named_by_stem_or_path(run: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "corpus.npz", tmp_path / "other\n.npz"
    for path in (same, other):
        path.write_bytes(run.read_bytes())
    assert list(read_states([run, run])) == ["corpus"]
    assert list(read_states([run, same, other])) == [str(run), str(same), r"other\n"]


def test_checkpoints_without_valid_history_are_rejected(
    run: Path, tmp_path: Path, state: Any
) -> None:
    charrnn.load(run).save(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match=r"model\.npz: an exported model, which has no"):
        read_states([run, tmp_path / "model.npz"])
    _, arrays = checkpoint.read_checkpoint(run)
    huge = changed(state)
    huge.history[3]["val_loss"] = 1e300
    for broken, message in (
        (changed(state, 0), "nothing to plot: no evaluation yet"),
        (changed(state, 2, train=[0, 1], val=[0, 1]), "nothing to plot: no evaluation yet"),
        (huge, "damaged: a value in its history is out of range"),
    ):
        checkpoint.write_checkpoint(tmp_path / "broken.npz", broken, arrays)
        with pytest.raises(CheckpointError, match=rf"broken\.npz: {message}"):
            read_states([tmp_path / "broken.npz"])


# --- image files ---


def legend(figure: Any, k: int = 1) -> list[str]:
    return [text.get_text() for text in figure.legends[k].get_texts()]


@pytest.mark.parametrize(("x", "key"), figures.X_AXES.items())
def test_plotted_losses_match_the_history(state: Any, x: str, key: str) -> None:
    bits = x in ("epochs", "seconds")
    scale = math.log(2) if bits else 1
    h = changed(state, train=[1], val=[2, 7])
    figure = plot_losses({"play": h, "later": changed(h, 4)}, x, bits)
    ax = figure.axes[0]
    lines = [np.asarray(line.get_xydata()) for line in ax.lines]
    for name, rows in itertools.product(("train_loss", "val_loss"), (None, 4)):
        wanted = np.array([column(h, key), column(h, name)]).T[:rows] / [1, scale]
        assert any(np.array_equal(line, wanted, equal_nan=True) for line in lines), name
    row = next(row for row in h.history if row["step"] == h.best["step"])
    best = [[row[key], h.best["val_loss"] / scale]]
    assert any(np.allclose(line, best, rtol=1e-12) for line in lines if line.shape == (1, 2))
    # the baseline is plotted once, since both runs have it
    kind, loss = min(h.baselines["val"].items(), key=lambda item: item[1])
    (baseline,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert np.array_equal(np.asarray(baseline.get_ydata()), [loss / scale] * 2)
    assert legend(figure)[2:] == [f"best n-gram baseline: {kind} {loss / scale:.3f}"]
    assert legend(figure, 0) == ["training", "validation", "best weights"]
    assert ax.get_ylabel() == ("bits per character" if bits else "nats per character")


def test_different_baselines_name_their_runs(state: Any) -> None:
    six = changed(state, baselines={"val": {"2-gram": 2.0}})
    figure = plot_losses(CASES["five"](state) | {"six": six})
    assert legend(figure)[6:9] == [
        "best n-gram baseline of six: 2-gram 2.000",
        "best n-gram baseline of run 0: 3-gram 2.000",
        "best n-gram baseline of run 1: 3-gram 2.010",
    ]


def test_axes_and_names_show_units(state: Any) -> None:
    ax = plot_losses({"bytes": of_bytes(state)}, "characters").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("bytes read", "nats per byte")
    figure = plot_losses({"a": state, "b": of_bytes(state)})
    assert figure.axes[0].get_ylabel() == "nats"
    names = [label.partition(":")[0] for label in legend(figure)[:2]]
    assert names == ["a (nats per character)", "b (nats per byte)"]


def assert_legible(figure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw a figure: each text that is drawn is inside, and overlaps no other."""
    texts: dict[Any, None] = {}  # each once: the layout draws them too
    draw: Any = Text.draw

    def note(text: Any, renderer: Any, *args: Any, **kwargs: Any) -> None:
        if text.get_text().strip():
            texts[text] = None
        draw(text, renderer, *args, **kwargs)

    with monkeypatch.context() as patched, figures._style():
        patched.setattr(Text, "draw", note)
        figure.savefig(io.BytesIO(), format="png", dpi="figure")
        extents = [text.get_window_extent().get_points() for text in texts]
    for text, (low, high) in zip(texts, extents, strict=True):
        assert (low >= 0).all(), text
        assert (high <= [figure.bbox.width, figure.bbox.height]).all(), text
    for (text, a), (other, b) in itertools.combinations(zip(texts, extents, strict=True), 2):
        assert ((a[1] <= b[0] + 1) | (b[1] <= a[0] + 1)).any(), (text, other)
    assert figure.axes[0].get_window_extent().height > 250


@pytest.mark.parametrize("case", CASES)
def test_no_label_is_cut_or_overlaps(
    state: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = CASES[case](state)
    figure = plot_losses(runs, "characters" if case == "one" else "steps")
    assert_legible(figure, monkeypatch)
    for name, label in zip(runs, legend(figure), strict=False):
        whole = re.sub(r"\s", "", label).replace(r"\$", "$")  # but for where lines break
        assert whole.startswith(re.sub(r"\s", "", name))
    for line in figure.axes[0].lines:  # an isolated point has a marker
        ys, markers = np.asarray(line.get_ydata(), float), line.get_markevery()
        padded = np.pad(ys, 1, constant_values=np.nan)
        alone = np.isfinite(ys) & np.isnan(padded[:-2]) & np.isnan(padded[2:])
        assert markers is None or set(np.flatnonzero(alone)) <= set(np.asarray(markers))


@pytest.mark.parametrize("ending", figures.METADATA)
def test_same_runs_give_same_bytes(state: Any, tmp_path: Path, ending: str) -> None:
    save_figure(plot_losses({KOREAN: state}), tmp_path / f"a{ending}")
    settings: Any = {"axes.grid": True, "savefig.dpi": 30, "font.size": 20, "savefig.bbox": "tight"}
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        save_figure(plot_losses({KOREAN: state}), tmp_path / "new" / f"b{ending.upper()}")
        assert dict(matplotlib.rcParams) == before
    data = (tmp_path / f"a{ending}").read_bytes()
    assert data == (tmp_path / "new" / f"b{ending.upper()}").read_bytes()
    assert ending == ".png" or not re.search(b"CreationDate|dc:date", data)
    assert data[:5] == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}[ending]


def test_missing_fonts_do_not_warn(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(figures, "FONTS", "A Font That No One Has, DejaVu Sans")
    save_figure(plot_losses({"한국어 \U0001f600": state}), tmp_path / "a.png")
    assert not caplog.records  # a warning would be an error


def test_plot_lines_shows_positive_values_on_log_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lag = np.arange(50)
    norm = np.exp(-lag / 3)
    norm[7] = 0
    figure = plot_lines({LONG: (lag, norm), "_gru 한": (lag, norm / 2)}, "x", "y")
    ax = figure.axes[0]
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    for line, ys in zip(ax.lines, (norm, norm / 2), strict=True):
        wanted = np.array([lag, np.where(ys > 0, ys, np.nan)]).T
        assert np.array_equal(np.asarray(line.get_xydata()), wanted, equal_nan=True)
    assert ax.get_ylim()[0] < norm[norm > 0].min() / 2 < norm.max() < ax.get_ylim()[1]
    for look in ("linestyle", "marker", "color"):
        assert len({getattr(line, f"get_{look}")() for line in ax.lines}) == 2
    assert_legible(figure, monkeypatch)
    assert norm[7] == 0  # the caller's arrays are unchanged
    figure = plot_lines({"narrow": (lag, lag + 1e5), "nothing": ([], [])}, "x", "y")
    assert_legible(figure, monkeypatch)
    empty = plot_lines({"zero": ([1], [0]), "infinite": ([1], [np.inf])}, "x", "y")
    save_figure(empty, tmp_path / "a.png")


# --- the terminal ---


def plot_area(art: str) -> list[str]:
    return [re.split("[│┤|+]", line, maxsplit=1)[1] for line in art.splitlines()[1:][:PLOT_ROWS]]


def braille_dots(art: str) -> set[tuple[int, int]]:
    """Return the rows and columns of braille dots, four and two to a character."""
    dots = set()
    numbered = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]  # by Unicode
    for r, line in enumerate(plot_area(art)):
        for c, character in enumerate(line):
            bits = ord(character) - 0x2800 if "\u2800" <= character <= "\u28ff" else 0
            dots |= {(4 * r + y, 2 * c + x) for k, (y, x) in enumerate(numbered) if bits >> k & 1}
    return dots


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [20, 80, 133])
def test_terminal_shows_every_point(state: Any, unicode: bool, width: int) -> None:
    h = changed(state, train=[1, 4], val=[3, 5], baselines={"val": {"3-gram": 1.0}})
    art = render_losses({"play": h}, width=width, unicode=unicode)
    assert art.isascii() is not unicode
    lines, area, dots = art.splitlines(), plot_area(art), braille_dots(art)
    columns = width - re.search("[│┤|+]", lines[1]).end()  # type: ignore[union-attr]
    losses = [column(h, "train_loss"), column(h, "val_loss")]
    steps = column(h, "step")
    top, bottom = float(np.nanmax(losses)), min(1.0, float(np.nanmin(losses)))
    tall, wide = (4, 2) if unicode else (1, 1)

    def row(loss: float) -> int:
        return round((top - loss) / (top - bottom) * (PLOT_ROWS * tall - 1))

    for step, loss in [(s, y) for ys in losses for s, y in zip(steps, ys, strict=True) if y == y]:
        r, c = row(loss), round(step / max(steps) * (columns * wide - 1))
        assert area[r // tall].ljust(columns)[c // wide] in "aA*." or (r, c) in dots, (step, loss)
    assert ("╌" if unicode else "-") in area[row(1.0) // tall]
    assert "".join(area).count("*") == 1
    assert "A validation: play: best" in " ".join(lines[PLOT_ROWS:])


def test_terminal_leaves_gaps_for_missing_losses(state: Any) -> None:
    n = len(state.history)
    h = changed(state, train=range(n), val=range(3, n - 1), baselines=NONE)
    art = render_losses({"play": h}, width=87, unicode=False)
    steps, columns = column(h, "step"), max(map(len, plot_area(art)))
    first, last = (round(steps[k] / steps[-1] * (columns - 1)) for k in (2, n - 1))
    assert all(not line[first + 1 : last].strip(" *") for line in plot_area(art))
    assert "training" not in art


def test_terminal_axes_fit_the_data(state: Any) -> None:
    art = render_losses({"play": state}, bits=True).splitlines()
    losses = [*column(state, "train_loss"), *column(state, "val_loss")]
    losses.append(min(state.baselines["val"].values()))
    top, bottom = max(losses) / math.log(2), min(losses) / math.log(2)
    labels = [re.match(r" *([\d.]+) ┤", line) for line in art[1 : 1 + PLOT_ROWS]]
    ticks = {r: float(label[1]) for r, label in enumerate(labels) if label}
    assert len(ticks) >= 3
    step = (top - bottom) / PLOT_ROWS
    for r, value in ticks.items():
        assert abs(top - (r + 0.5) * step - value) <= step
    axis, numbers = art[1 + PLOT_ROWS], art[2 + PLOT_ROWS]
    left = axis.index("└") + 1
    for m in re.finditer(r"\d+", numbers):
        at = left + int(m[0]) / state.history[-1]["step"] * (80 - left - 1)
        assert m.start() - 1 <= at <= m.end()
        assert "┬" in axis[round(at) - 1 : round(at) + 2]
    assert (art[0], art[3 + PLOT_ROWS].strip()) == ("bits per character", "steps")


def test_terminal_numbers_do_not_touch(state: Any) -> None:
    h = changed(state)
    for k, row in enumerate(h.history):
        row["characters_seen"] = (k + 1) * 1_234_567
    for width in range(20, 90):
        art = render_losses({"play": h}, "characters", width=width).splitlines()
        numbers = art[2 + PLOT_ROWS].split()
        assert all(re.fullmatch(r"\d{1,3}(,\d{3})*", number) for number in numbers), numbers


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_terminal_lines_fit_the_width(state: Any, case: str, unicode: bool) -> None:
    runs = CASES[case](state)
    for width in (10, 40, 80):
        art = render_losses(runs, width=width, unicode=unicode)
        assert max(map(display_width, art.splitlines())) <= max(width, 20)
        assert all(re.sub(r"\s", "", name) in re.sub(r"\s", "", art) for name in runs)


def test_terminal_colors_match_the_runs(state: Any) -> None:
    states = {"one": state, "two": changed(state, 5)}
    art, plain = render_losses(states, color=True), render_losses(states)
    assert "\x1b" not in plain
    uncolored = re.sub(r"\x1b\[\d+m", "", art)
    assert [line.rstrip() for line in uncolored.splitlines()] == plain.splitlines()
    for letter, ansi in (("A", 34), ("a", 34), ("B", 33), ("b", 33)):
        assert f"\x1b[{ansi}m{letter} " in art


@pytest.mark.parametrize(
    ("low", "high", "n"),
    [(0, 300, 6), (1.93, 4.17, 8), (0, 1, 1), (0.1, 0.1001, 5), (3, 1e18, 5), (0, 2e-9, 4)],
)
def test_ticks_are_round_and_few(low: float, high: float, n: int) -> None:
    ticks = terminal._ticks(low, high, n)
    assert 1 <= len(ticks) <= n + 1
    for value, label in ticks.items():
        assert low - 1e-9 * high <= value <= high * (1 + 1e-9)
        assert float(label.replace(",", "")) == pytest.approx(value, abs=1e-12)
    for step in np.diff(list(ticks)):
        assert f"{step:.5e}"[:7] in ("1.00000", "2.00000", "5.00000")


# --- the command ---


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    run.rename(run.with_name("소설.npz"))
    return tmp_path


def test_plot_draws_in_the_terminal(
    cli: Cli, folder: Path, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    states = {"소설": state}
    done = cli("plot", "--terminal", "--x-axis", "epochs")
    wanted = render_losses(states, "epochs", width=50)
    assert done.stdout.decode() == wanted
    assert "checkpoints/소설.npz, the only checkpoint" in done.stderr.decode()
    monkeypatch.setattr(sys.modules["charrnn.cli.plot"], "supports_color", lambda: True)
    done = cli("plot", "--terminal", "--bits")
    assert done.stdout.decode() == render_losses(states, bits=True, width=50, color=True)
    done = cli("plot", "--terminal", env={"PYTHONIOENCODING": "ascii", "COLUMNS": ""})
    wanted = render_losses(states, unicode=False).replace("소설", r"\uc18c\uc124")
    assert done.stdout.decode("ascii") == wanted


def test_plot_writes_image_without_pyplot(folder: Path, state: Any) -> None:
    code = (
        "import atexit, sys; from charrnn.cli import main; "
        "atexit.register(lambda: print('matplotlib.pyplot' in sys.modules)); main()"
    )
    command = [sys.executable, "-c", code, "plot", "checkpoints/소설.npz", "-o", "curve.svg"]
    env = {**ENV, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"False\n", b"saved curve.svg\n")
    save_figure(plot_losses({"소설": state}), folder / "same.svg")
    assert (folder / "curve.svg").read_bytes() == (folder / "same.svg").read_bytes()


def test_plot_without_matplotlib(cli: Cli, folder: Path) -> None:
    (folder / "none").mkdir()
    (folder / "none" / "matplotlib.py").write_text("print('imported'); raise ImportError")
    env = {"PYTHONPATH": os.pathsep.join([str(folder / "none"), ENV["PYTHONPATH"]])}
    message = "plotting needs matplotlib: pip install 'charrnn[plot]'"
    done = cli("plot", "-o", "curve.png", rc=2, env=env)
    assert done.stderr.decode().endswith(f"charrnn: {message}, or use --terminal\n")
    args = ["gradflow", "-", "--lags", "1", "--hidden-size", "2", "--plot", "a.png"]
    done = cli(*args, stdin=b"abc" * 9, rc=2, env=env)
    assert done.stderr.decode() == f"charrnn: {message}\n"
    assert not list(folder.glob("*.png"))
    assert b"imported" not in cli("plot", "--terminal", env=env).stdout


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "give either --output FILE or --terminal"),
        (("--terminal", "-o", "a.png"), 2, "give either --output FILE or --terminal"),
        (("nothing.npz", "--terminal"), 4, "nothing.npz: no such file"),
        (("--terminal", "--x-axis", "days"), 2, "'days' is not one of"),
        (("-o", "a.jpg"), 2, "a.jpg: unsupported image format; use .png, .svg or .pdf"),
        (("-o", "corpus.txt/a.png"), 7, "corpus.txt/a.png: could not be saved"),
    ],
)
def test_plot_rejects_bad_arguments(
    cli: Cli, folder: Path, args: tuple[str, ...], rc: int, message: str
) -> None:
    done = cli("plot", *args, rc=rc)
    assert done.stdout == b""
    assert message in done.stderr.decode().splitlines()[-1]
