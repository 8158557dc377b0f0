"""The threads of the linear algebra library: chosen before NumPy is imported, since it reads the environment then."""

from __future__ import annotations

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
# In training: the same on every machine, so that the same seed gives the same result wherever it is.
THREADS = 2


def set_threads(threads: int) -> None:
    """Set the number of threads for a single product.

    Beyond one they gain little on products as small as these, and where other programs want the same cores they wait
    for each other: training shares its lanes out among threads of its own instead.
    """
    for variable in VARIABLES:
        os.environ[variable] = str(threads)


def told(threads: int) -> str:
    """Return the number in words that a line can hold."""
    return f"{threads} thread{'s' * (threads != 1)}"
