"""Highlighting: lightness falls from bin to bin, marks are below their characters, text is kept."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder

import charrnn
from charrnn.analysis import surprisal
from charrnn.drawing import highlight
from charrnn.drawing.highlight import (
    ACTIVATION_SCALE,
    SURPRISAL_SCALE,
    Scale,
    render_html,
    render_lines,
)
from charrnn.model import Model
from charrnn.text import units
from tests.conftest import ROOT
from tests.pages import ESCAPES, HOSTILE, Page

# xterm's palette of 16 colors
BASIC = {41: "cd0000", 42: "00cd00", 43: "cdcd00", 44: "0000ee", 45: "cd00cd"}
BASIC |= {103: "ffff00", 104: "5c5cff", 106: "00ffff", 107: "ffffff"}


def lightness(color: tuple[int, ...]) -> float:
    """CIE L*, from 0 to 100."""
    linear = [x / 255 / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in color]
    y = np.dot(linear, (0.2126, 0.7152, 0.0722))
    return float(116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y)


def palettes(scale: Scale) -> list[list[float]]:
    """Return the lightness of each bin with 24, 8 and 4 bits."""
    basic = [tuple(bytes.fromhex(BASIC[code])) for code in scale.basic]
    colors = (scale.colors(), map(highlight.xterm_rgb, scale.xterm), basic)
    return [[lightness(color) for color in palette] for palette in colors]


def falls(values: list[float], by: float) -> bool:
    return all(a - b >= by for a, b in pairwise(values))


def test_surprisal_falls_evenly_in_lightness() -> None:
    light, xterm, basic = palettes(SURPRISAL_SCALE)
    dark = [lightness(color) for color in SURPRISAL_SCALE.colors(dark=True)]
    for values in (light, dark[::-1]):
        assert falls(values, 5)
        assert not falls(values, 12)
    assert light[0] > 95
    assert max(light[-1], dark[0]) < 20
    assert falls(xterm, 3)
    assert falls(basic, 0)
    assert len(set(basic)) >= 5


def test_activation_is_lightest_in_the_middle_and_underlined_above() -> None:
    light, xterm, basic = palettes(ACTIVATION_SCALE)
    dark = [-lightness(color) for color in ACTIVATION_SCALE.colors(dark=True)]
    for values, by in ((light, 8), (dark, 8), (xterm, 2), (basic, 2)):
        assert falls(values[3:], by)
        assert falls(values[3::-1], by)
    assert ACTIVATION_SCALE.underlined == 4
    out = "".join(render_lines("abc", [-0.9, 0, 0.2], ACTIVATION_SCALE, 24, 80))
    codes = re.findall("\x1b\\[([0-9;]*)m", out)
    assert [code.endswith(";4") for code in codes] == [False, False, True, False]


@pytest.mark.parametrize("scale", [SURPRISAL_SCALE, ACTIVATION_SCALE])
def test_text_has_contrast(scale: Scale) -> None:
    for color in [
        *scale.colors(),
        *scale.colors(dark=True),
        *map(highlight.xterm_rgb, scale.xterm),
    ]:
        text = 1.0 if highlight.use_white_text(color) else 0.0
        low, high = sorted([highlight.luminance(color), text])
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    assert len({*map(len, (scale.marks, scale.ticks, scale.xterm, scale.basic))}) == 1


def test_colors_of_256_and_their_luminance() -> None:
    assert [highlight.xterm_rgb(number) for number in (16, 17, 67, 231)] == [
        *((0, 0, 0), (0, 0, 95), (95, 135, 175), (255, 255, 255))
    ]
    assert highlight.luminance((255, 255, 255)) == pytest.approx(1)
    gray = highlight.luminance((119, 119, 119))  # #777 on white has a contrast of 4.48
    assert gray == pytest.approx(1.05 / 4.48 - 0.05, abs=1e-3)


def test_bins() -> None:
    surprisals = (-1, 0, 0.99, 1, 8.99, 9, 9.5, 1e300)
    assert [SURPRISAL_SCALE.bin(x) for x in surprisals] == [0, 0, 0, 1, 8, 9, 9, 9]
    activations = (-1, -0.72, -0.71, -0.14, 0.14, 0.15, 1, 2)
    assert [ACTIVATION_SCALE.bin(x) for x in activations] == [0, 0, 1, 3, 3, 4, 6, 6]


# --- in a terminal ---


def test_marks_are_below_their_characters() -> None:
    text = "ab\tc\n\n한국 e\u0301👩\x1b[1m\u202ez\n\u0301x"
    values = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert "".join(render_lines(text, values, SURPRISAL_SCALE, 0, 80)).splitlines() == [
        "ab→     c↵",
        " .::::::-=",
        "↵",
        "+",
        "한국 e\u0301👩\\x1b[1m\\u202ez↵",
        "**##%@--====+*#%%%%%%@",
        " \u0301x",
        ".:",
    ]


def test_accents_join_and_lines_break_at_the_width() -> None:
    accents = render_lines("e\u0301" * 2, [3.0, 8.0, 8.0, 3.0], SURPRISAL_SCALE, 0, 9)
    assert list(accents) == ["e\u0301e\u0301\n%%\n"]  # by the larger value
    lines = list(render_lines("한" * 5 + "abc\x00d\n", [0.0] * 11, SURPRISAL_SCALE, 0, 5))
    assert [line.split("\n")[0] for line in lines] == ["한한", "한한", "한abc", "\\x00d", "↵"]


@pytest.mark.parametrize(
    ("color_depth", "code"), [(24, "48;2;254;246;223"), (8, "48;5;230"), (4, "107")]
)
def test_colors_change_with_the_bin_and_end_with_the_line(color_depth: int, code: str) -> None:
    out = "".join(render_lines("ab\nc", [0, 0.5, 9, 0], SURPRISAL_SCALE, color_depth, 1))
    assert re.sub("\x1b\\[[0-9;]*m", "", out) == "ab↵\nc\n"
    codes = re.findall("\x1b\\[([0-9;]*)m", out)
    assert len(codes) == 5  # a and b share one
    assert codes[0].startswith(f"0;{code};")
    assert codes[0] == codes[3]
    assert codes[2] == codes[4] == "0"
    legend = highlight.render_legend(SURPRISAL_SCALE, color_depth)
    assert f"\x1b[{codes[0]}m 0 \x1b" in legend
    assert f"\x1b[{codes[1]}m 9+ \x1b" in legend
    assert highlight.render_legend(ACTIVATION_SCALE, 0).startswith(
        "activation: 'N' -0.86  'n' -0.57"
    )


# --- as HTML ---

PACKAGE = Path(charrnn.__file__).parent
RESOURCES = [path for path in PACKAGE.rglob("*") if path.suffix in (".html", ".css", ".js")]


def test_page_has_language_policy_and_escaped_title() -> None:
    page = Page(highlight.render_page(f"$css {HOSTILE}", "<p>$body</p>", "p { margin: 0; }"))
    title = f"$css {HOSTILE.translate(ESCAPES)}"
    assert page.with_tag("html", lang="en")
    assert page.with_tag("meta", charset="utf-8")
    (policy,) = page.with_tag("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"] == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    assert page.texts["title"] == [f"{title} - charrnn"]
    assert page.texts["h1"] == [title]
    assert page.texts["p"] == ["$body"]
    assert page.texts["style"][0].endswith("p { margin: 0; }")


def test_wheel_contains_the_resources() -> None:
    assert len(RESOURCES) == 18
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    for path in RESOURCES:
        assert path.relative_to(ROOT).as_posix() in included
        # they are inserted verbatim, load nothing and cannot end their element
        forbidden = r"https?:|url\(|@import" + "|</" * (path.suffix != ".html")
        assert not re.search(forbidden, path.read_text(encoding="utf-8"))


TRAIN: dict[str, Any] = {"hidden_size": 5, "max_steps": 3, "dtype": "float64", "seed": 2}


def train(text: str | bytes, **options: Any) -> Model:
    model = charrnn.train(text, **TRAIN, **options)
    model.network.params.vector *= 3  # so that it is sure of some characters
    return model


def test_html_has_every_character_in_order(text: str) -> None:
    shown = HOSTILE + "\t\u200d\r\n\n\ufeff\u0085한 é👩\U000e0001 e\u0301\n"
    model = train(text + shown)
    html = render_html(model, shown)
    page, scored = Page(html), surprisal.score_text(model, shown)
    assert [found for found, _ in page.characters] == [
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in shown
    ]
    for c, bits, (found, names) in zip(shown, scored.bits, page.characters, strict=True):
        kind = [" newline"] if c == "\n" else [" escaped"] if found != c else [""]
        assert names == f"b{min(int(bits), 9)}{kind[0]}"
    assert page.texts["pre"] == ["\n" + "".join(found for found, _ in page.characters)]
    assert not any(c in html for c in "\0\x1b\u202e\u2066\u200d\r\u0085\ufeff")

    data = json.loads(page.texts["script"][0])
    assert "<" not in page.texts["script"][0]
    np.testing.assert_allclose(data["bits"], scored.bits, atol=0.006)
    np.testing.assert_allclose(data["p"], scored.p.ravel(), atol=6e-5)
    assert data["top_ids"] == scored.top_ids.ravel().tolist()
    assert (data["first"], data["ids"]) == (scored.first_symbol.tolist(), scored.ids.tolist())
    assert len(data["labels"]) == len(model.vocabulary)
    assert all(label.isprintable() for label in data["labels"])
    assert data["activation"] is None


def test_html_is_highlighted_by_a_neuron_and_cut(text: str) -> None:
    model = train(text)
    page = Page(render_html(model, text, 100, (0, 2)))
    values = surprisal.activation(model, text[:100], 0, 2)
    names = [f"a{math.floor((x + 1) * 3.5)}" for x in values]
    assert [found.split()[0] for _, found in page.characters] == names
    data = json.loads(page.texts["script"][0])
    np.testing.assert_allclose(data["activation"], values, atol=0.006)
    assert page.texts["p"][0].startswith(f"the first 100 of {len(text):,} characters, ")
    page = Page(render_html(model, text, len(text)))
    assert page.texts["p"][0].startswith(f"{len(text):,} characters, ")


def test_highlighted_bytes_are_escaped() -> None:
    model = train("é한\n".encode() * 30, unit="byte")
    page = Page(render_html(model, "é\\\n"))
    assert [found for found, _ in page.characters] == [r"\xc3", r"\xa9", "\\", "\n"]
    assert ["escaped" in names for _, names in page.characters] == [True, True, False, False]
    assert page.texts["p"][0].startswith("4 bytes, ")


def test_symbol_labels() -> None:
    jamo = "".join(highlight.symbol_label(units.FIRST_SPECIAL + k, "jamo") for k in range(67))
    assert jamo[:19] == "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
    assert jamo[19:40] == "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
    assert jamo[40:] == "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
    special = (units.END_OF_DOCUMENT, units.UNKNOWN, 0xE9, 0x20, 0x301)
    assert [highlight.symbol_label(code, "char") for code in special] == [
        *("end", "unknown", "é", "space", "◌\u0301")
    ]
    assert [highlight.symbol_label(code, "byte") for code in (0x41, 0xE9)] == ["A", r"\xe9"]
