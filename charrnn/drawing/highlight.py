"""Text highlighted by a value per character: in a terminal, in plain text, as HTML.

HTML pages load nothing: their styles and scripts are copied from files of the package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import NamedTuple

from charrnn.analysis.surprisal import (
    ALONE,
    Learned,
    ModelLike,
    ScoredText,
    activation,
    score_text,
    to_model_input,
)
from charrnn.arrays import Array
from charrnn.formatting import display_width, escape_control, format_count, standalone_jamo
from charrnn.text.tokens import BASE
from charrnn.text.units import (
    CONJOINING_JAMO,
    END_OF_DOCUMENT,
    END_SPELL,
    FIRST_DIGIT,
    FIRST_SPECIAL,
    SPELL,
    UNKNOWN,
)
from charrnn.text.vocabulary import Vocabulary

Color = tuple[int, int, int]  # sRGB, 0 to 255 each

DEFAULT_SHOWN = 5000  # characters
TAB_COLUMNS = 8
DARK_BACKGROUNDS = (41, 44, 45, 104)  # of the 16 colors; white text is readable on them
VISIBLE = {"\n": "↵", "\t": "→"}
BLANK_NAMES = {" ": "space", "\n": "newline", "\t": "tab"}


class Scale(NamedTuple):
    """A scale of equal bins, each with a mark, and with a color on light and on dark backgrounds.

    ``light`` and ``dark`` are hexadecimal sRGB, evenly spaced in lightness (CIE L*). ``xterm`` are
    colors of a terminal with 256 of them, ``basic`` the backgrounds of one with 16. Bins from
    ``underlined`` on are underlined, because both ends of a diverging scale are equally dark.
    """

    name: str
    low: float
    step: float
    marks: str
    ticks: tuple[str, ...]
    light: str
    dark: str
    xterm: tuple[int, ...]
    basic: tuple[int, ...]
    underlined: int = 99

    def bin(self, value: float) -> int:
        """Return the bin of a value; the first or the last if the value is out of range."""
        return max(0, min(len(self.marks) - 1, math.floor((value - self.low) / self.step)))

    def colors(self, dark: bool = False) -> list[Color]:
        """Return the color of each bin."""
        values = iter(bytes.fromhex(self.dark if dark else self.light))
        return list(zip(values, values, values, strict=True))


SURPRISAL_SCALE = Scale(
    name="bits",
    low=0,
    step=1,
    marks=" .:-=+*#%@",
    ticks=("0", "1", "2", "3", "4", "5", "6", "7", "8", "9+"),
    light="fef6df f1e1a8 d9ce7a 98bf71 58ac77 199294 047499 0a528f 173572 261a50",
    dark="1f283b 1a3962 144c86 0767a0 007da6 009ea4 3fb48a a8c565 dad875 ffeb94",
    xterm=(230, 223, 186, 143, 72, 31, 25, 19, 18, 17),
    basic=(107, 107, 103, 103, 43, 43, 42, 45, 44, 44),
)
ACTIVATION_SCALE = Scale(
    name="activation",
    low=-1,
    step=2 / 7,
    marks="Nn- +pP",
    ticks=("-0.86", "-0.57", "-0.29", "0", "0.29", "0.57", "0.86"),
    light="0059a2 338ecd 85c2e7 f5f3f0 e8ae82 c76d39 923214",
    dark="86d0f3 2d99d6 0d6295 282a2f 8d492a d17a42 f4bd75",
    xterm=(25, 68, 153, 231, 223, 173, 130),
    basic=(44, 104, 106, 107, 103, 43, 41),
    underlined=4,
)


def luminance(color: Color) -> float:
    """Return the relative luminance of a color, 0 to 1 (WCAG 2.2)."""
    r, g, b = (x / 255 / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def use_white_text(background: Color) -> bool:
    """Return whether white has more contrast with a color than black has."""
    return (luminance(background) + 0.05) ** 2 < 1.05 * 0.05


def xterm_rgb(number: int) -> Color:
    """Return one of the 6 x 6 x 6 colors of a 256-color terminal, numbered from 16."""
    r, g, b = ((0, 95, 135, 175, 215, 255)[(number - 16) // n % 6] for n in (36, 6, 1))
    return r, g, b


def visible(c: str) -> str:
    return BLANK_NAMES.get(c) or ("\u25cc" + c if not display_width(c) else escape_control(c))


def symbol_label(code: int, unit: str) -> str:
    """Return a symbol for display: a special one by its name, a byte beyond ASCII escaped."""
    if code >= FIRST_SPECIAL:
        names = {END_OF_DOCUMENT: "end", UNKNOWN: "unknown", SPELL: "spell", END_SPELL: "spelled"}
        names |= {FIRST_DIGIT + digit: f"digit {digit}" for digit in range(BASE)}
        return names.get(code) or standalone_jamo(chr(CONJOINING_JAMO[code - FIRST_SPECIAL]))
    return f"\\x{code:02x}" if unit == "byte" and code > 0x7F else visible(chr(code))


def symbol_labels(v: Vocabulary) -> list[str]:
    """Return the labels of all symbols, in the order of the ids."""
    labels = [symbol_label(code, v.unit) for code in v.codes[: len(v) - len(v.words)].tolist()]
    blanks = {word: format_count(len(word), "blank") for word in v.words if word.isspace()}
    return labels + [blanks.get(word) or escape_control(word) for word in v.words]


def caption(text: str | bytes, length: int, bits: Array) -> str:
    """Return the caption: how much of a text is shown, and the mean of its surprisals ``bits``."""
    noun = "byte" if isinstance(text, bytes) else "character"
    shown = format_count(len(text), noun)
    if len(text) > length:
        shown = f"the first {length:,} of {shown}"
    return f"{shown}, {bits.mean():.3f} bits per {noun}"


# --- in a terminal ---


class Glyph(NamedTuple):  # a character with those that combine with it
    text: str
    columns: int
    bin: int


def render_legend(scale: Scale, color_depth: int) -> str:
    """Return a legend of one line for the colors or marks of ``render_lines``."""
    if not color_depth:
        pairs = zip(scale.marks, scale.ticks, strict=True)
        return f"{scale.name}: " + "  ".join(f"'{mark}' {tick}" for mark, tick in pairs)
    colored = zip(color_codes(scale, color_depth), scale.ticks, strict=True)
    return f"{scale.name} " + "".join(f"{code} {tick} " for code, tick in colored) + "\x1b[0m"


def render_lines(
    characters: Iterable[str], values: Iterable[float], scale: Scale, color_depth: int, width: int
) -> list[str]:
    """Return the lines of a text, with colors of ``color_depth`` 24, 8 or 4 bits.

    With a depth of 0 there are no colors: each line is followed by a line of marks, and lines are
    broken at ``width`` columns. A newline is shown as ↵, a tab as →, another control character as
    its escape. A zero-width character, such as a combining accent, is highlighted together with the
    previous character, by the larger value.
    """
    codes = color_codes(scale, color_depth) if color_depth else []
    lines: list[list[Glyph]] = [[]]
    column = 0
    for c, value in zip(characters, values, strict=True):
        text = VISIBLE.get(c) or escape_control(c)
        columns, bin, line = display_width(text), scale.bin(value), lines[-1]

        # a zero-width character joins the previous glyph, or a blank
        if not columns and line:
            base = line[-1]
            line[-1] = Glyph(base.text + text, base.columns, max(base.bin, bin))
            continue
        if not columns:
            text, columns = " " + text, 1
        elif c == "\t":
            columns = TAB_COLUMNS - column % TAB_COLUMNS
            text = text.ljust(columns)

        # only lines with marks are broken
        if not codes and line and column + columns > width:
            lines.append([])
            column = 0
        lines[-1].append(Glyph(text, columns, bin))
        column += columns
        if c == "\n":
            lines.append([])
            column = 0
    return [_format_line(line, scale, codes) for line in lines if line]


def _format_line(line: Sequence[Glyph], scale: Scale, codes: Sequence[str]) -> str:
    if not codes:
        marks = "".join(scale.marks[glyph.bin] * glyph.columns for glyph in line)
        return "".join(glyph.text for glyph in line) + f"\n{marks.rstrip()}\n"
    out, active = "", -1
    for text, _, bin in line:
        out += text if bin == active else codes[bin] + text
        active = bin
    return out + "\x1b[0m\n"


def color_codes(scale: Scale, color_depth: int) -> list[str]:
    """Return the escape sequences that select the colors of each bin."""
    codes = []
    for k, (r, g, b) in enumerate(scale.colors()):
        gray = 255 if use_white_text((r, g, b)) else 0
        color = f"48;2;{r};{g};{b};38;2;{gray};{gray};{gray}"
        if color_depth == 8:
            white = use_white_text(xterm_rgb(scale.xterm[k]))
            color = f"48;5;{scale.xterm[k]};38;5;{231 if white else 16}"
        elif color_depth == 4:
            color = f"{scale.basic[k]};{97 if scale.basic[k] in DARK_BACKGROUNDS else 30}"
        codes.append(f"\x1b[0;{color}{';4' if k >= scale.underlined else ''}m")
    return codes


# --- as HTML ---


def read_resource(name: str) -> str:
    """Return the text of a file in ``charrnn/drawing``."""
    return files("charrnn.drawing").joinpath(name).read_text(encoding="utf-8")


def escape_inline(text: object) -> str:
    """Return a text as HTML, without characters that break its line or change its direction."""
    return escape(escape_control(str(text)))


def render_page(title: str, body: str, css: str = "") -> str:
    """Return an HTML page. The title is escaped; the body and the CSS are used unchanged."""
    template, css = Template(read_resource("page.html")), read_resource("page.css") + css
    return template.substitute(title=escape_inline(title), css=css, body=body)


def render_html(
    model: ModelLike,
    text: str | bytes,
    length: int = DEFAULT_SHOWN,
    neuron: tuple[int, int] | None = None,
    learned: Learned = ALONE,
) -> str:
    """Return the first ``length`` characters of a text, highlighted by their surprisal, as HTML.

    The result is a ``<div>`` for any page, with its own style and script. With ``neuron``, the
    layer and the index of a hidden unit, the text is highlighted by the activation of that unit. A
    panel shows the surprisal of the character under the pointer, and the five most likely symbols
    at its position, as the network predicts them or what is ``learned``. The content of the
    ``<pre>`` is the text, with control characters escaped.

    Raises TextError if the text is empty, UsageError if the model has no such hidden unit.
    """
    text = to_model_input(model, text)
    scored = score_text(model, text[:length], learned)
    values, scale = scored.bits, SURPRISAL_SCALE
    if neuron:
        values, scale = activation(model, text[:length], *neuron), ACTIVATION_SCALE
    data = _panel_data(model, scored, values if neuron else None)
    return (
        f"<div class=highlight>\n<style>\n{highlight_style(scale)}</style>\n"
        f"<p>{caption(text, length, scored.bits)}</p>\n<p>{html_legend(scale)}</p>\n"
        '<pre tabindex=0 lang="" aria-label="the text; arrow keys move between characters">\n'
        f"{_spans(scored.characters, values.tolist(), scale)}</pre>\n"
        "<output>Hover over or tap a character, or use the arrow keys.</output>\n"
        f"<script type=application/json>{data}</script>\n"
        f"<script>\n{read_resource('highlight.js')}</script>\n</div>\n"
    )


def highlight_style(scale: Scale) -> str:
    """Return the CSS of a highlighted text, in light and dark: of an element of that class."""
    return (
        f"{read_resource('highlight.css')}"
        f"{_color_rules(scale, dark=False)}@media screen and (prefers-color-scheme:dark){{\n"
        f"{_color_rules(scale, dark=True)}}}\n"
    )


def html_legend(scale: Scale) -> str:
    """Return the name of a scale and its colors, as HTML."""
    ticks = (f"<i class={scale.name[0]}{k}>{tick}</i>" for k, tick in enumerate(scale.ticks))
    return f"{scale.name} {''.join(ticks)}"


def _spans(characters: Sequence[str], values: Sequence[float], scale: Scale) -> str:
    spans = []
    for c, value in zip(characters, values, strict=True):
        shown = c if c in VISIBLE else escape_control(c)
        names = f"{scale.name[0]}{scale.bin(value)}"
        if c == "\n" or shown != c or len(c) > 1:  # of several characters: a byte beyond ASCII
            kind = "newline" if c == "\n" else "escaped"
            names = f'"{names} {kind}"'
        spans.append(f"<i class={names}>{escape(shown)}</i>")
    return "".join(spans)


def _panel_data(model: ModelLike, scored: ScoredText, activations: Array | None) -> str:
    """Return the data of the panel as JSON that contains no markup."""
    v = model.vocabulary
    characters = sorted(set(scored.characters))
    data = {
        "bits": scored.bits.round(2).tolist(),  # (n,)
        "activation": None if activations is None else activations.round(2).tolist(),  # (n,)
        "first": scored.first_symbol.tolist(),  # (n,) index of each character's first symbol
        "ids": scored.ids.tolist(),  # (m,)
        "top": scored.p.shape[1],
        "top_ids": scored.top_ids.ravel().tolist(),  # (m * top,)
        "p": scored.p.ravel().round(4).tolist(),  # (m * top,)
        "labels": symbol_labels(v),
        "shown": {c: visible(c) for c in characters if c in BLANK_NAMES or not display_width(c)},
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _color_rules(scale: Scale, dark: bool) -> str:
    rules = ""
    for k, color in enumerate(scale.colors(dark)):
        style = f"background:#{bytes(color).hex()};color:"
        style += "#fff" if use_white_text(color) else "#000"
        style += ";text-decoration:underline" if k >= scale.underlined else ""
        rules += f".highlight .{scale.name[0]}{k}{{{style}}}\n"
    return rules
