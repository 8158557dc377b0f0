"""The number of threads of the linear algebra library that NumPy has loaded."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

# which set the number of threads of a library when it is loaded
BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)
# the functions of OpenBLAS, as NumPy's wheels name them and as distributions do, and of MKL
FUNCTIONS = (
    ("scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"),
    ("scipy_openblas_get_num_threads", "scipy_openblas_set_num_threads"),
    ("openblas_get_num_threads64_", "openblas_set_num_threads64_"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)
T = TypeVar("T")
LIBRARY_NAMES = ("openblas", "mkl_rt", "blas")


class Library(NamedTuple):
    get_threads: Callable[[], int]
    set_threads: Callable[[int], object]


@contextlib.contextmanager
def limit_threads(threads: int = 1) -> Iterator[None]:
    """Limit the threads per matrix product; afterwards there are as many as before.

    More than one gain little on products of this size, and slow each other down when other programs
    use the same cores. With a library that has no such function, nothing changes.
    """
    library = find_library()
    before = library.get_threads() if library else threads
    if library is None or before == threads:
        yield
        return
    library.set_threads(threads)
    try:
        yield
    finally:
        library.set_threads(before)


def with_threads(items: Iterator[T], threads: int) -> Iterator[T]:
    """Return an iterator whose items are computed with this number of threads."""
    library = find_library()
    if library is None or library.get_threads() == threads:
        return items

    def limited() -> Iterator[T]:
        end = object()
        while True:
            with limit_threads(threads):
                item = next(items, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the end

    return limited()


@functools.cache
def find_library() -> Library | None:
    """Return the functions of the library, or None if there are none."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(str(path))  # loaded already: nothing new is loaded
        except OSError:
            continue
        for get_name, set_name in FUNCTIONS:
            if hasattr(library, get_name) and hasattr(library, set_name):
                return Library(getattr(library, get_name), getattr(library, set_name))
    return None


def _candidates() -> Iterator[Path]:
    """Yield the libraries that come with NumPy, then those that this process has loaded.

    Another package may have loaded a library of its own, which is not the one that NumPy uses.
    """
    import numpy as np  # late: the command line sets the variables before

    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        yield from sorted(path for path in folder.glob("*") if _is_library(path.name))
    maps = Path("/proc/self/maps")
    with contextlib.suppress(OSError):
        fields = (line.split(maxsplit=5) for line in maps.read_text(errors="replace").splitlines())
        paths = {field[5] for field in fields if len(field) == 6}
        yield from (Path(path) for path in sorted(paths) if _is_library(path))


def _is_library(path: str) -> bool:
    name = Path(path).name.lower()
    return any(part in name for part in LIBRARY_NAMES)
