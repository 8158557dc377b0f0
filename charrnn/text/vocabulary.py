"""Symbols as ids, and back. Ids follow the order of the codes, so they never depend on the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids
from charrnn.errors import TextError, UnknownCharacterError
from charrnn.text import units
from charrnn.text.units import END_OF_DOCUMENT, FIRST_SPECIAL, UNKNOWN, Codes

NEWLINE = ord("\n")
SKIP_UNKNOWN = "use --unknown skip to ignore it"


class Vocabulary:
    """The symbols of a model. ``codes`` (see ``units``) are sorted; a symbol's id is its index.

    ``start_symbol`` is the code of the symbol that is fed before the first one of a text.
    """

    def __init__(self, codes: Iterable[int], start_symbol: int, unit: str = "char") -> None:
        self.codes: Codes = np.unique(np.fromiter(codes, np.uint32))
        self.start_symbol, self.unit = start_symbol, unit

    @classmethod
    def from_text(cls, text: str | bytes, unit: str = "char") -> Vocabulary:
        codes = units.to_codes(text, unit)
        return cls.from_counts(*np.unique(codes, return_counts=True), unit)

    @classmethod
    def from_counts(
        cls,
        codes: Codes,
        counts: NDArray[np.integer[Any]],
        unit: str = "char",
        min_count: int = 1,
        max_vocab: int | None = None,
    ) -> Vocabulary:
        """Return the vocabulary of counted symbols.

        Symbols that are rarer than ``min_count``, or not among the ``max_vocab`` most common, are
        replaced with one unknown symbol, but never jamo, the newline or the end of a document. The
        start symbol is the end of a document, the newline, or else the most common symbol. Raises
        TextError if no symbol is left.
        """
        # leave out rare ones, and make room for the unknown symbol
        always = (codes >= FIRST_SPECIAL) | (codes == NEWLINE)
        kept = always | (counts >= min_count)
        if max_vocab is not None and (len(codes) > max_vocab or not kept.all()):
            common_first = np.lexsort((codes, -counts, ~always))
            kept[common_first[max(max_vocab - 1, always.sum()) :]] = False
        if not kept.any():
            hint = "use a lower --min-count or a larger --max-vocab"
            raise TextError(f"the vocabulary is empty; {hint}")

        known, counts = codes[kept], counts[kept]
        most_common = known[counts == counts.max()].min()
        start = next((c for c in (END_OF_DOCUMENT, NEWLINE) if c in known), most_common)
        return cls(known if kept.all() else [*known, UNKNOWN], int(start), unit)

    @classmethod
    def from_header(cls, header: Mapping[str, Any], unit: str) -> Vocabulary:
        return cls([*map(ord, header["symbols"]), *header["special"]], header["start_symbol"], unit)

    def to_header(self) -> dict[str, Any]:
        return {
            "size": len(self),
            "symbols": self.symbols,
            "special": self.codes[self.codes >= FIRST_SPECIAL].tolist(),
            "start_symbol": self.start_symbol,
        }

    @property
    def symbols(self) -> str:
        """The symbols that are characters (bytes, as the characters of the same values)."""
        return self.decode(np.flatnonzero(self.codes < FIRST_SPECIAL))

    @property
    def start_id(self) -> Ids:
        return self.ids_of(np.array([self.start_symbol]))  # (1,)

    def separator_id(self, documents: str | None) -> int | None:
        """Return the id that ends a document, or None; ``documents`` is as in ``Config``."""
        return self.id(NEWLINE if documents == "line" else END_OF_DOCUMENT) if documents else None

    def id(self, code: int) -> int | None:
        """Return the id of a symbol, or None if it is not in the vocabulary."""
        index = int(np.searchsorted(self.codes, code))
        return index if index < len(self) and self.codes[index] == code else None

    def __len__(self) -> int:
        return len(self.codes)

    def ids_of(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
        """Return the ids of symbols, (n,); others get the id of the unknown symbol, or -1."""
        ids = np.searchsorted(self.codes, codes).clip(max=len(self) - 1)
        unknown_id = self.id(UNKNOWN)
        return np.where(self.codes[ids] == codes, ids, -1 if unknown_id is None else unknown_id)

    def lookup(self, codes: Codes) -> tuple[Ids, Ids, NDArray[np.bool_]]:
        """Return ``ids_of``, the index of each symbol's character, and which are unknown."""
        ids, character = self.ids_of(codes), np.cumsum(units.starts_character(codes)) - 1
        n = int(character[-1]) + 1 if len(codes) else 0
        return ids, character, np.bincount(character, ids < 0, n) > 0

    def encode(
        self, text: str | bytes, *, unknown: str = "error", advice: str = SKIP_UNKNOWN
    ) -> Ids:
        """Return the ids of a text's symbols, (n,).

        A character that is not in the vocabulary, if there is no unknown symbol, raises
        UnknownCharacterError, which ends with ``advice``; with ``unknown="skip"`` it is left out,
        with all of its jamo.
        """
        codes = units.to_codes(text, self.unit)
        ids, character, is_unknown = self.lookup(codes)
        if not is_unknown.any():
            return ids
        if unknown == "skip":
            known: Ids = ids[~is_unknown[character]]
            return known

        # name the first unknown one
        symbol = int((ids < 0).argmax())
        offset = int(character[symbol])
        symbol_name = f"byte {codes[symbol]:#04x} (offset {offset:,})"
        if isinstance(text, str) and self.unit != "byte":
            symbol_name = f"{text[offset]!r} (U+{ord(text[offset]):04X}, offset {offset:,})"
        raise UnknownCharacterError(
            f"{symbol_name} is not in the model's vocabulary of {len(self):,} symbols; {advice}"
        )

    def decode(self, ids: Ids) -> str:
        """Return the text of ids; a byte is the character of the same value."""
        codes = self.codes[ids]
        if codes.max(initial=0) >= FIRST_SPECIAL:
            return units.to_text(codes.tolist())
        return codes.tobytes().decode("utf-32-le", "surrogatepass")
