"""``charrnn show`` of a captioner with attention: the regions that it looks at while it writes."""

from __future__ import annotations

import re
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from charrnn.cli import common
from charrnn.cli.streams import print_message, stdout
from charrnn.errors import NotFiniteError, TextError, UsageError, os_reason
from charrnn.formatting import escape_control

if TYPE_CHECKING:
    from charrnn.arrays import Array
    from charrnn.model import Model

MAX_PICTURE_BYTES = 10 * 2**20


class Shown(NamedTuple):
    """What is shown: a row of the features, and how."""

    features: Path | None
    row: int | None  # counted from 0
    image: Path | None
    grid: tuple[int, int] | None  # rows and columns of the regions

    def check(self, html: Path | None) -> None:
        """Raise UsageError for options that need others."""
        if not self.features and not all(value is None for value in self[1:]):
            raise UsageError("--row, --image and --grid need --features")
        if self.image and not html:
            raise UsageError("--image needs --html: a terminal shows the grid alone")

    def shape(self, R: int) -> tuple[int, int]:
        """Return the rows and columns of R regions. Raises UsageError."""
        side = round(R**0.5)
        rows, columns = self.grid or (side, side)
        if rows * columns == R:
            return rows, columns
        if self.grid:
            raise UsageError(f"--grid {rows}x{columns} has {rows * columns:,} regions, not {R:,}")
        raise UsageError(f"{R:,} regions are not a square: give their --grid ROWSxCOLUMNS")


def parse_grid(value: str) -> tuple[int, int]:
    match = re.fullmatch("([1-9][0-9]{0,5})[x\u00d7]([1-9][0-9]{0,5})", value)
    if not match:
        raise click.BadParameter(f"{value!r} must be ROWSxCOLUMNS, for example 8x8")
    return int(match[1]), int(match[2])


def show_pictures(
    model: Model,
    name: Path,
    files: list[str],
    shown: Shown,
    length: int,
    html: Path | None,
    color_depth: int,
) -> None:
    """Print a map of the regions for each character of a caption, or write a page.

    The caption is that of the row in the files, or what the model writes if there is none. ``name``
    is that of the model. Raises TextError, UsageError.
    """
    from charrnn.drawing import picture
    from charrnn.drawing.alignment import symbol_cells
    from charrnn.drawing.highlight import symbol_label

    shape, row = shown.shape(count_regions(model, name, shown.features)), shown.row or 0
    n = model.use_features(shown.features or "")
    if row >= n:
        raise UsageError(f"--row {row}: {shown.features} has {n:,} rows, counted from 0")
    below = picture.picture_uri(read_picture(shown.image), str(shown.image)) if shown.image else ""
    title, width = (
        f"row {row} of {shown.features}, attention of {name}",
        shutil.get_terminal_size().columns,
    )
    pairs, parts = captions_of_row(model, files, (str(shown.features), n), row), []
    if html is None:
        print_message(f"charrnn: {title}")
        depth = color_depth if sys.stderr.isatty() else 0
        sys.stderr.write(f"{picture.render_legend(depth)}\n")
    for text, target in pairs:
        codes, p = look_at(model, text, target, row, length)
        maps = [symbol_label(code, model.unit) for code in codes], p.reshape(-1, *shape)
        if html is not None:
            cells = symbol_cells(codes, model.unit)
            parts.append(picture.render_picture(text, cells, *maps))
            continue
        before = f"{text}: " if text else ""
        stdout().write(escape_control(f"{before}{target}") + "\n\n")
        for line in picture.render_maps(*maps, color_depth, width):
            stdout().write(f"{line}\n")
    if html is not None:
        page = picture.render_pictures(title, parts, shape, below)
        common.write_output(html, page.encode("utf-8", "backslashreplace"))


def count_regions(model: Model, name: Path, features: Path | None) -> int:
    """Return R of a captioner with attention. Raises UsageError for another model."""
    of_model = model.state.features
    if not of_model:
        raise UsageError(f"{name}: reads no features")
    if not model.config.attention:
        raise UsageError(f"{name}: has no attention: train a model with --attention")
    if not features:
        raise UsageError("the model reads features: give those of the picture with --features")
    return of_model["shape"][0]


def look_at(model: Model, text: str, target: str, row: int, length: int) -> tuple[list[int], Array]:
    """Return the first symbols of a caption, and what each takes from the regions (m, R)."""
    import numpy as np

    from charrnn.tasks.text import align

    with np.errstate(all="ignore"):  # the weights may be huge
        found = align(model.predictor, text, target, row)
    if not np.isfinite(found.p).all():
        raise NotFiniteError("the attention is not finite: the model has diverged")
    return found.written[:length].tolist(), found.p[:length]


def captions_of_row(
    model: Model, files: list[str], features: tuple[str, int], row: int
) -> list[tuple[str, str]]:
    """Return the texts of the row with their targets, or what the model writes without a FILE."""
    from charrnn.tasks.lines import read_labelled_file

    if not files:
        options: dict[str, Any] = {"rows": [row]}
        return [("", model.predict([""], **options)[0])]
    lines = read_labelled_file(files[0], model.config, model.state.task, features)
    found = [(line.text, line.target) for line in lines if line.row == row]
    if not found:
        raise TextError(f"{files[0]}: has no line of row {row:,}")
    return found


def read_picture(path: Path) -> bytes:
    """Return the bytes of a picture. Raises TextError."""
    data, reason = b"", "not a regular file"  # opening a pipe would wait
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as f:
                data = f.read(MAX_PICTURE_BYTES + 1)
            is_large = len(data) > MAX_PICTURE_BYTES
            reason = f"a picture of more than {MAX_PICTURE_BYTES:,} bytes" if is_large else ""
    except OSError as e:
        reason = os_reason(e)
    if reason:
        raise TextError(escape_control(f"{path}: {reason}"))
    return data
