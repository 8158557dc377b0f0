"""Text as symbol codes, and back: a code is a code point, a byte, or one of the special codes."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from charrnn.text.tokens import BASE

Codes = NDArray[np.uint32]

# Special codes are beyond Unicode, so no text can contain them: the jamo of a decomposed syllable
# (a text may contain the characters from U+1100 itself), the end of a document, the symbol that
# replaces all rare ones; with words the symbols around a spelled one, the digits of a character
# that has no symbol (see ``tokens``), and then the words of a vocabulary.
FIRST_SPECIAL = 0x110000
LEADS, VOWELS, TAILS = 19, 21, 27  # numbers of jamo: the Unicode Standard, section 3.12
FIRST_VOWEL = FIRST_SPECIAL + LEADS
FIRST_TAIL = FIRST_VOWEL + VOWELS
END_OF_DOCUMENT = FIRST_TAIL + TAILS
UNKNOWN = END_OF_DOCUMENT + 1
CODE_LIMIT = UNKNOWN + 1  # every code of a text is below it
SPELL, END_SPELL = UNKNOWN + 1, UNKNOWN + 2
FIRST_DIGIT = END_SPELL + 1
FIRST_WORD = FIRST_DIGIT + BASE

FIRST_SYLLABLE = 0xAC00
SYLLABLES = LEADS * VOWELS * (TAILS + 1)
# the characters of jamo that are in no syllable: a model may generate them where no text has them
CONJOINING_JAMO = [
    code
    for first, n in ((0x1100, LEADS), (0x1161, VOWELS), (0x11A8, TAILS))
    for code in range(first, first + n)
]
SPECIAL_TEXT = [*map(chr, CONJOINING_JAMO), "", "\ufffd"]  # of each special code on its own
NEXT_JAMO = [  # that may continue a syllable of 0, 1 or 2 jamo
    range(FIRST_SPECIAL, FIRST_VOWEL),
    range(FIRST_VOWEL, FIRST_TAIL),
    range(FIRST_TAIL, END_OF_DOCUMENT),
]


def code_points(text: str) -> Codes:
    """Return the code points of a text, (n,) uint32, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def to_codes(text: str | bytes, unit: str) -> Codes:
    """Return the codes of a text that a corpus stores for a unit, (n,) uint32.

    With ``byte``, a str is encoded in UTF-8; with another unit, bytes raise TypeError. With
    ``jamo``, a syllable of Hangul becomes its two or three jamo. With ``word`` they are the
    characters: which words are symbols depends on the vocabulary.
    """
    if unit == "byte":
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8).astype(np.uint32)
    if not isinstance(text, str):
        raise TypeError(f"unit {unit} needs a str, not {type(text).__name__}")
    codes = code_points(text)
    if unit in ("char", "word"):
        return codes
    # a row of three codes for each character; codes below the syllables wrap around
    syllable = np.minimum(codes - np.uint32(FIRST_SYLLABLE), SYLLABLES)
    rows = np.take(_jamo_table(), syllable, axis=0)  # take, compress: 4 times as fast as indexing
    others = np.flatnonzero(syllable == SYLLABLES)
    rows[others, 0] = codes[others]
    jamo: Codes = np.compress(rows.ravel() != CODE_LIMIT, rows)
    return jamo


@functools.cache
def _jamo_table() -> Codes:
    """Return the jamo of every syllable, (SYLLABLES + 1, 3); CODE_LIMIT where there is none."""
    lead, vowel, tail = np.unravel_index(np.arange(SYLLABLES), (LEADS, VOWELS, TAILS + 1))
    tail_code = np.where(tail > 0, FIRST_TAIL + tail - 1, CODE_LIMIT)
    table = np.stack([FIRST_SPECIAL + lead, FIRST_VOWEL + vowel, tail_code], axis=1)
    # the last row is for a character that is not a syllable
    return np.pad(table, ((0, 1), (0, 0)), constant_values=CODE_LIMIT).astype(np.uint32)


def starts_character(codes: Codes) -> NDArray[np.bool_]:
    """Return a mask of the symbols that start a character: no vowel, tail or end of a document."""
    starts: NDArray[np.bool_] = (codes < FIRST_VOWEL) | (codes == UNKNOWN)
    return starts


def to_text(codes: Iterable[int]) -> str:
    """Return the text of symbol codes: jamo are composed, a byte is the character of its value."""
    composer = Composer()
    return "".join(map(composer.feed, codes)) + composer.flush()


class Composer:
    """Composes text symbol by symbol; the jamo of a syllable wait until it is complete."""

    def __init__(self) -> None:
        self.pending = ""  # conjoining jamo

    def feed(self, code: int) -> str:
        """Add a symbol; return the text that is complete, which may be empty."""
        text = chr(code) if code < FIRST_SPECIAL else SPECIAL_TEXT[code - FIRST_SPECIAL]
        complete = "" if code in NEXT_JAMO[len(self.pending)] else self.flush()
        if code not in NEXT_JAMO[len(self.pending)]:
            return complete + text
        self.pending += text
        return complete + (self.flush() if len(self.pending) == 3 else "")

    def flush(self) -> str:
        """Return the text of the pending jamo."""
        pending, self.pending = self.pending, ""
        return unicodedata.normalize("NFC", pending)
