"""Text to symbols and back. A symbol is a number: a character's code point, a byte, or one of the model's own."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]

# Symbols of the model's own lie beyond Unicode, so that no text can hold them: the letters of Hangul, which are not
# the characters from U+1100 that a text may hold itself; the end of a document; whatever is too rare to be known.
OWN = 0x110000
LEADS, VOWELS, TAILS = 19, 21, 27  # the Unicode Standard, section 3.12, whose formulas these are
VOWEL, TAIL = OWN + LEADS, OWN + LEADS + VOWELS
END = TAIL + TAILS
UNKNOWN = END + 1
BEYOND = UNKNOWN + 1  # no symbol is as large

SYLLABLE, SYLLABLES = 0xAC00, LEADS * VOWELS * (TAILS + 1)
# How a letter is written that stands in no syllable: a model may draw what no text holds.
ALONE = [*range(0x1100, 0x1100 + LEADS), *range(0x1161, 0x1161 + VOWELS), *range(0x11A8, 0x11A8 + TAILS)]


def code_points(text: str) -> Codes:
    """Return the code points of a text, (n,) uint32; lone surrogates are code points too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def encode(text: str | bytes, unit: str) -> Codes:
    """Return the symbols of a text, (n,) uint32, of the unit ``char``, ``byte`` or ``jamo``.

    With ``byte`` a str stands for its UTF-8 bytes. With ``jamo`` a syllable of Hangul becomes its two or three
    letters; every other character stays.
    """
    if unit == "byte":
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8).astype(np.uint32)
    assert isinstance(text, str)
    codes = code_points(text)
    if unit == "char":
        return codes
    syllable = np.minimum(codes - np.uint32(SYLLABLE), SYLLABLES)  # wraps around for what stands before them
    rows = np.take(_letters(), syllable, axis=0)  # take and compress: four times as fast as indexing
    others = np.flatnonzero(syllable == SYLLABLES)
    rows[others, 0] = codes[others]
    symbols: Codes = np.compress(rows.ravel() != BEYOND, rows)
    return symbols


@functools.cache
def _letters() -> Codes:
    """Return the letters of every syllable, and a row for no syllable, (SYLLABLES + 1, 3); BEYOND where is none."""
    block, tail = np.divmod(np.arange(SYLLABLES), TAILS + 1)
    letters = OWN + block // VOWELS, VOWEL + block % VOWELS, np.where(tail, TAIL + tail - 1, BEYOND)
    return np.pad(np.stack(letters, axis=1), ((0, 1), (0, 0)), constant_values=BEYOND).astype(np.uint32)


def begins(codes: Codes) -> NDArray[np.bool_]:
    """Tell which symbols begin a character: all but the later letters of a syllable and a document's end."""
    first: NDArray[np.bool_] = (codes < VOWEL) | (codes == UNKNOWN)
    return first


def decode(codes: Iterable[int]) -> str:
    """Return the text of symbols: letters of Hangul joined to syllables, a byte as the character of its number."""
    composer = Composer()
    return "".join(map(composer.feed, codes)) + composer.flush()


class Composer:
    """Symbols to text, one at a time: a syllable is held back until it is known to be whole."""

    def __init__(self) -> None:
        """Begin with nothing held back."""
        self._held: list[int] = []  # a lead, or a lead and a vowel

    def feed(self, code: int) -> str:
        """Take a symbol; return what is now certain, which may be nothing."""
        if code < OWN:
            return self.flush() + chr(code) if self._held else chr(code)
        held = self._held
        if code < VOWEL:
            before = self.flush()
            self._held = [code - OWN]
            return before
        if code < TAIL and len(held) == 1:
            held.append(code - VOWEL)
            return ""
        if TAIL <= code < END and len(held) == 2:
            self._held = []
            return _syllable(held, code - TAIL + 1)
        other = "" if code == END else "\ufffd" if code == UNKNOWN else chr(ALONE[code - OWN])
        return self.flush() + other

    def flush(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, []
        return _syllable(held, 0) if len(held) == 2 else "".join(chr(ALONE[code]) for code in held)


def _syllable(held: list[int], tail: int) -> str:
    lead, vowel = held
    return chr(SYLLABLE + (lead * VOWELS + vowel) * (TAILS + 1) + tail)
