"""A text as words, numbers, runs of blanks and single marks, for the unit ``word``.

The tokens of a text are the text: nothing is left out or changed.
"""

# NumPy is not imported: the checks of a checkpoint's header need MAX_TOKEN_CHARACTERS.

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

MAX_TOKEN_CHARACTERS = 32  # a longer run is several tokens
MIN_WORD_COUNT = 2  # of a word's symbol: what occurs once is spelled, so that spelling is learned
MAX_COUNTED_WORDS = 2**18  # at a time, when words are counted
MAX_WORDS_BYTES = 2**22  # of all words of a vocabulary, in UTF-8: a header has room for 8 MB
MARKS = range(0x300, 0x20000)  # all combining marks of letters are among these characters

# A character that has no symbol is five digits to the base 17, which spell any code point. While
# ids become text they are characters that no symbol has: lone surrogates.
BASE, NUM_DIGITS = 17, 5
DIGIT_CHARACTERS = [chr(0xD800 + digit) for digit in range(BASE)]
DIGITS = re.compile(f"[{DIGIT_CHARACTERS[0]}-{DIGIT_CHARACTERS[-1]}]{{1,{NUM_DIGITS}}}")


@functools.cache
def token_pattern() -> re.Pattern[str]:
    """Return the pattern of a token: letters with their marks, digits, blanks, or one character.

    A newline is always alone.
    """
    marks = "".join(c for c in map(chr, MARKS) if unicodedata.category(c).startswith("M"))
    # most characters are below the first mark: the search in the large class is left out
    return re.compile(rf"(?:[^\W\d_]+|(?![\0-\u02ff])[{marks}]+)+|\d+|[^\S\n]+|.", re.S)


def split_tokens(text: str) -> list[str]:
    """Return the tokens of a text, of at most 32 characters each."""
    tokens = token_pattern().findall(text)
    if len(max(tokens, key=len, default="")) <= MAX_TOKEN_CHARACTERS:
        return tokens
    n = MAX_TOKEN_CHARACTERS
    return [token[i : i + n] for token in tokens for i in range(0, len(token), n)]


def count_tokens(chunks: Iterable[list[str]]) -> tuple[Counter[str], int]:
    """Return how often each token occurs, and the number of all, in bounded memory.

    In a text of more than 262,144 different ones, rare ones are dropped on the way: these counts
    are then too low by the number of times that happened at most (Manku and Motwani, 2002).
    """
    counts, total, dropped = Counter[str](), 0, 0
    for tokens in chunks:
        counts.update(tokens)
        total += len(tokens)
        while len(counts) > MAX_COUNTED_WORDS:
            dropped += 1
            counts = Counter({token: n for token, n in counts.items() if n > dropped})
    return counts, total


def choose_words(counts: Counter[str], limit: int, min_count: int) -> list[str]:
    """Return the most common tokens of several characters, at most ``limit``, sorted."""
    min_count = max(min_count, MIN_WORD_COUNT)
    words = [token for token, n in counts.items() if n >= min_count and len(token) > 1]
    words.sort(key=lambda word: (-counts[word], word))
    chosen, size = [], 0
    for word in words[: max(limit, 0)]:
        size += len(word.encode("utf-8", "surrogatepass"))
        if size > MAX_WORDS_BYTES:
            break
        chosen.append(word)
    return sorted(chosen)


def to_digits(c: str) -> list[int]:
    """Return the digits of a character's code point, the highest first."""
    return [ord(c) // BASE**k % BASE for k in reversed(range(NUM_DIGITS))]


def join_digits(text: str) -> str:
    """Replace each five digits of a text by their character, others by U+FFFD."""
    return DIGITS.sub(_character_of, text)


def _character_of(match: re.Match[str]) -> str:
    code = 0
    for digit in match[0]:
        code = code * BASE + DIGIT_CHARACTERS.index(digit)
    return chr(code) if len(match[0]) == NUM_DIGITS and code < 0x110000 else "\ufffd"
