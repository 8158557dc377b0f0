"""How much each character of a caption takes from each region of a picture, as small maps.

A map (rows, columns) is bright where a character looks: relative to its largest share.
"""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from charrnn.arrays import Array
from charrnn.drawing.highlight import escape_inline, read_resource, render_page
from charrnn.errors import TextError
from charrnn.formatting import display_width, escape_control

MARKS = "·░▒▓█"  # of a terminal without colors, from dark to bright
GRAYS = [(f"38;5;{n}", f"48;5;{n}") for n in range(235, 256)]  # of one with 256: text, background
FEW_GRAYS = [("90", "100"), ("37", "47"), ("97", "107")]
GAP = 2  # columns between maps
SHADE, HAZE = 0.8, 96  # how much of a picture is hidden where it takes nothing, by which gray
PNG = b"\x89PNG\r\n\x1a\n"
STARTS = {"png": PNG, "jpeg": b"\xff\xd8\xff", "gif": b"GIF8"}  # of files
EXPLANATION = (
    "Bright regions are those that the model looks at while it writes a character, relative to the "
    "largest share of that character. Hover over or tap a character, or use the arrow keys."
)


# --- in a terminal ---


def render_maps(labels: Sequence[str], p: Array, color_depth: int, width: int) -> Iterator[str]:
    """Yield the lines of maps ``p`` (m, rows, columns), beside each other in ``width`` columns.

    Above each are its label and its largest share. With colors of ``color_depth`` bits a line shows
    two rows of a map; with 0 it has marks, two for each region if there is space.
    """
    heads = [f"{label} {share}" for label, share in zip(labels, map(largest, p), strict=True)]
    times = 1 if color_depth or 2 * p.shape[2] > width else 2
    block = max(times * p.shape[2], *map(display_width, heads))
    each = max(1, (width + GAP) // (block + GAP))
    for start in range(0, len(p), each):
        if start:
            yield ""
        group = slice(start, start + each)
        yield (" " * GAP).join(h + " " * (block - display_width(h)) for h in heads[group]).rstrip()
        maps = [_map_lines(of_symbol, color_depth, times) for of_symbol in p[group]]
        space = " " * (block - times * p.shape[2] + GAP)
        yield from (space.join(lines) for lines in zip(*maps, strict=True))


def render_legend(color_depth: int) -> str:
    """Return a legend of one line for the maps."""
    name = "share, relative to the largest of the character:"
    if color_depth:
        blocks = "".join(f"\x1b[{text}m█" for text, _ in _grays(color_depth))
        return f"{name} 0 {blocks}\x1b[0m 1"
    return f"{name} " + "  ".join(f"'{mark}' {k / len(MARKS):g}" for k, mark in enumerate(MARKS))


def largest(p: Array) -> str:
    """Return the largest share of a map."""
    return f"{p.max():.2f}".removeprefix("0")


def _grays(color_depth: int) -> list[tuple[str, str]]:
    return GRAYS if color_depth >= 8 else FEW_GRAYS


def _map_lines(p: Array, color_depth: int, times: int) -> list[str]:
    grays = _grays(color_depth)
    n = len(grays) if color_depth else len(MARKS)
    bins = np.minimum((n * (p / p.max())).astype(int), n - 1).tolist()
    if not color_depth:
        return ["".join(MARKS[k] * times for k in row) for row in bins]
    lines = []
    for i in range(0, len(bins), 2):
        upper = (grays[k][0] for k in bins[i])
        lower = [grays[k][1] for row in bins[i + 1 : i + 2] for k in row] or ["49"] * len(bins[i])
        runs = itertools.groupby(zip(upper, lower, strict=True))
        codes = (f"\x1b[{text};{below}m{'▀' * len([*run])}" for (text, below), run in runs)
        lines.append(f"{''.join(codes)}\x1b[0m")
    return lines


# --- as HTML ---


def picture_uri(data: bytes, name: str) -> str:
    """Return a picture as a data: URI. Raises TextError if its first bytes are of no known kind.

    SVG is refused: it may contain a script.
    """
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    kinds = [kind for kind, start in STARTS.items() if data.startswith(start)]
    if not (kinds or is_webp):
        raise TextError(escape_control(f"{name}: not a PNG, JPEG, GIF or WebP picture"))
    return _data_uri(kinds[0] if kinds else "webp", data)


def render_pictures(title: str, maps: Sequence[str], shape: tuple[int, int], below: str) -> str:
    """Return the page of what ``render_picture`` gives.

    ``shape`` are the rows and columns of the maps, ``below`` the URI of a picture or empty.
    """
    rows, columns = shape
    of_page = f"--below: {f'url({below})' if below else 'none'}; --ratio: {columns} / {rows};"
    css = (
        f"{read_resource('highlight.css')}{read_resource('picture.css')}.picture {{ {of_page} }}\n"
    )
    return render_page(title, f"<p>{EXPLANATION}</p>\n{''.join(maps)}", css)


def render_picture(text: str, characters: Sequence[str], labels: Sequence[str], p: Array) -> str:
    """Return maps ``p`` (m, rows, columns) of the characters of a caption, as HTML.

    ``text`` is what the model has read before it.
    """
    masks = [f"--mask:url({mask_uri(of_symbol)})" for of_symbol in p]
    spans = "".join(f"<i>{escape(c)}</i>" for c in characters)
    figures = ""
    for i, (label, mask, of_symbol) in enumerate(zip(labels, masks, p, strict=True), 1):
        title = (
            f"{label}, {i} of {len(p)}: share {largest(of_symbol)} of region {of_symbol.argmax()}"
        )
        figures += (
            f'<figure title="{escape(title)}"><div class=map style="{mask}"></div>'
            f"<figcaption>{escape(label)}</figcaption></figure>\n"
        )
    source = f"<p>{escape_inline(text)}</p>\n" if text else ""
    return (
        f'<div class="highlight picture">\n<div class="map view" style="{masks[0]}"></div>\n'
        f'{source}<pre tabindex=0 lang="" aria-label="the caption; arrow keys move">\n'
        f"{spans}</pre>\n<output></output>\n<div class=steps>\n{figures}</div>\n"
        f"<script>\n{read_resource('picture.js')}</script>\n</div>\n"
    )


def mask_uri(p: Array) -> str:
    """Return a PNG with a pixel for each region, gray, and transparent where the share is large.

    See the PNG Specification, Third Edition: color type 4, gray and alpha.
    """
    alpha = np.rint(255 * SHADE * (1 - p / p.max())).astype(np.uint8)
    rows = np.stack([np.full_like(alpha, HAZE), alpha], axis=2).reshape(len(p), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # each without a filter
    header = struct.pack(">IIBBBBB", p.shape[1], p.shape[0], 8, 4, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return _data_uri("png", PNG + b"".join(_chunk(*chunk) for chunk in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    size, crc = len(data), zlib.crc32(kind + data)
    return struct.pack(">I", size) + kind + data + struct.pack(">I", crc)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
