"""One side of a comparison, in its own process: ``python bench/worker.py SIDE JOB`` (JSON).

It prepares the job, then answers each line of stdin: a number of seconds with the characters per
second during that time, ``memory`` with its peak resident memory in MB.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time


def main(side: str, job: str) -> None:
    """Serve until stdin ends."""
    work = importlib.import_module(f"side_{side}").prepare(json.loads(job))
    work()
    for line in sys.stdin:
        if line.strip() == "memory":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
            continue
        characters, start, seconds = 0, time.perf_counter(), float(line)
        while (elapsed := time.perf_counter() - start) < seconds:
            characters += work()
        print(characters / elapsed, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
