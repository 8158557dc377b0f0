"""Masks: what differs in every line of a log becomes one character for each kind."""

from __future__ import annotations

import functools
import re
from typing import TypeVar

Text = TypeVar("Text", str, bytes, str | bytes)

# none is a letter or a digit, so that a text that is masked twice stays the same
MASKS = {"address": "⌂", "hexadecimal": "⬡", "number": "№", "identifier": "◇"}
BEFORE = rf"(?<![^\W_])(?<![{''.join(MASKS.values())}])"  # no letter or digit
AFTER = rf"(?![\w{''.join(MASKS.values())}])"
GROUPS = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}"
# alternatives are tried in this order; their bounds keep the time linear in the text
ADDRESS = rf"""
    \d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d{{1,5}})?(?!\.?\w)          # IPv4, with its port
  | [0-9a-f]{{2}}(?:[:-][0-9a-f]{{2}}){{5}}{AFTER}                 # MAC
  | (?=[0-9a-f:.]{{0,40}}?\d)                                      # IPv6 has a digit, and :: or
    (?:(?:{GROUPS})?::(?:{GROUPS})?|(?:[0-9a-f]{{1,4}}:){{7}}[0-9a-f]{{1,4}})  # eight groups
    (?:(?:\.\d{{1,3}}){{3}})?{AFTER}
"""
HEXADECIMAL = rf"""
    0x[0-9a-f]+{AFTER}
  | [0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}{AFTER}     # UUID
  | (?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{6,}}{AFTER}                  # a digit and a letter
"""
NUMBER = r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"
IDENTIFIER = r"(?<!\w)[^\W\d]*\d\w*"


@functools.cache
def _pattern(mask: str) -> re.Pattern[str]:
    kinds = {"address": ADDRESS, "hexadecimal": HEXADECIMAL, "number": NUMBER}
    if mask == "identifiers":
        kinds |= {"number": NUMBER + AFTER, "identifier": IDENTIFIER}
    groups = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items())
    return re.compile(f"{BEFORE}(?:{groups})", re.IGNORECASE | re.VERBOSE)


def mask_text(text: Text, mask: str | None) -> Text:
    """Return a text with its numbers masked; ``mask`` is as in ``Config``.

    An address, a hexadecimal number and another number become a character of ``MASKS`` each, and so
    does with ``identifiers`` every other word with a digit in it. No match contains white space.
    """
    if mask is None or isinstance(text, bytes):
        return text
    return _pattern(mask).sub(lambda match: MASKS[match.lastgroup or ""], text)
