"""``charrnn show`` of a model with attention: what it looks at while it writes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.cli import common
from charrnn.cli.predict import line_groups
from charrnn.cli.streams import print_message, stdout
from charrnn.errors import TextError
from charrnn.formatting import format_count

if TYPE_CHECKING:
    from charrnn.model import Model


def show_alignments(
    model: Model, files: list[str], length: int, html: Path | None, color_depth: int, title: str
) -> None:
    """Print a heat map for each line of the files, or write a page. Raises TextError."""
    from charrnn.drawing import alignment, highlight
    from charrnn.tasks.text import align

    pairs = list(read_pairs(model, common.expand_folders(files, model), length))
    if not pairs:
        raise TextError("there is no line to show")
    caption = f"{title}: {format_count(len(pairs), 'line')}"
    pages, depth = [], color_depth if sys.stderr.isatty() else 0
    if html is None:
        print_message(f"charrnn: {caption}")
        sys.stderr.write(f"{highlight.render_legend(alignment.SHARE_SCALE, depth)}\n")
    for i, pair in enumerate(pairs):
        found = align(model.predictor, *pair)
        columns, rows = (
            alignment.symbol_cells(codes.tolist(), model.unit)
            for codes in (found.read, found.written)
        )
        if html is not None:
            pages.append(alignment.render_alignment_html(rows, columns, found.p))
            continue
        how = color_depth, shutil.get_terminal_size().columns
        stdout().write("\n" if i else "")
        for line in alignment.render_alignment(rows, columns, found.p, *how):
            stdout().write(f"{line}\n")
    if html is not None:
        page = highlight.render_page(title, alignment.wrap_alignments(caption, pages))
        common.write_output(html, page.encode("utf-8", "backslashreplace"))


def read_pairs(model: Model, files: list[str], length: int) -> Iterator[tuple[str, str]]:
    """Yield each text with its target, or with what the model writes if it has none.

    Lines are read until these have more than ``length`` characters. Raises TextError.
    """
    from charrnn.tasks.line_corpus import MAX_LINE_CHARACTERS

    for file in files:
        for lines in line_groups(file, model.encoding):
            for line in lines:
                text, tab, target = line.partition("\t")
                length -= len(line)
                if length < 0:
                    return
                if (n := max(len(text), len(target))) > MAX_LINE_CHARACTERS:
                    limit = f"more than {MAX_LINE_CHARACTERS:,}"
                    raise TextError(f"{file}: a line of {n:,} characters, {limit}")
                yield text, target if tab else model.predict([text])[0]
