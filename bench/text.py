"""Write a text of any size to standard output: python bench/text.py 1G > large.txt."""

from __future__ import annotations

import argparse
import sys

import numpy as np

WORDS = 50_000


def main() -> None:
    """Draw words as they are found in texts: few of them often, many seldom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", help="bytes; K, M and G are thousands")
    parser.add_argument("--line", action="store_true", help="without a line's end")
    arguments = parser.parse_args()
    power = "KMG".find(arguments.size[-1].upper()) + 1
    left = int(float(arguments.size.rstrip("kKmMgG")) * 1000**power)
    rng = np.random.default_rng(0)
    letters = np.array(list("eeeeeeeettttttaaaaaooooiiiinnnnsssshhhrrrdlcumwfgypbvk"))
    words = ["".join(rng.choice(letters, n)) for n in rng.poisson(4, WORDS) + 1]
    while left:
        # the nth word is as likely as 1 / n (Zipf, 1935)
        ranks = (WORDS ** rng.random(100_000)).astype(int) - 1
        ends = np.where(rng.random(len(ranks)) < 0.08, " " if arguments.line else ".\n", " ")
        data = "".join(words[r] + end for r, end in zip(ranks.tolist(), ends.tolist(), strict=True)).encode()[:left]
        sys.stdout.buffer.write(data)
        left -= len(data)


if __name__ == "__main__":
    main()
