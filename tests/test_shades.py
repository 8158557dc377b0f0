"""Shades: lightness falls from step to step, marks stand under their characters, text stays what it was."""

import re
import unicodedata
from itertools import pairwise

import pytest

from charrnn import shades
from charrnn.shades import SURPRISE, UNIT, Scale

# the usual palette of 16 colours: xterm's
BASIC = {40: "000000", 41: "cd0000", 42: "00cd00", 43: "cdcd00", 44: "0000ee", 45: "cd00cd", 46: "00cdcd", 47: "e5e5e5"}
BASIC |= {103: "ffff00", 104: "5c5cff", 106: "00ffff", 107: "ffffff"}


def lightness(colour: tuple[int, ...]) -> float:
    """CIE L*, from 0 to 100."""
    linear = [(x / 255 / 12.92 if x / 255 <= 0.04045 else ((x / 255 + 0.055) / 1.055) ** 2.4) for x in colour]
    y = sum(a * b for a, b in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def falls(values: list[float], by: float) -> bool:
    return all(a - b >= by for a, b in pairwise(values))


def test_surprise_falls_in_lightness_evenly() -> None:
    light, dark = ([lightness(c) for c in SURPRISE.colours(dark)] for dark in (False, True))
    for values in (light, dark[::-1]):
        assert falls(values, 5)
        assert not falls(values, 12)  # no step is much larger than another
    assert light[0] > 95
    assert light[-1] < 20
    assert dark[0] < 20
    assert falls([lightness(shades.of_cube(number)) for number in SURPRISE.cube], 3)
    basic = [lightness(tuple(bytes.fromhex(BASIC[code]))) for code in SURPRISE.basic]
    assert falls(basic, 0)
    assert len(set(basic)) >= 5


def test_activation_is_lightest_in_the_middle() -> None:
    for dark in (False, True):
        values = [(-1 if dark else 1) * lightness(c) for c in UNIT.colours(dark)]
        assert falls(values[3:], 8)
        assert falls(values[3::-1], 8)
    for values in (
        [lightness(shades.of_cube(number)) for number in UNIT.cube],
        [lightness(tuple(bytes.fromhex(BASIC[code]))) for code in UNIT.basic],
    ):
        assert falls(values[3:], 2)
        assert falls(values[3::-1], 2)
    assert UNIT.underlined == 4  # the first above the middle


@pytest.mark.parametrize("scale", [SURPRISE, UNIT])
def test_text_stands_out(scale: Scale) -> None:
    for dark in (False, True):
        for colour in [*scale.colours(dark), *map(shades.of_cube, scale.cube)]:
            ink = 1.0 if shades.white_ink(colour) else 0.0
            low, high = sorted([shades.luminance(colour), ink])
            assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    assert len(scale.marks) == len(scale.ticks) == len(scale.cube) == len(scale.basic) == len(set(scale.marks))


def test_colours_of_256() -> None:
    assert [shades.of_cube(number) for number in (16, 17, 67, 196, 231)] == [
        (0, 0, 0),
        (0, 0, 95),
        (95, 135, 175),
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_luminance_is_that_of_wcag() -> None:
    assert shades.luminance((255, 255, 255)) == pytest.approx(1)
    assert shades.luminance((0, 0, 0)) == 0
    assert shades.luminance((119, 119, 119)) == pytest.approx(1.05 / 4.48 - 0.05, abs=1e-3)  # #777 on white is 4.48


def test_levels() -> None:
    assert [SURPRISE.level(x) for x in (-1, 0, 0.99, 1, 8.99, 9, 9.5, 1e300)] == [0, 0, 0, 1, 8, 9, 9, 9]
    assert [UNIT.level(x) for x in (-1, -0.72, -0.71, -0.14, 0.14, 0.15, 1, 2)] == [0, 0, 1, 3, 3, 4, 6, 6]


TEXT = "ab\tc\n\n한국 e\u0301👩\x1b[1m\u202ez\n\u0301x"
VALUES = [float(k % 11) for k in range(len(TEXT))]


def columns(text: str) -> list[str]:
    """Return what stands in each column: a wide character in two."""
    out: list[str] = []
    for c in text:
        if unicodedata.combining(c):
            out[-1] += c
        else:
            out += [c] * (2 if unicodedata.east_asian_width(c) in "WF" else 1)
    return out


def test_marks_stand_under_their_characters() -> None:
    lines = "".join(shades.terminal(TEXT, VALUES, SURPRISE, 0, 80)).split("\n")
    assert lines.pop() == ""
    texts, marks = lines[::2], lines[1::2]
    assert texts == ["ab→     c↵", "↵", r"한국 e" + "\u0301👩" + r"\x1b[1m\u202ez↵", " \u0301x"]
    at = 0
    for text, mark in zip(texts, marks, strict=True):
        cells = columns(text)
        mark = mark.ljust(len(cells))
        assert len(mark) == len(cells)
        c = 0
        while c < len(cells):
            width = 1
            if TEXT[at] == "\t":
                width = 6
            elif not TEXT[at].isprintable() and TEXT[at] != "\n":
                width = len(TEXT[at].encode("unicode_escape"))
            elif cells[c][0] == TEXT[at] and unicodedata.east_asian_width(TEXT[at]) == "W":
                width = 2
            value = VALUES[at]
            at += 1
            while at < len(TEXT) and unicodedata.combining(TEXT[at]) and TEXT[at - 1] != "\n":
                value = max(value, VALUES[at])
                at += 1
            assert set(mark[c : c + width]) == {SURPRISE.marks[SURPRISE.level(value)]}, (at, c)
            c += width
    assert at == len(TEXT)


def test_what_shares_a_cell_takes_the_larger_shade() -> None:
    assert list(shades.terminal("e\u0301" * 2, [3.0, 8.0, 8.0, 3.0], SURPRISE, 0, 9)) == ["e\u0301e\u0301\n%%\n"]
    assert shades.cells("\u1112\u1161\u11ab") == shades.cells("한") == 2
    assert shades.cells("a\u0301\u20dd") == 1


def test_lines_break_at_the_width() -> None:
    lines = list(shades.terminal("한" * 5 + "abc\x00d\n", [0.0] * 11, SURPRISE, 0, 5))
    assert [line.split("\n")[0] for line in lines] == ["한한", "한한", "한abc", "\\x00d", "↵"]


@pytest.mark.parametrize(("bits", "code"), [(24, "48;2;254;246;223"), (8, "48;5;230"), (4, "107")])
def test_colours(bits: int, code: str) -> None:
    out = "".join(shades.terminal("ab\nc", [0, 0.5, 9, 0], SURPRISE, bits, 1))
    assert re.sub("\x1b\\[[0-9;]*m", "", out) == "ab↵\nc\n"
    codes = re.findall("\x1b\\[([0-9;]*)m", out)
    assert len(codes) == 5  # a and b share one; each line ends plain
    assert codes[0].startswith(f"0;{code};")
    assert codes[0] == codes[3]
    assert codes[2] == codes[4] == "0"
    key = shades.legend(SURPRISE, bits)
    assert codes[0] in key
    assert codes[1] in key
    assert re.sub("\x1b\\[[0-9;]*m", "", key).split() == ["bits", *SURPRISE.ticks]


def test_signs_are_seen_without_colours() -> None:
    out = "".join(shades.terminal("abc", [-0.9, 0, 0.2], UNIT, 24, 80))
    assert [";4" in code[-2:] for code in re.findall("\x1b\\[([0-9;]*)m", out)] == [False, False, True, False]
    assert shades.legend(UNIT, 0).startswith("activation: 'N' -0.86  'n' -0.57")
