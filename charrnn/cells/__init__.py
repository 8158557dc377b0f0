"""The recurrences, one file each. A new cell is a new file here and one line in the registry."""

from charrnn.arrays import Cell
from charrnn.cells import gru, lstm, vanilla

CELLS: dict[str, Cell] = {"vanilla": vanilla, "gru": gru, "lstm": lstm}
