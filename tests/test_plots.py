"""What is drawn is what was measured; nothing is cut, overlaps, or depends on the surroundings."""

import copy
import io
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charrnn
from charrnn import checkpoint, plots
from charrnn.errors import CheckpointError, SaveError, UsageError
from charrnn.header import Header
from tests.conftest import CHARRNN, ENV, Cli

LONG = "a name that is long, " * 5 + "W" * 120
KOREAN = "아주 긴 한국어 이름 " * 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plots") / "play.npz"
    text = "To be, or not to be: that is the question.\n" * 60
    charrnn.train(text, hidden_size=8, max_steps=24, eval_every=2, output=path)
    return path


@pytest.fixture
def header(run: Path) -> Header:
    return checkpoint.read_header(run)


def column(header: Header, key: str) -> list[float]:
    return [math.nan if row[key] is None else row[key] for row in header["history"]]


def changed(header: Header, rows: int | None = None, train: Any = (), val: Any = (), **keys: Any) -> Header:
    """Return a copy with so many rows, null in the rows of ``train`` and ``val``, and other keys."""
    h: Header = copy.deepcopy(header) | keys
    h["history"] = h["history"][:rows]
    for name, nulls in (("train_loss", train), ("val_loss", val)):
        for k in nulls:
            h["history"][k][name] = None
    return h


def without_validation(header: Header) -> Header:
    best: dict[str, Any] = {"step": 0, "val_loss": None}
    return changed(header, val=range(len(header["history"])), best=best, ladder={})


def of_bytes(header: Header) -> Header:
    return changed(header, config={**header["config"], "unit": "byte"})


CASES = ("one", "long names", "five", "one row", "no validation", "holes", "units", "flat", "pruned")


def many(header: Header) -> dict[str, dict[str, Header]]:
    """Return what pictures must hold: cases by name."""
    pruned = changed(header, 5, best={"step": 11, "val_loss": 0.5}, ladder={})  # of a long history rows are left out
    others = {f"run {k}": changed(header, 12 - k, ladder={"trigram": 2.0 + 0.01 * k, "uniform": 3.0}) for k in range(5)}
    return {
        "one": {"play": header},
        "long names": {LONG: header, KOREAN: header, "_$x^2$": header},
        "five": others,
        "one row": {"play": changed(header, 1)},
        "no validation": {"play": without_validation(header)},
        "holes": {"play": changed(header, train=[0, 3, 5], val=[4, 6])},
        "pruned": {"play": pruned},
        "units": {"play": header, "bytes": of_bytes(header)},
        "flat": {"play": changed(header, 1, val=[0], ladder={}, best={"step": 0, "val_loss": None})},
    }


# --- reading ---


def test_names_of_runs(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "play.npz"
    other.write_bytes(run.read_bytes())
    third = tmp_path / "other\n.npz"
    third.write_bytes(run.read_bytes())
    assert list(plots.read([run, run])) == ["play"]
    assert list(plots.read([run, other, third])) == [str(run), str(other), r"other\n"]


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path, header: Header) -> None:
    model = tmp_path / "model.npz"
    charrnn.load(run).save(model)
    with pytest.raises(CheckpointError, match=r"model\.npz: weights alone, without the losses of a run"):
        plots.read([run, model])
    _, arrays = checkpoint.load(run)
    huge = changed(header)
    huge["history"][3]["val_loss"] = 1e300
    cases = [(changed(header, 0), "no loss has been measured yet"), (huge, "out of bounds")]
    cases.append((changed(header, 2, train=[0, 1], val=[0, 1]), "no loss has been measured yet"))
    for broken, message in cases:
        checkpoint.save(tmp_path / "broken.npz", broken, arrays)
        with pytest.raises(CheckpointError, match=rf"broken\.npz: .*{message}"):
            plots.read([tmp_path / "broken.npz"])


# --- pictures ---


@pytest.mark.parametrize(
    ("x", "key"), [("steps", "step"), ("epochs", "epoch"), ("characters", "characters"), ("seconds", "seconds")]
)
def test_curves_are_the_losses_that_were_measured(header: Header, x: str, key: str) -> None:
    pytest.importorskip("matplotlib")
    bits = x in ("epochs", "seconds")
    h = changed(header, train=[1], val=[2, 7])
    ax = plots.curves({"play": h, "later": changed(h, 4)}, x, bits).axes[0]
    unit = math.log(2) if bits else 1
    drawn = [line.get_xydata() for line in ax.lines]
    for name in ("train_loss", "val_loss"):
        for rows in (None, 4):
            wanted = np.array([column(h, key), column(h, name)]).T[:rows] / [1, unit]
            assert any(np.shape(d) == wanted.shape and np.array_equal(d, wanted, equal_nan=True) for d in drawn), name
    best = next(row for row in h["history"] if row["step"] == h["best"]["step"])
    where = [[best[key], h["best"]["val_loss"] / unit]]
    assert any(np.allclose(d, where, rtol=1e-12) for d in drawn if np.shape(d) == (1, 2))
    level = min(h["ladder"].values()) / unit
    (baseline,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert np.array_equal(np.asarray(baseline.get_ydata()), [level, level])
    kind = min(h["ladder"], key=h["ladder"].__getitem__)
    assert [t.get_text() for t in ax.texts] == [f"{kind} {level:.3f}"]  # once: both have the same text
    assert ax.get_ylabel() == ("bits per character" if bits else "nats per character")


def test_units_stand_on_the_axis(header: Header) -> None:
    pytest.importorskip("matplotlib")
    ax = plots.curves({"bytes": of_bytes(header)}, "characters").axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("bytes read", "nats per byte")
    figure = plots.curves({"a": header, "b": of_bytes(header)})
    assert figure.axes[0].get_ylabel() == "nats"
    told = [text.get_text().partition(":")[0] for text in figure.legends[1].get_texts()]
    assert told == ["a (nats per character)", "b (nats per byte)"]


def assert_legible(figure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw a picture: every text that is drawn lies within it, and on no other."""
    from matplotlib.text import Text

    texts: dict[Any, None] = {}  # each once: it may be drawn to lay things out, too
    draw: Any = Text.draw

    def note(text: Any, renderer: Any, *args: Any, **kwargs: Any) -> None:
        if text.get_text().strip():
            texts[text] = None
        draw(text, renderer, *args, **kwargs)

    with monkeypatch.context() as patched, plots._style():
        patched.setattr(Text, "draw", note)
        figure.savefig(io.BytesIO(), format="png", dpi="figure")
        extents = [text.get_window_extent().get_points() for text in texts]
    for text, (low, high) in zip(texts, extents, strict=True):
        assert (low >= 0).all(), text
        assert (high <= [figure.bbox.width, figure.bbox.height]).all(), text
    for (text, a), (other, b) in itertools.combinations(zip(texts, extents, strict=True), 2):
        assert ((a[1] <= b[0] + 1) | (b[1] <= a[0] + 1)).any(), (text, other)


@pytest.mark.parametrize("case", CASES)
def test_no_label_is_cut_or_overlaps(header: Header, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    figure = plots.curves(many(header)[case], "characters" if case == "one" else "steps")
    names = [text.get_text() for text in figure.legends[1].get_texts()]
    for name, text in zip(many(header)[case], names, strict=True):
        assert re.sub(r"\s", "", text).startswith(re.sub(r"\s", "", name))  # whole, but for where lines break
    assert_legible(figure, monkeypatch)
    ax: Any = figure.axes[0]
    assert ax.get_window_extent().height > 250
    assert all(0 <= level.xyann[1] <= 1 for level in ax.texts)
    assert not any(text.get_parse_math() for text in figure.legends[1].get_texts())  # a name may hold dollars
    for line in ax.lines:  # what no line leads to has a marker
        ys = line.get_ydata()
        for k in range(len(ys)):
            around = [ys[j] for j in (k - 1, k + 1) if 0 <= j < len(ys)]
            if line.get_markevery() is not None and np.isfinite(ys[k]) and not np.isfinite(around).any():
                assert k in line.get_markevery()


@pytest.mark.parametrize("ending", plots.METADATA)
def test_the_same_runs_give_the_same_bytes(header: Header, tmp_path: Path, ending: str) -> None:
    matplotlib: Any = pytest.importorskip("matplotlib")
    plots.write(plots.curves({KOREAN: header}), tmp_path / f"a{ending}")
    with matplotlib.rc_context({"axes.grid": True, "savefig.dpi": 30, "font.size": 20, "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        plots.write(plots.curves({KOREAN: header}), tmp_path / "new" / f"b{ending.upper()}")
        assert dict(matplotlib.rcParams) == before
    data = (tmp_path / f"a{ending}").read_bytes()
    assert data == (tmp_path / "new" / f"b{ending.upper()}").read_bytes()
    assert ending == ".png" or not re.search(b"CreationDate|dc:date", data)
    assert data[:5] == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}[ending]


def test_a_label_without_a_font_makes_no_noise(header: Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plots, "HANGUL", ("A Font That No One Has",))
    plots.write(plots.curves({"한국어 \U0001f600": header}), tmp_path / "a.png")  # a warning would be an error


def test_the_first_installed_font_holds_hangul(header: Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plots, "HANGUL", ("A Font That No One Has", "DejaVu Serif", "DejaVu Sans Mono"))
    for name, fonts in (("play", [["sans-serif"]]), ("소설", [["DejaVu Sans", "DejaVu Serif"]])):
        texts = plots.curves({name: header}).legends[1].get_texts()
        assert [list(text.get_fontfamily()) for text in texts] == fonts


def test_what_cannot_be_written(header: Header, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = plots.curves({"play": header})
    with pytest.raises(UsageError, match=r"a\.jpg: a picture's name ends with \.png, \.svg, \.pdf"):
        plots.write(figure, tmp_path / "a.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"file/a\.png: could not be saved"):
        plots.write(figure, tmp_path / "file" / "a.png")


def test_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    lag = np.arange(50)
    norm = np.exp(-lag / 3)
    norm[7] = 0
    figure = plots.lines({LONG: (lag, norm), "_gru 한": (lag, norm / 2)}, "lag", "norm", log="y")
    ax = figure.axes[0]
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    for line, factor in zip(ax.lines, (1, 0.5), strict=True):
        assert np.array_equal(
            line.get_xydata(), np.array([lag, np.where(norm, norm * factor, np.nan)]).T, equal_nan=True
        )
    low, high = ax.get_ylim()
    assert low < norm[norm > 0].min() / 2 < norm.max() < high
    assert len({line.get_linestyle() for line in ax.lines}) == len({line.get_marker() for line in ax.lines}) == 2
    assert_legible(figure, monkeypatch)
    assert norm[7] == 0  # the caller's arrays are as they were
    figure = plots.lines({"narrow": (lag[1:] / 1e3, lag[1:] + 1e5)}, "lag", "norm", log="x")
    assert figure.axes[0].get_xscale() == "log"
    assert_legible(figure, monkeypatch)
    plots.write(plots.lines({"nothing": ([], []), "zero": ([1], [0])}, "x", "y", log="xy"), tmp_path / "a.png")


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (5, 30)])
def test_heat(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    values = np.arange(rows * columns, dtype=float).reshape(rows, columns) / 7
    values[1, 2] = np.nan
    names = [f"row {k}, 글" for k in range(rows)], [f"column {k}" for k in range(columns)]
    figure = plots.heat(values, *names, title=LONG)
    ax = figure.axes[0]
    shades: Any = ax.images[0].get_array()
    assert np.array_equal(shades.filled(np.nan), values, equal_nan=True)
    assert [t.get_text() for t in ax.get_yticklabels()] == names[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == names[1]
    written = {t.get_position(): t.get_text() for t in ax.texts}
    shown = {(c, r): f"{v:.2g}" for (r, c), v in np.ndenumerate(values) if columns <= 12 and np.isfinite(v)}
    assert written == shown
    assert_legible(figure, monkeypatch)


# --- the terminal ---


def dots(art: str) -> set[tuple[int, int]]:
    """Return the rows and columns of braille dots, four and two to a character."""
    found = set()
    for r, line in enumerate(art.splitlines()[1 : 1 + plots.ROWS]):
        for c, character in enumerate(re.split("[│┤]", line, maxsplit=1)[1]):
            bits = ord(character) - 0x2800 if "\u2800" <= character <= "\u28ff" else 0
            places = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]  # as Unicode numbers them
            found |= {(4 * r + y, 2 * c + x) for k, (y, x) in enumerate(places) if bits >> k & 1}
    return found


def grid(art: str) -> list[str]:
    return [re.split("[│┤|+]", line, maxsplit=1)[1] for line in art.splitlines()[1 : 1 + plots.ROWS]]


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [20, 80, 133])
def test_terminal_shows_every_point(header: Header, unicode: bool, width: int) -> None:
    h = changed(header, train=[1, 4], val=[3, 5], ladder={"trigram": 1.0})
    art = plots.terminal({"play": h}, width=width, unicode=unicode)
    assert art.isascii() is not unicode
    lines = art.splitlines()
    assert max(map(plots._cells, lines)) <= width
    cells, columns = grid(art), width - re.search("[│┤|+]", lines[1]).end()  # type: ignore[union-attr]
    steps, losses = column(h, "step"), [column(h, "train_loss"), column(h, "val_loss")]
    top, bottom = np.nanmax(losses), min(1.0, float(np.nanmin(losses)))
    tall, wide = (4, 2) if unicode else (1, 1)
    for step, loss in [(s, y) for ys in losses for s, y in zip(steps, ys, strict=True) if y == y]:
        r = round((top - loss) / (top - bottom) * (plots.ROWS * tall - 1))
        q = round(step / max(steps) * (columns * wide - 1))
        cell = cells[r // tall].ljust(columns)[q // wide]
        assert cell in "aA*." or (r, q) in dots(art), (step, loss)
    level = round((top - 1.0) / (top - bottom) * (plots.ROWS * tall - 1)) // tall
    assert set(cells[level]) >= {"╌" if unicode else "-"}
    assert sum(cell.count("*") for cell in cells) == 1
    assert "A validation: play: best" in " ".join(lines[plots.ROWS :])


def test_terminal_leaves_gaps_where_nothing_was_measured(header: Header) -> None:
    n = len(header["history"])
    h = changed(header, train=range(n), val=range(3, n - 1), ladder={})
    art = plots.terminal({"play": h}, width=87, unicode=False)
    steps = column(h, "step")
    columns = max(map(len, grid(art)))
    first, last = (round(steps[k] / steps[-1] * (columns - 1)) for k in (2, n - 1))
    assert all(not line[first + 1 : last].strip(" *") for line in grid(art))
    assert "training" not in art


def test_the_axes_of_the_terminal_tell_the_truth(header: Header) -> None:
    art = plots.terminal({"play": header}, bits=True).splitlines()
    losses = [loss / math.log(2) for name in ("train_loss", "val_loss") for loss in column(header, name)]
    losses.append(min(header["ladder"].values()) / math.log(2))
    ticks = {r: float(m[1]) for r, line in enumerate(art[1 : 1 + plots.ROWS]) if (m := re.match(r" *([\d.]+) ┤", line))}
    assert len(ticks) >= 3
    each = (max(losses) - min(losses)) / plots.ROWS
    for r, value in ticks.items():
        assert abs(max(losses) - (r + 0.5) * each - value) <= each
    axis, numbers = art[1 + plots.ROWS], art[2 + plots.ROWS]
    left = axis.index("└") + 1
    for m in re.finditer(r"\d+", numbers):
        where = left + int(m[0]) / header["history"][-1]["step"] * (80 - left - 1)
        assert m.start() - 1 <= where <= m.end()
        assert axis[round(where)] == "┬" or "┬" in axis[round(where) - 1 : round(where) + 2]
    assert art[0] == "bits per character"
    assert art[3 + plots.ROWS].strip() == "steps"


def test_numbers_of_a_narrow_axis_stand_apart(header: Header) -> None:
    h = changed(header)
    for k, row in enumerate(h["history"]):
        row["characters"] = (k + 1) * 1_234_567
    for width in range(20, 90):
        numbers = plots.terminal({"play": h}, "characters", width=width).splitlines()[2 + plots.ROWS].split()
        assert all(re.fullmatch(r"\d{1,3}(,\d{3})*", number) for number in numbers), numbers


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_terminal_of_every_case(header: Header, case: str, unicode: bool) -> None:
    for width in (10, 40, 80):
        art = plots.terminal(many(header)[case], width=width, unicode=unicode)
        assert max(map(plots._cells, art.splitlines())) <= max(width, 20)
    words = re.sub(r"\s", "", art)
    for name in many(header)[case]:
        assert re.sub(r"\s", "", name) in words


def test_colours_are_those_of_the_runs(header: Header) -> None:
    headers = {"one": header, "two": changed(header, 5)}
    art = plots.terminal(headers, colour=True)
    plain = plots.terminal(headers)
    assert "\x1b" not in plain
    unpainted = re.sub(r"\x1b\[\d+m", "", art)
    assert [line.rstrip() for line in unpainted.splitlines()] == plain.splitlines()
    for mark, paint in (("A", 34), ("a", 34), ("B", 33), ("b", 33)):
        assert f"\x1b[{paint}m{mark} " in art


@pytest.mark.parametrize(
    ("low", "high", "n"), [(0, 300, 6), (1.93, 4.17, 8), (0, 1, 1), (0.1, 0.1001, 5), (3, 1e18, 5), (0, 2e-9, 4)]
)
def test_ticks_are_round_and_few(low: float, high: float, n: int) -> None:
    ticks = plots._ticks(low, high, n)
    values = list(ticks)
    assert 1 <= len(values) <= n + 1
    assert all(low - 1e-9 * high <= v <= high * (1 + 1e-9) for v in values)
    assert all(float(label.replace(",", "")) == pytest.approx(v, abs=1e-12) for v, label in ticks.items())
    for step in np.diff(values):
        assert f"{step:.5e}"[:7] in ("1.00000", "2.00000", "5.00000")


# --- the command ---


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "소설.npz").write_bytes(run.read_bytes())
    return tmp_path


UTF8 = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "", "NO_COLOR": ""}


def test_plot_in_a_terminal_that_is_none(cli: Cli, folder: Path, header: Header) -> None:
    out = cli("plot", "--terminal", "--x", "epochs", env=UTF8).stdout.decode()
    assert out == plots.terminal({"소설": header}, "epochs", width=80)
    assert cli("plot", "--terminal", env={**UTF8, "COLUMNS": "50"}).stdout.decode() == plots.terminal(
        {"소설": header}, width=50
    )
    out = cli("plot", "--terminal", "--bits", env={**UTF8, "PYTHONIOENCODING": "ascii"}).stdout.decode("ascii")
    assert r"A validation: \uc18c\uc124: best" in out
    assert cli("plot", "--terminal").stderr == b""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals of this kind")
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_plot_in_a_terminal(folder: Path, env: dict[str, str], coloured: bool) -> None:
    leader, follower = os.openpty()
    command = [*CHARRNN, "plot", "--terminal"]
    env = {**ENV, **UTF8, "TERM": "xterm", "COLUMNS": "60", **env}
    with subprocess.Popen(command, cwd=folder, env=env, stdout=follower) as process:
        os.close(follower)
        out = b""
        while True:
            try:
                data = os.read(leader, 4096)
            except OSError:  # as Linux tells that the other end is closed
                break
            if not data:
                break
            out += data
    os.close(leader)
    assert process.returncode == 0
    assert (b"\x1b[" in out) is coloured
    assert "┤".encode() in out


def test_plot_writes_the_picture(cli: Cli, folder: Path, header: Header) -> None:
    pytest.importorskip("matplotlib")
    done = cli("plot", "checkpoints/소설.npz", "-o", "curve.svg", "--bits", env={"PYTHONHASHSEED": "7"})
    assert (done.stdout, done.stderr) == (b"", b"curve.svg written\n")
    plots.write(plots.curves({"소설": header}, bits=True), folder / "same.svg")
    assert (folder / "curve.svg").read_bytes() == (folder / "same.svg").read_bytes()


def test_plot_without_matplotlib(cli: Cli, folder: Path) -> None:
    (folder / "none").mkdir()
    (folder / "none" / "matplotlib.py").write_text("raise ImportError")
    env = {"PYTHONPATH": os.pathsep.join([str(folder / "none"), ENV["PYTHONPATH"]])}
    done = cli("plot", "-o", "curve.png", rc=2, env=env)
    message = "charrnn: a picture needs matplotlib: pip install 'charrnn[plot]'; --terminal draws without it\n"
    assert (done.stdout, done.stderr.decode()) == (b"", message)
    assert not (folder / "curve.png").exists()
    assert cli("plot", "--terminal", env=env).stdout


@pytest.mark.parametrize(
    ("args", "rc", "message"),
    [
        ((), 2, "give one of them"),
        (("--terminal", "-o", "a.png"), 2, "give one of them"),
        (("nothing.npz", "--terminal"), 4, "nothing.npz: no such file"),
        (("--terminal", "--x", "days"), 2, "'days' is not one of"),
    ],
)
def test_plot_of_what_cannot_be(cli: Cli, folder: Path, args: tuple[str, ...], rc: int, message: str) -> None:
    done = cli("plot", *args, rc=rc)
    assert done.stdout == b""
    assert message in done.stderr.decode().rstrip("\n").splitlines()[-1]


def test_plot_imports_no_more_than_it_needs(folder: Path) -> None:
    code = """
import sys
from charrnn.cli import main
main(sys.argv[1:], standalone_mode=False)
print(*sorted({"matplotlib", "matplotlib.pyplot"} & set(sys.modules)), file=sys.stderr)
"""

    def loaded(*args: str) -> str:
        command = [sys.executable, "-c", code, "plot", *args]
        done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=True)
        return done.stderr.splitlines()[-1]

    assert loaded("--terminal") == ""
    pytest.importorskip("matplotlib")
    assert loaded("-o", "a.png") == "matplotlib"
