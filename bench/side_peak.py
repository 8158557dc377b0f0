"""The peak: floating-point operations per second of one product of square float32 matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def prepare(job: dict[str, Any]) -> Callable[[], int]:
    """Prepare the product of two matrices of n by n."""
    n = 1024
    a, b = np.random.default_rng(0).standard_normal((2, n, n)).astype(np.float32)
    out = np.empty_like(a)

    def product() -> int:
        np.matmul(a, b, out=out)
        return 2 * n**3

    return product
