"""Print a random text of any size: python bench/text.py 1G > large.txt."""

from __future__ import annotations

import argparse
import sys

import numpy as np

WORDS = 50_000


def main() -> None:
    """Print words with the frequencies of a language."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", help="size in bytes; K, M and G are powers of 1000")
    parser.add_argument("--line", action="store_true", help="print a single line")
    arguments = parser.parse_args()
    power = "KMG".find(arguments.size[-1].upper()) + 1
    left = int(float(arguments.size.rstrip("kKmMgG")) * 1000**power)
    rng = np.random.default_rng(0)
    letters = np.array(list("eeeeeeeettttttaaaaaooooiiiinnnnsssshhhrrrdlcumwfgypbvk"))
    words = ["".join(rng.choice(letters, n)) for n in rng.poisson(4, WORDS) + 1]
    while left:
        # Zipf's law (1935): the frequency of the nth word is proportional to 1 / n
        ranks = (WORDS ** rng.random(100_000)).astype(int) - 1
        ends = np.where(rng.random(len(ranks)) < 0.08, " " if arguments.line else ".\n", " ")
        pairs = zip(ranks.tolist(), ends.tolist(), strict=True)
        data = "".join(words[rank] + end for rank, end in pairs).encode()[:left]
        sys.stdout.buffer.write(data)
        left -= len(data)


if __name__ == "__main__":
    main()
