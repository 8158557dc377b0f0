"""How fast a text is read, and the memory it takes: python bench/reading.py large.txt char byte."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from charrnn.corpus import read


def main(path: str, *units: str) -> None:
    """Read a file once for each unit, and then once more, where its ids are found."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for unit in units:
            for what in ("read", "found"):
                start = time.perf_counter()
                corpus = read([path], unit=unit, spool=Path(folder) / "ids" / ".run.npz.tmp")
                seconds = time.perf_counter() - start
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{unit}: {what} at {corpus.bytes / 1e6 / seconds:,.0f} MB/s; {memory:.0f} MB of memory at most")
            corpus.store.discard()


if __name__ == "__main__":
    main(*sys.argv[1:])
