"""The number of BLAS threads: chosen before NumPy is imported, since it reads the environment then."""

from __future__ import annotations

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")


def set_threads(wanted: int | None) -> int:
    """Set the number of threads and return it: what is wanted, or the environment's, or two at most."""
    if wanted is None:
        given = next((os.environ[v] for v in VARIABLES if os.environ.get(v, "").isdigit()), None)
        wanted = int(given) if given else min(2, available())
    for variable in VARIABLES:
        os.environ[variable] = str(wanted)
    return wanted


def available() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere all of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
