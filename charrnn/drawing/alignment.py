"""What each symbol that is written takes from each that has been read, as a heat map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from charrnn.arrays import Array
from charrnn.drawing.highlight import (
    SURPRISAL_SCALE,
    color_codes,
    escape_inline,
    highlight_style,
    html_legend,
    symbol_label,
)
from charrnn.formatting import display_width
from charrnn.text.units import END_OF_DOCUMENT

SHARE_SCALE = SURPRISAL_SCALE._replace(
    name="share",
    step=0.1,
    ticks=("0", ".1", ".2", ".3", ".4", ".5", ".6", ".7", ".8", ".9"),
)
CELLS = {ord(" "): " ", END_OF_DOCUMENT: "↵"}  # an end is the end of a line


def symbol_cells(codes: Sequence[int], unit: str) -> list[str]:
    """Return symbols as the heads of rows and columns."""
    return [CELLS.get(code) or symbol_label(code, unit) for code in codes]


def render_alignment(
    rows: Sequence[str], columns: Sequence[str], p: Array, color_depth: int, width: int
) -> Iterator[str]:
    """Yield the lines of a heat map of ``p`` (rows, columns), at most ``width`` columns wide.

    With colors of ``color_depth`` bits each row is the text of the columns, colored; with 0 it has
    marks in their place. What is too wide continues below.
    """
    bins = [[SHARE_SCALE.bin(share) for share in row] for row in p.tolist()]
    codes = color_codes(SHARE_SCALE, color_depth) if color_depth else []
    heads = [" " * (max(map(display_width, rows)) - display_width(row)) + row for row in rows]
    margin = display_width(heads[0]) + 1
    for start, stop in split_columns(columns, max(width - margin, 1)):
        yield " " * margin + "".join(columns[start:stop])
        for head, of_row in zip(heads, bins, strict=True):
            cells = zip(columns[start:stop], of_row[start:stop], strict=True)
            if codes:
                yield f"{head} {''.join(codes[k] + cell for cell, k in cells)}\x1b[0m"
            else:
                marks = (SHARE_SCALE.marks[k] * display_width(cell) for cell, k in cells)
                yield f"{head} {''.join(marks)}".rstrip()


def split_columns(columns: Sequence[str], width: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of as many columns as fit in ``width``."""
    start = used = 0
    for i, cell in enumerate(columns):
        used += display_width(cell)
        if used > width and i > start:
            yield start, i
            start, used = i, display_width(cell)
    yield start, len(columns)


def render_alignment_html(rows: Sequence[str], columns: Sequence[str], p: Array) -> str:
    """Return a heat map as HTML, for ``wrap_alignments``."""
    lines = []
    for row, shares in zip(rows, p.tolist(), strict=True):
        cells = zip(columns, shares, strict=True)
        name = SHARE_SCALE.name[0]
        spans = (
            f'<i class={name}{SHARE_SCALE.bin(share)} title="{share:.2f}">{escape(cell)}</i>'
            for cell, share in cells
        )
        lines.append(f"{escape(row)} {''.join(spans)}\n")
    return f'<pre lang="">\n{"".join(lines)}</pre>\n'


def wrap_alignments(caption: str, maps: Sequence[str]) -> str:
    """Return heat maps with their style and legend, as HTML."""
    return (
        f"<div class=highlight>\n<style>\n{highlight_style(SHARE_SCALE)}</style>\n"
        f"<p>{escape_inline(caption)}</p>\n<p>{html_legend(SHARE_SCALE)}</p>\n"
        f"{''.join(maps)}</div>\n"
    )
