"""One file for a run: a zip of NumPy arrays and ``header.json``. Never a pickle; written whole or not at all."""

# NumPy is imported by the functions that need it: the command line reads a header before it chooses the number
# of BLAS threads, and that choice must stand when NumPy is first imported.

from __future__ import annotations

import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.errors import CheckpointError, SaveError

if TYPE_CHECKING:
    from charrnn.arrays import Array

FORMAT = 1
HEADER = "header.json"
Header = dict[str, Any]


def save(path: Path, header: Header, arrays: Mapping[str, Array]) -> None:
    """Write the file under another name, force it to the disk, and put it in the place of the old one.

    Raises SaveError; the old file is then as it was.
    """
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb+") as f:
            np.savez(f, **dict[str, Any](arrays))
            with zipfile.ZipFile(f, "a") as z:
                z.writestr(zipfile.ZipInfo(HEADER), json.dumps({"format": FORMAT, **header}, indent=1))
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
        if hasattr(os, "O_DIRECTORY"):  # POSIX: the new name must reach the disk too; elsewhere it does by itself
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise SaveError(f"{path}: could not be saved ({(e.strerror or str(e)).lower()})") from None


def read_header(path: Path) -> Header:
    """Return the header alone, without a look at the arrays. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(path) as z:
            header = json.loads(z.read(HEADER))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except KeyError:
        raise CheckpointError(f"{path}: not a checkpoint of charrnn: it has no {HEADER}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError):
        raise CheckpointError(f"{path}: not a checkpoint of charrnn, or a damaged one") from None
    except OSError as e:
        raise CheckpointError(f"{path}: {(e.strerror or str(e)).lower()}") from None
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int:
        raise CheckpointError(f"{path}: not a checkpoint of charrnn: its header names no format")
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: written in format {version} by a newer charrnn; this one reads up to {FORMAT}: "
            f"pip install --upgrade charrnn"
        )
    return dict(header)


def load(path: Path) -> tuple[Header, dict[str, Array]]:
    """Return the header and the arrays. Raises CheckpointError."""
    import numpy as np

    header = read_header(path)
    try:
        with np.load(path, allow_pickle=False) as z:
            return header, {name: z[name] for name in z.files if name != HEADER}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as e:
        raise CheckpointError(f"{path}: damaged: {e}") from None
