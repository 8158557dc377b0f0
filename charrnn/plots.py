"""Pictures: the losses of runs, lines, numbers as shades; and the losses in a terminal.

matplotlib is an extra, and imported by the functions that need it: the terminal's curves do without. Its settings are
left as they are, and do not count: the same things are drawn the same way, byte for byte.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charrnn.arrays import Array
from charrnn.checkpoint import read_header
from charrnn.errors import CheckpointError, UsageError, one_line, unsaved
from charrnn.header import Header

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

X = {"steps": "step", "epochs": "epoch", "characters": "characters", "seconds": "seconds"}  # to the key of a row
LARGEST = 1e18  # of what is drawn: beyond, axes overflow
METADATA: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}

# Okabe and Ito (2008): colours that everyone can tell apart; the markers and dashes tell without any.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
GREY = "0.35"
FONT = "DejaVu Sans"  # comes with matplotlib, and lacks Hangul
HANGUL = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo")
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 4,
    "savefig.dpi": 150,
    "svg.hashsalt": "charrnn",
    "text.parse_math": False,  # a name may hold dollars
}
WIDTH, LINE = 8.0, 0.17  # inches: of a picture, and the height of a line of its legend
CELLS = 55  # in a line of the legend, of the widest letters; of Hangul half as many

ROWS = 16  # of the terminal's curves
DOTS = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # of a braille character, whose number is their sum
ANSI = (34, 33, 32, 31, 36, 35)


class Curve(NamedTuple):
    """What is drawn of a run: arrays (n,), NaN where nothing was measured."""

    name: str
    xs: Array
    train: Array  # each the mean since the row before
    val: Array
    best: tuple[float, float] | None  # where the best weights are
    told: str  # the same in words
    level: tuple[float, str] | None  # the validation loss of the best count model


def read(paths: Iterable[Path]) -> dict[str, Header]:
    """Return the headers of runs by name: the stems of their files, or the paths where two stems are the same.

    Raises CheckpointError for a file that is no run, or a run of which no loss has been measured yet.
    """
    files = list(dict.fromkeys(paths))
    stems = [path.stem for path in files]
    headers = {}
    for path in files:
        header = read_header(path)
        if header["kind"] != "run":
            raise CheckpointError(one_line(f"{path}: weights alone, without the losses of a run"))
        rows = header["history"]
        if all(row["train_loss"] is None and row["val_loss"] is None for row in rows):
            raise CheckpointError(one_line(f"{path}: nothing to draw: no loss has been measured yet"))
        numbers = [header["best"]["val_loss"], *header["ladder"].values()]
        numbers += [row[key] for row in rows for key in ("train_loss", "val_loss", *X.values())]
        if not all(number is None or 0 <= number <= LARGEST for number in numbers):
            raise CheckpointError(one_line(f"{path}: damaged: a number of its history is out of bounds"))
        headers[one_line(path.stem if stems.count(path.stem) == 1 else str(path))] = header
    return headers


def _curves(headers: Mapping[str, Header], x: str, bits: bool) -> tuple[list[Curve], str, str]:
    """Return what there is to draw, and the labels of the axes."""
    each = {"byte" if header["config"]["unit"] == "byte" else "character" for header in headers.values()}
    unit, per = math.log(2) if bits else 1.0, "bits" if bits else "nats"
    drawn = []
    for name, header in headers.items():
        rows, best = header["history"], header["best"]
        steps, xs, train, val = (
            np.array([row[key] for row in rows], float) for key in ("step", X[x], "train_loss", "val_loss")
        )
        if len(each) > 1:  # what cannot be compared must not seem to be
            name += f" ({per} per {'byte' if header['config']['unit'] == 'byte' else 'character'})"
        where, told = None, name
        if best["val_loss"] is not None:
            loss = best["val_loss"] / unit
            where = float(np.interp(best["step"], steps, xs)), loss
            told = f"{name}: best {loss:.3f} at step {best['step']:,}"
        level = min(((loss / unit, kind) for kind, loss in header["ladder"].items()), default=None)
        drawn.append(Curve(name, xs, train / unit, val / unit, where, told, level))
    of = each.pop() if len(each) == 1 else None
    return drawn, f"{of or 'character'}s read" if x == "characters" else x, f"{per} per {of}" if of else per


def curves(headers: Mapping[str, Header], x: str = "steps", bits: bool = False) -> Figure:
    """Draw the losses of runs, by name: training, validation, where the best weights are, the best count model.

    ``x`` is steps, epochs, characters or seconds; losses are in nats per character (of bytes: per byte), or in bits.
    Raises UsageError without matplotlib.
    """
    drawn, xlabel, ylabel = _curves(headers, x, bits)
    names = [_wrapped(c.told, CELLS) for c in drawn]
    with _style(*names):
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        figure, ax = _figure(xlabel, ylabel, names)
        kinds: dict[str, dict[str, Any]] = {
            "training": {"ls": "--", "lw": 0.9, "marker": "o", "mfc": "white"},
            "validation": {"ls": "-", "marker": "o"},
            "best weights": {"ls": "none", "marker": "o", "mfc": "none", "ms": 11},
            "best of the count models": {"ls": ":", "lw": 1},
        }
        shown, handles = set(), []
        for i, c in enumerate(drawn):
            look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            handles.append(Line2D([], [], **look))
            for kind, ys in (("training", c.train), ("validation", c.val)):
                if np.isfinite(ys).any():
                    ax.plot(c.xs, ys, markevery=_marked(ys, i / len(drawn)), **kinds[kind] | look)
                    shown.add(kind)
            if c.best:
                ax.plot(*c.best, **look | kinds["best weights"])
                shown.add("best weights")
        ax.set_xlim(0, 1.02 * max(c.xs.max() for c in drawn) or 1)
        ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=x in ("steps", "characters")))
        ax.xaxis.set_major_formatter(_number)
        if _levels(ax, drawn, kinds["best of the count models"]):
            shown.add("best of the count models")
        key = {kind: Line2D([], [], **{"color": GREY} | look) for kind, look in kinds.items() if kind in shown}
        figure.legend(key.values(), key.keys(), loc="outside upper left", ncols=len(key))
        _legend(figure, handles, names)
    return figure


def _levels(ax: Axes, drawn: Sequence[Curve], look: dict[str, Any]) -> bool:
    """Draw each run's count model as a line with its name at the right end, once where runs share it."""
    levels: dict[tuple[float, str], int] = {}
    for i, c in enumerate(drawn):
        if c.level:
            levels.setdefault(c.level, i)
    order = sorted(levels.items())
    colours = [COLOURS[i % len(COLOURS)] if len(drawn) > 1 else GREY for _, i in order]
    for ((loss, _), _), colour in zip(order, colours, strict=True):
        ax.axhline(loss, color=colour, **look)  # first all of them: they move the limits
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    gap = 0.045
    at: list[float] = []  # the heights of the names, apart from each other
    for (loss, _), _ in order:
        at.append(max((loss - low) / (high - low), at[-1] + gap if at else 0))
    for k in reversed(range(len(at))):
        at[k] = min(at[k], at[k + 1] - gap if k + 1 < len(at) else 1)
    for height, ((loss, kind), i), colour in zip(at, order, colours, strict=True):
        if len(drawn) > 1:
            marker = MARKERS[i % len(MARKERS)]
            ax.plot(1.035, height, transform=ax.transAxes, clip_on=False, marker=marker, color=colour)
        ax.annotate(
            f"{kind} {loss:.3f}",
            (1, loss),
            (1.05 if len(drawn) > 1 else 1.03, height),
            xycoords=ax.get_yaxis_transform(),
            textcoords="axes fraction",
            va="center",
        )
        ax.plot(
            [1, 1.025],
            [(loss - low) / (high - low), height],
            transform=ax.transAxes,
            clip_on=False,
            color=colour,
            lw=0.5,
        )
    return bool(levels)


def lines(series: Mapping[str, tuple[ArrayLike, ArrayLike]], xlabel: str, ylabel: str, log: str = "") -> Figure:
    """Draw ys over xs for each name; ``log`` holds the letters of the axes that are logarithmic, x and y.

    What is not finite is left out; on a logarithmic axis so is what is not above 0. Raises UsageError without
    matplotlib.
    """
    names = [_wrapped(one_line(name), CELLS) for name in series]
    points = [np.array(pair, float) for pair in series.values()]
    with _style(*names, xlabel, ylabel):
        figure, ax = _figure(xlabel, ylabel, names)
        handles = []
        for k, letter in enumerate("xy"):
            axis = ax.xaxis if letter == "x" else ax.yaxis
            if letter in log:
                ax.set(**{f"{letter}scale": "log"})
                for pair in points:
                    pair[k][~(pair[k] > 0)] = np.nan
                every = np.log10(np.concatenate([pair[k] for pair in points]))
                every = every[np.isfinite(every)]
                if len(every):  # whole decades: there are labels however small the range is
                    low, high = math.floor(every.min()), math.ceil(every.max())
                    ax.set(**{f"{letter}lim": (0.8 * 10.0**low, 1.25 * 10.0 ** max(high, low + 1))})
                axis.set_major_formatter(_number)
        for i, (xs, ys) in enumerate(points):
            look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            where = _marked(xs + ys, i / len(points))
            handles += ax.plot(xs, ys, linestyle=DASHES[i % len(DASHES)], markevery=where, **look)
        _legend(figure, handles, names)
    return figure


def heat(values: ArrayLike, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Draw values (rows, columns) as shades, with their numbers where there are twelve columns or less.

    NaN stays white. Raises UsageError without matplotlib.
    """
    table = np.array(values, float)
    labels = [[_wrapped(one_line(label), CELLS // 2) for label in side] for side in (rows, columns)]
    longest = [max((_cells(line) for label in side for line in label.split("\n")), default=0) for side in labels]
    numbers = len(columns) <= 12
    wide = 0.5 if numbers else 0.2
    upright = longest[1] * 0.09 > wide - 0.05
    height = LINE * max((1 + label.count("\n") for label in labels[0]), default=1) + 0.12
    across = max(4.0, 1.6 + 0.09 * longest[0] + wide * len(columns))
    title = _wrapped(one_line(title), int(7 * across))
    below = 0.09 * longest[1] if upright else LINE
    down = max(1.2, height * len(rows)) + 0.8 + LINE * title.count("\n") + below
    with _style(title, *labels[0], *labels[1]):
        from matplotlib.figure import Figure

        figure = Figure((across, down), layout="constrained")
        ax = figure.add_subplot()
        image = ax.imshow(table, cmap="cividis", aspect="auto")  # lightness grows with the value, in grey too
        figure.suptitle(title, x=0.02, ha="left", fontsize=10)
        ax.set_yticks(range(len(rows)), labels[0])
        ax.set_xticks(range(len(columns)), labels[1], rotation=90 if upright else 0)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=ax, pad=0.02)
        bar.ax.yaxis.set_major_formatter(_number)
        if numbers:
            shade: Any = image.norm
            for (r, k), value in np.ndenumerate(table):
                if np.isfinite(value):
                    colour = "black" if shade(value) > 0.5 else "white"
                    ax.text(k, r, f"{value:.2g}", color=colour, ha="center", va="center", fontsize=8)
    return figure


def write(figure: Figure, path: Path) -> None:
    """Write a picture in the format that the name ends with: .png, .svg or .pdf; the same picture, the same bytes.

    Raises UsageError for another ending, SaveError.
    """
    ending = path.suffix.lower()
    if ending not in METADATA:
        raise UsageError(one_line(f"{path}: a picture's name ends with {', '.join(METADATA)}"))
    data = io.BytesIO()
    with _style():
        figure.savefig(data, format=ending[1:], metadata=METADATA[ending])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.getvalue())
    except OSError as e:
        raise unsaved(path, e) from None


@contextlib.contextmanager
def _style(*labels: str) -> Iterator[None]:
    """Draw in the style of this module, with a font that holds the labels, if one is installed."""
    try:
        import matplotlib
        from matplotlib.font_manager import findfont, fontManager, get_font
    except ImportError:
        raise UsageError(
            "a picture needs matplotlib: pip install 'charrnn[plot]'; --terminal draws without it"
        ) from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(STYLE)
        font = get_font(findfont(FONT))
        if not all(font.get_char_index(ord(c)) for label in labels for c in label if c != "\n"):
            installed = {each.name for each in fontManager.ttflist}
            settings["font.family"] = [FONT, *[name for name in HANGUL if name in installed][:1]]
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for it, and tells enough
        yield


def _figure(xlabel: str, ylabel: str, names: Sequence[str]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, 4.5 + LINE * sum(1 + name.count("\n") for name in names)), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.ticklabel_format(useOffset=False)
    return figure, ax


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put the names below the picture, a line each."""
    legend = figure.legend(handles, [""] * len(names), loc="outside lower left")
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # a name that begins with an underscore would be left out


def _marked(ys: Array, shift: float, n: int = 10) -> list[int]:
    """Return which of ys get a marker: some n, shifted from curve to curve, and all that stand alone."""
    finite = np.pad(np.isfinite(ys), 1)
    alone = finite[1:-1] & ~finite[:-2] & ~finite[2:]
    every = max(1, len(ys) // n)
    return sorted({*range(int(shift * every), len(ys), every), *np.flatnonzero(alone).tolist()})


def _number(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:g}"


def _cells(text: str) -> int:
    """Return how wide a text is, as a terminal shows it."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _wrapped(text: str, width: int) -> str:
    """Break a text into lines of at most so many cells, at spaces where there are any near."""
    out, line = [], ""
    for c in text:
        if line and _cells(line + c) > width:
            head, space, tail = line.rpartition(" ")
            if not (space and len(head) > len(line) // 2):
                head, tail = line, ""
            out.append(head)
            line = tail
        line += c
    return "\n".join([*out, line])


def terminal(
    headers: Mapping[str, Header],
    x: str = "steps",
    bits: bool = False,
    *,
    width: int = 80,
    unicode: bool = True,
    colour: bool = False,
) -> str:
    """Draw the losses of runs, by name, as lines of text of at most ``width`` cells; see ``curves``.

    Dots of braille with ``unicode``, or else ASCII. Letters stand on the curves: capitals for validation, small ones
    for training.
    """
    drawn, xlabel, ylabel = _curves(headers, x, bits)
    levels = sorted({c.level for c in drawn if c.level})
    every = np.concatenate(
        [
            [loss for loss, _ in levels],
            *(part for c in drawn for part in (c.train, c.val, c.best[1:] if c.best else [])),
        ]
    )
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    if low == high:
        low, high = low - 0.5, high + 0.5
    right = max(float(c.xs.max()) for c in drawn) or 1.0
    ticks = _ticks(low, high, ROWS // 2)
    gutter = max(map(len, ticks.values()), default=0)
    columns = max(width - gutter - 2, 8)
    tall, wide = DOTS.shape if unicode else (1, 1)
    dots = np.zeros((ROWS * tall, columns * wide), bool)
    cells = np.full((ROWS, columns), "", object)  # what stands over the dots
    paints = np.zeros((ROWS, columns), int)
    bar, tee, corner, dash, foot, level = "│┤└─┬╌" if unicode else "|++-+-"

    def place(xs: ArrayLike, ys: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows and columns of dots."""
        down, along = (high - np.asarray(ys)) / (high - low), np.asarray(xs) / right
        parts = (part * (n - 1) for part, n in zip((down, along), dots.shape, strict=True))
        rows, cols = (np.rint(part).astype(np.int64) for part in parts)
        return rows, cols

    legend, letters = [], []
    for i, c in enumerate(drawn):
        for k, ys in enumerate((c.train, c.val)):
            at = np.flatnonzero(np.isfinite(ys))
            if not len(at):
                continue
            paint, mark = ANSI[(i if len(drawn) > 1 else k) % len(ANSI)], chr(ord("aA"[k]) + i % 26)
            rows, cols = place(c.xs, np.nan_to_num(ys))
            for j in at:
                begin = j - 1 if j and np.isfinite(ys[j - 1]) else j  # a line from the one before, if there is one
                n = max(abs(rows[j] - rows[begin]), abs(cols[j] - cols[begin])) + 1
                r, q = (np.rint(np.linspace(a[begin], a[j], n)).astype(int) for a in (rows, cols))
                dots[r, q], paints[r // tall, q // wide] = True, paint
            marked = {*_marked(ys, k / 2, 3), at[-1]} & {*at}
            letters += [(rows[j] // tall, cols[j] // wide, mark, paint) for j in sorted(marked)]
            legend.append(
                (f"{mark} validation: {c.told}" + " (*)" * bool(c.best) if k else f"{mark} training: {c.name}", paint)
            )
        if c.best:
            row, col = place(*c.best)
            letters.append((row // tall, col // wide, "*", paint))
    for loss, kind in levels:
        cells[place(0, loss)[0] // tall] = level
        legend.append((f"{level} {kind} {loss:.3f}", 0))
    dotted = dots.reshape(ROWS, tall, columns, wide)
    for r, q in np.argwhere(dotted.any((1, 3))):
        cells[r, q] = chr(0x2800 + (dotted[r, :, q] * DOTS).sum()) if unicode else "."
    for r, q, mark, paint in letters:
        cells[r, q], paints[r, q] = mark, paint

    def painted(text: str, paint: int) -> str:
        return f"\x1b[{paint}m{text}\x1b[0m" if colour and paint else text

    tick_rows = {int(place([0], [value])[0][0]) // tall: label for value, label in ticks.items()}
    out = [ylabel]
    for k, row_of in enumerate(zip(cells, paints, strict=True)):
        alike = itertools.groupby(zip(*row_of, strict=True), key=lambda cell: int(cell[1]))
        line = "".join(painted("".join(text or " " for text, _ in group), paint) for paint, group in alike)
        out.append(f"{tick_rows.get(k, ''):>{gutter}} {tee if k in tick_rows else bar}{line}")
    axis, under = [dash] * columns, ""
    for value, label in _ticks(0, right, columns // 12 + 1).items():
        at_x = int(place([value], [low])[1][0]) // wide
        begin_x = max(min(at_x - len(label) // 2, columns - len(label)), 0)
        if begin_x > len(under) or not under:  # they must not touch
            axis[at_x], under = foot, f"{under:{begin_x}}{label}"
    out += [
        " " * gutter + f" {corner}" + "".join(axis),
        " " * (gutter + 2) + under,
        f"{xlabel:>{gutter + 2 + columns}}",
    ]
    out += [painted(line, paint) for told, paint in legend for line in _wrapped(told, width).split("\n")]
    return "".join(line.rstrip() + "\n" for line in out)


def _ticks(low: float, high: float, n: int) -> dict[float, str]:
    """Return at most n + 1 round numbers from low to high, as they are written."""
    rough = (high - low) / max(n, 1)
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (ten, 2 * ten, 5 * ten, 10 * ten) if step >= rough * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return {k * step: f"{k * step:,.{digits}f}" for k in range(math.ceil(low / step), math.floor(high / step) + 1)}
