"""Where runs are kept, and which one a command means when it is given none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import charrnn
from charrnn.errors import CheckpointError, UsageError

FOLDER = Path("checkpoints")
EXAMPLE = "example.npz"


def newest() -> Path:
    """Return the newest run in ./checkpoints, or else the example model that comes with charrnn."""
    runs = sorted(FOLDER.glob("*.npz"), key=lambda p: (p.name != EXAMPLE, p.stat().st_mtime, p.name))
    package = Path(charrnn.__file__).parent
    shipped = [package / EXAMPLE, package.parent / FOLDER / EXAMPLE]  # in the wheel, in a clone
    for path in (*runs[-1:], *shipped):
        if path.exists():
            return path
    raise CheckpointError("no checkpoint in ./checkpoints; charrnn train CORPUS makes one")


def parted(arguments: Sequence[str], *, text: bool = True) -> tuple[Path | None, list[str]]:
    """Part ``[CHECKPOINT] CORPUS...``: a first one that ends in .npz is the checkpoint; ``text`` must be there."""
    given = bool(arguments) and arguments[0].endswith(".npz")
    others = list(arguments[given:])
    if text and not others:
        raise UsageError(f"a text is missing{f' after {arguments[0]}' * given}; - is standard input")
    if others.count("-") > 1:
        raise UsageError("- stands for standard input, which can be read only once")
    return (Path(arguments[0]) if given else None), others


def name_of(paths: Sequence[str]) -> str:
    """Return what a run on these is called: the first file's stem, the folder's name, or ``stdin``."""
    if paths[0] == "-":
        return "stdin"
    path = Path(paths[0])
    try:
        return (path.resolve().name if path.is_dir() else path.stem) or "root"
    except OSError:  # a name that no file can have
        return path.stem
