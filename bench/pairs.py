"""Write pairs of texts for --predict text: python bench/pairs.py reverse 10000 > reverse.tsv.

A line is a text, a TAB and what follows from it. No text comes twice, so that the test split is
new to the model. Texts of another seed may be among them.
"""

from __future__ import annotations

import argparse
import calendar
import datetime
import random
from collections.abc import Callable

NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
ONES, TENS = NAMES.split()[:20], NAMES.split()[20:]
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
            "nine": "ninth", "twelve": "twelfth"}  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_NUMBER = 999_999
FIRST_DAY, LAST_DAY = datetime.date(1000, 1, 1), datetime.date(2999, 12, 31)


def words_of(n: int) -> str:
    """Return a number below a million in words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    rest = f" {words_of(n % size)}" if n % size else ""
    return f"{words_of(n // size)} {name}{rest}"


def ordinal_of(n: int) -> str:
    """Return first, second and so on, for a number below a hundred."""
    start, dash, last = words_of(n).rpartition("-")
    ending = last[:-1] + "ieth" if last.endswith("y") else f"{last}th"
    return start + dash + ORDINALS.get(last, ending)


def year_in_words(year: int) -> str:
    """Return a year as it is read: nineteen hundred, nineteen oh five, two thousand six."""
    century, rest = divmod(year, 100)
    if century % 10 == 0 and rest < 10:
        return words_of(year)
    last = "hundred" if not rest else f"oh {ONES[rest]}" if rest < 10 else words_of(rest)
    return f"{words_of(century)} {last}"


def make_number(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(0, MAX_NUMBER)
    return words_of(n), str(n)


def make_date(rng: random.Random) -> tuple[str, str]:
    day = datetime.date.fromordinal(rng.randint(FIRST_DAY.toordinal(), LAST_DAY.toordinal()))
    month, number = calendar.month_name[day.month], ordinal_of(day.day)
    start = f"the {number} of {month}" if rng.random() < 0.5 else f"{month} the {number}"
    return f"{start}, {year_in_words(day.year)}", day.isoformat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["numbers", "dates", "reverse", "copy"])
    parser.add_argument("lines", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-length", type=int, default=5, help="of letters")
    parser.add_argument("--max-length", type=int, default=40)
    given = parser.parse_args()
    rng = random.Random(given.seed)

    def make_letters(rng: random.Random) -> tuple[str, str]:
        n = rng.randint(given.min_length, given.max_length)
        text = "".join(rng.choices(LETTERS, k=n))
        return text, text[::-1] if given.kind == "reverse" else text

    makers: dict[str, Callable[[random.Random], tuple[str, str]]]
    makers = {"numbers": make_number, "dates": make_date}
    make, seen = makers.get(given.kind, make_letters), set()
    while len(seen) < given.lines:
        text, target = make(rng)
        if text not in seen:
            seen.add(text)
            print(f"{text}\t{target}")


if __name__ == "__main__":
    main()
