"""Print the lines of a text for --predict tags: python bench/lines.py spaces a.txt > spaces.tsv.

A line is a text from which something has been taken out, a TAB and a tag for each character, which
says how to restore it. No text comes twice, so that the test split is new to the model.

spaces: without spaces; the tag is _ where a space follows, and . elsewhere.
capitals: in lower case, without accents; the tag is the character as it was.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from pathlib import Path

KINDS = ("spaces", "capitals")


def take_spaces(line: str) -> tuple[str, str]:
    """Return a text without its spaces, and where they were."""
    words = line.split(" ")
    return "".join(words), "_".join("." * (len(word) - 1) for word in words) + "."


def take_capitals(line: str) -> tuple[str, str]:
    """Return a text in lower case without accents, and the text itself."""
    return "".join(map(plain, line)), line


def plain(c: str) -> str:
    """Return a character in lower case and without accents, or itself if that is not one."""
    letters = [part for part in unicodedata.normalize("NFD", c) if not unicodedata.combining(part)]
    text = unicodedata.normalize("NFC", "".join(letters)).lower()
    return text if len(text) == 1 else c


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path, help="a text in UTF-8")
    given = parser.parse_args()
    take = take_spaces if given.kind == "spaces" else take_capitals
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    seen = set()
    for line in given.file.read_text(encoding="utf-8-sig").splitlines():
        text, tags = take(unicodedata.normalize("NFC", " ".join(line.split())))
        if text and text not in seen:
            seen.add(text)
            print(f"{text}\t{tags}")


if __name__ == "__main__":
    main()
