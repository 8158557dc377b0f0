"""Measure how well odd lines of a log are found: python bench/odd_lines.py LOG --odd PATTERN.

A model is trained on the first half of the log and scores the second. A line is odd if PATTERN
matches it; what --remove matches is taken out first, so that no label can be read. The table has
the area under the ROC curve of each score, which is .5 by chance: how often an odd line has a
higher one than another line.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

import charrnn
from charrnn.arrays import Array
from charrnn.text.masks import mask_text

MASKS = (None, "numbers", "identifiers")


def area_under_curve(scores: Array, is_odd: Array) -> float:
    """Return how often an odd line scores higher than another line; ties count half."""
    odd, normal = scores[is_odd, None], scores[~is_odd]
    return float((odd > normal).mean() + (odd == normal).mean() / 2)


def measure(train: list[str], test: list[str], is_odd: Array, mask: str | None, **how: int) -> str:
    """Return the cells of a row of the table."""
    seen = set(mask_text("\n".join(train), mask).split("\n"))
    lines = mask_text("\n".join(test), mask).split("\n")
    never_seen = np.array([line not in seen for line in lines], float)
    model = charrnn.train("\n".join(train), mask=mask, documents="line", workers=1, **how)
    scores = model.score_lines("\n".join(test))
    columns = [never_seen, scores.nll, scores.stretch, scores.score]
    return " | ".join(f"{area_under_curve(column, is_odd):.3f}" for column in columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--odd", required=True, metavar="PATTERN", help="of the odd lines")
    parser.add_argument("--remove", metavar="PATTERN", help="is removed from every line")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=600)
    parser.add_argument("--hidden-size", type=int, default=64)
    given = parser.parse_args()
    original = [line for line in given.log.read_text("utf-8", "replace").split("\n") if line]
    lines = [re.sub(given.remove, "", line) if given.remove else line for line in original]
    half = len(lines) // 2
    is_odd = np.array([re.search(given.odd, line) is not None for line in original[half:]])
    print(f"{given.log.name}: {is_odd.sum()} of {len(is_odd)} lines are odd\n")
    print("| mask | seed | never seen | mean | stretch | mean + stretch / 2 |")
    print("|---|---:|---:|---:|---:|---:|")
    how = {"max_steps": given.max_steps, "hidden_size": given.hidden_size}
    for mask in MASKS:
        for seed in range(given.seeds):
            row = measure(lines[:half], lines[half:], is_odd, mask, seed=seed, **how)
            print(f"| {mask or 'none'} | {seed} | {row} |", flush=True)


if __name__ == "__main__":
    main()
