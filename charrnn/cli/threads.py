"""The number of BLAS threads: chosen before NumPy is imported, since it reads the environment then."""

from __future__ import annotations

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")


def set_threads(wanted: int | None) -> int:
    """Set the number of threads and return it: what is wanted, or else the environment's, or one.

    One is the default because it is safe: where other programs want the same cores, two threads that wait for each
    other can be many times slower than one, and where none do they gain a quarter.
    """
    given = next((os.environ[v] for v in VARIABLES if os.environ.get(v, "").isdigit()), "1")
    threads = wanted or max(1, int(given))
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    return threads


def told(threads: int) -> str:
    """Return the number in words that a line can hold."""
    return f"{threads} thread{'s' * (threads != 1)}"
