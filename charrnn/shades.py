"""Numbers as shades behind the characters of a text: in a terminal, in plain text, as HTML."""

from __future__ import annotations

import html
import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from charrnn.errors import one_line

Colour = tuple[int, int, int]  # sRGB, 0 to 255 each

DARK = (41, 44, 45, 104)  # of the backgrounds of 16 colours
TAB = 8
SIGNS = {"\n": "↵", "\t": "→"}
NAMES = {" ": "space", "\n": "newline", "\t": "tab"}


class Scale(NamedTuple):
    """A scale of equal steps, each with a mark, a colour for light and one for dark surroundings.

    ``light`` and ``dark`` are colours some way along the scale, even in lightness (CIE L*), between which the others
    are interpolated; ``cube`` are those of a terminal of 256 colours, ``basic`` the backgrounds of one of 16. Steps
    from ``underlined`` on are underlined, where two ends of the scale are equally dark.
    """

    name: str
    low: float
    step: float
    marks: str
    ticks: tuple[str, ...]
    light: tuple[str, ...]
    dark: tuple[str, ...]
    cube: tuple[int, ...]
    basic: tuple[int, ...]
    underlined: int = 99

    def level(self, value: float) -> int:
        """Return the step that a value lies in, the first or the last if it is beyond."""
        return max(0, min(len(self.marks) - 1, math.floor((value - self.low) / self.step)))

    def colours(self, dark: bool = False) -> list[Colour]:
        """Return the colour of each step."""
        anchors = [bytes.fromhex(colour) for colour in (self.dark if dark else self.light)]
        colours = []
        for k in range(len(self.marks)):
            place = k * (len(anchors) - 1) / (len(self.marks) - 1)
            i = min(int(place), len(anchors) - 2)
            r, g, b = (round(x + (y - x) * (place - i)) for x, y in zip(anchors[i], anchors[i + 1], strict=True))
            colours.append((r, g, b))
        return colours


SURPRISE = Scale(
    "bits",
    0,
    1,
    " .:-=+*#%@",
    ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9+"),
    ("fef6df", "e6d17c", "71b66c", "00889f", "0b4b8d", "261a50"),
    ("1f283b", "164781", "0077af", "00a9a1", "bdc95d", "ffeb94"),
    (230, 223, 186, 143, 72, 31, 25, 19, 18, 17),
    (107, 107, 103, 103, 43, 43, 42, 45, 44, 44),
)
UNIT = Scale(
    "activation",
    -1,
    2 / 7,
    "Nn- +pP",
    ("-0.86", "-0.57", "-0.29", "0", "0.29", "0.57", "0.86"),
    ("0059a2", "4da9e2", "f5f3f0", "e28b4b", "923214"),
    ("86d0f3", "007ec8", "282a2f", "c05928", "f4bd75"),
    (25, 68, 153, 231, 223, 173, 130),
    (44, 104, 106, 107, 103, 43, 41),
    underlined=4,
)


def luminance(colour: Colour) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2.2)."""
    r, g, b = (x / 255 / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def white_ink(colour: Colour) -> bool:
    """Tell whether white contrasts more with a colour than black does."""
    return (luminance(colour) + 0.05) ** 2 < 1.05 * 0.05


def of_cube(number: int) -> Colour:
    """Return one of the 6 x 6 x 6 colours of a terminal of 256, whose numbers begin at 16."""
    r, g, b = ((0, 95, 135, 175, 215, 255)[(number - 16) // n % 6] for n in (36, 6, 1))
    return r, g, b


def cells(text: str) -> int:
    """Return how wide a text is in a terminal."""
    return sum(
        0
        if unicodedata.category(c) in ("Mn", "Me") or "\u1160" <= c <= "\u11ff"  # vowels and tails join a lead
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def written(c: str) -> str:
    """Return how a character is written where it stands alone."""
    return NAMES.get(c) or ("\u25cc" + c if not cells(c) else one_line(c))


def legend(scale: Scale, bits: int) -> str:
    """Return what the colours or marks of ``terminal`` mean, in a line."""
    if not bits:
        return f"{scale.name}: " + "  ".join(f"'{m}' {t}" for m, t in zip(scale.marks, scale.ticks, strict=True))
    codes = _codes(scale, bits)
    return f"{scale.name} " + "".join(f"{code} {t} " for code, t in zip(codes, scale.ticks, strict=True)) + "\x1b[0m"


def terminal(characters: Iterable[str], values: Iterable[float], scale: Scale, bits: int, width: int) -> Iterator[str]:
    """Yield a text line by line, with colours of 24, 8 or 4 bits, or, with none, with a line of marks under each.

    Only with marks are lines broken, at ``width``. A newline shows as ↵, a tab as →, other control characters as
    their escapes. A character that stands in no cell of its own, such as a combining accent, is shaded with the one
    before it, as the larger of both.
    """
    codes = _codes(scale, bits) if bits else []
    line: list[tuple[str, int, int]] = []  # what stands in some cells, how many, its step
    column = 0

    def ended() -> str:
        if not bits:
            marks = "".join(scale.marks[level] * n for _, n, level in line).rstrip()
            return "".join(text for text, _, _ in line) + "\n" + marks + "\n"
        out, now = "", -1
        for text, _, level in line:
            out += text if level == now else codes[level] + text
            now = level
        return out + "\x1b[0m\n"

    for c, value in zip(characters, values, strict=True):
        level = scale.level(value)
        text = SIGNS.get(c) or one_line(c)
        n = cells(text)
        if not n and line:
            before, m, under = line[-1]
            line[-1] = before + text, m, max(level, under)
            continue
        if c == "\t":
            n = TAB - column % TAB
        if not bits and line and column + n > width:
            yield ended()
            line, column = [], 0
        line.append((" " + text if not n else text.ljust(n) if c == "\t" else text, n or 1, level))
        column += n or 1
        if c == "\n":
            yield ended()
            line, column = [], 0
    if line:
        yield ended()


def _codes(scale: Scale, bits: int) -> list[str]:
    """Return what selects the colours of each step in a terminal of so many bits."""
    codes = []
    for k, colour in enumerate(scale.colours()):
        line = ";4" if k >= scale.underlined else ""
        if bits == 4:
            basic = scale.basic[k]
            codes.append(f"\x1b[0;{basic};{97 if basic in DARK else 30}{line}m")
        elif bits == 8:
            number = scale.cube[k]
            codes.append(f"\x1b[0;48;5;{number};38;5;{231 if white_ink(of_cube(number)) else 16}{line}m")
        else:
            r, g, b = colour
            ink = 255 if white_ink(colour) else 0
            codes.append(f"\x1b[0;48;2;{r};{g};{b};38;2;{ink};{ink};{ink}{line}m")
    return codes


CSS = """\
.shades{--panel:#fff;--rule:#bbb;--soft:#555;--bar:#9ab;font:16px/1.5 system-ui,sans-serif}
.shades pre{margin:1em 0;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;
 font:15px/1.7 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Noto Sans Mono CJK KR",monospace}
.shades pre:focus-visible{outline:2px solid;outline-offset:4px}
.shades i{font-style:normal;padding:.15em 0;-webkit-print-color-adjust:exact;print-color-adjust:exact;
 -webkit-box-decoration-break:clone;box-decoration-break:clone;scroll-margin:3em 0 12em}
.shades pre .n::before{content:"↵";opacity:.6}
.shades pre .e{font-size:75%;font-weight:bold}
.shades pre .at{outline:2px solid;outline-offset:1px;position:relative;z-index:1}
.shades p{margin:.5em 0}
.shades p i{display:inline-block;min-width:1.2em;padding:.1em .3em;text-align:center}
.shades output{display:block;position:sticky;bottom:0;z-index:2;min-height:4.4em;padding:.4em .7em;
 background:var(--panel);border:1px solid var(--rule);border-radius:6px;font-variant-numeric:tabular-nums}
.shades output b{font:bold 1.1em ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.shades ol{display:grid;grid-template-columns:repeat(5,1fr);gap:.2em .7em;margin:.3em 0 0;padding:0;list-style:none;
 max-width:40em}
.shades li{font-size:.9em;white-space:nowrap}
.shades li.it{text-decoration:underline}
.shades meter{display:block;width:100%;height:.5em;background:none;border:1px solid var(--rule);border-radius:2px}
.shades meter::-webkit-meter-bar{background:none;border:0;height:.5em}
.shades meter::-webkit-meter-optimum-value{background:var(--bar)}
.shades meter::-moz-meter-bar{background:var(--bar)}
@media (max-width:30em){.shades ol{gap:.2em .4em}.shades li{font-size:.75em}}
@media screen and (prefers-color-scheme:dark){.shades{--panel:#181a1f;--rule:#555;--soft:#aaa;--bar:#678}}
@media print{.shades output{display:none}}
"""

# The panel is filled with textContent alone: nothing of the text is ever read as HTML.
JS = """\
(() => {
  const root = document.currentScript.parentElement, text = root.querySelector("pre");
  const panel = root.querySelector("output"), d = JSON.parse(root.querySelector("script").textContent);
  const all = Array.from(text.children), make = (tag, inside, to) => {
    const e = document.createElement(tag); e.textContent = inside; to.append(e); return e;
  };
  const percent = p => p >= .1 ? (100 * p).toFixed(0) + "%" : p >= .0001 ? (100 * p).toPrecision(2) + "%" : "<0.01%";
  let at = -1;
  const show = (i, scroll) => {
    if (i < 0 || i >= all.length) return;
    if (at >= 0) all[at].classList.remove("at");
    at = i;
    all[i].classList.add("at");
    if (scroll) all[i].scrollIntoView({block: "nearest"});
    panel.replaceChildren();
    make("b", d.shown[all[i].textContent] || all[i].textContent, panel);
    let told = `  ${d.bits[i].toFixed(2)} bits, probability ${percent(2 ** -d.bits[i])}`;
    if (d.unit) told += `, activation ${d.unit[i].toFixed(2)}`;
    panel.append(told);
    const end = i + 1 < all.length ? d.first[i + 1] : d.p.length / d.top;
    for (let s = d.first[i]; s < end; s++) {
      const list = make("ol", "", panel);
      for (let k = s * d.top; k < (s + 1) * d.top; k++) {
        const one = make("li", `${d.labels[d.likeliest[k]]} ${percent(d.p[k])}`, list);
        one.className = d.likeliest[k] === d.ids[s] ? "it" : "";
        make("meter", "", one).value = d.p[k];
      }
    }
  };
  const under = e => show(all.indexOf(e.target));
  text.addEventListener("mouseover", under);
  text.addEventListener("click", under);
  text.addEventListener("focus", () => at < 0 && text.matches(":focus-visible") && show(0, true));
  text.addEventListener("keydown", e => {
    const beside = {ArrowLeft: -1, ArrowRight: 1}[e.key], line = {ArrowUp: -1, ArrowDown: 1}[e.key];
    if (!beside && !line || e.ctrlKey || e.altKey || e.metaKey) return;
    e.preventDefault();
    if (beside || at < 0) return show(at + (beside || 1), true);
    const from = all[at].getBoundingClientRect();  // the nearest that begins on the next line
    for (let i = at, best = -1, far = Infinity, y = null; ; i += line) {
      const r = all[i] && all[i].getBoundingClientRect();
      const off = r && (r.top - from.top) * line > 4;
      if (!r || off && y !== null && Math.abs(r.top - y) > 4) return show(best, true);
      if (off && Math.abs(r.left - from.left) < far) [best, far, y] = [i, Math.abs(r.left - from.left), r.top];
    }
  });
})();
"""


def fragment(characters: Sequence[str], values: Sequence[float], scale: Scale, data: dict[str, Any], note: str) -> str:
    """Return a text with its shades as HTML, for a page of any kind: a <div> with its own style and script.

    ``data`` is what a panel tells of the character under the pointer, the finger, or the arrow keys: ``bits`` (n,);
    ``unit`` (n,) or None; ``first`` (n,), where its symbols begin among ``ids`` (m,); for each symbol ``likeliest``
    and ``p`` (m * top) at its place; ``labels``, how symbols are written. ``note`` stands above the text.
    The content of the <pre> is the text itself, but for control characters, which show as their escapes.
    """
    prefix = scale.name[0]
    rules = [CSS, _rules(scale, prefix, dark=False)]
    rules += ["@media screen and (prefers-color-scheme:dark){\n", _rules(scale, prefix, dark=True), "}\n"]
    spans = []
    for c, value in zip(characters, values, strict=True):
        shown = c if c in SIGNS else one_line(c)
        kind = f"{prefix}{scale.level(value)}"
        kind = f"{kind} n" if c == "\n" else f"{kind} e" if shown != c or len(c) > 1 else kind
        quote = '"' * (" " in kind)
        spans.append(f"<i class={quote}{kind}{quote}>{html.escape(shown)}</i>")
    names = {c: written(c) for c in sorted({*characters}) if c in NAMES or not cells(c)}
    inside = json.dumps({**data, "shown": names}, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    steps = "".join(f"<i class={prefix}{k}>{tick}</i>" for k, tick in enumerate(scale.ticks))
    return (
        f"<div class=shades>\n<style>\n{''.join(rules)}</style>\n"
        f"<p>{html.escape(note)}</p>\n<p>{scale.name} {steps}</p>\n"
        # a newline right after <pre> would be dropped, so one stands there to be
        f'<pre tabindex=0 aria-label="the text: arrow keys go from character to character">\n{"".join(spans)}</pre>\n'
        f"<output>Point at a character, tap it, or move with the arrow keys.</output>\n"
        f"<script type=application/json>{inside}</script>\n<script>\n{JS}</script>\n</div>\n"
    )


def page(body: str, title: str) -> str:
    """Return a whole page, which needs nothing else."""
    return (
        '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(one_line(title))}</title>\n"
        "<style>body{max-width:60em;margin:0 auto;padding:1em}h1{font:bold 1.3em system-ui,sans-serif}</style>\n"
        f"</head>\n<body>\n<h1>{html.escape(one_line(title))}</h1>\n{body}</body>\n</html>\n"
    )


def _rules(scale: Scale, prefix: str, dark: bool) -> str:
    rules = ""
    for k, colour in enumerate(scale.colours(dark)):
        line = ";text-decoration:underline" if k >= scale.underlined else ""
        ink = "#fff" if white_ink(colour) else "#000"
        rules += f".shades .{prefix}{k}{{background:#{bytes(colour).hex()};color:{ink}{line}}}\n"
    return rules
