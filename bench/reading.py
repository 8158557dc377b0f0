"""Measure the speed and memory of reading a text: python bench/reading.py large.txt char byte."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from charrnn.text.corpus import Corpus


def main(path: str, *units: str) -> None:
    """Read a file once per unit."""
    for unit in units:
        start = time.perf_counter()
        corpus = Corpus("text", paths=[path], unit=unit, temp_dir=Path())
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        speed = corpus.bytes / 1e6 / seconds
        print(f"{unit}: {speed:,.0f} MB/s; {memory:.0f} MB of memory at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
