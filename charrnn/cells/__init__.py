"""The recurrences, one file each. A new cell is a file here and a line in ``config.CELLS``."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from charrnn.cells.base import Cell
from charrnn.config import CELLS


@functools.cache
def load_cell(name: str) -> Cell[Any]:
    """Return the cell that the registry has under a name."""
    module, _, attribute = CELLS[name].partition(":")
    cell: Cell[Any] = getattr(import_module(module), attribute)()
    return cell
