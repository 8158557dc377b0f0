"""Symbols to ids and back. Their order is that of the numbers, so that it never changes from run to run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import units
from charrnn.arrays import Array, Ids
from charrnn.errors import TextError, UnknownCharacterError
from charrnn.units import END_OF_DOCUMENT, FIRST_SPECIAL, UNKNOWN, Codes

NEWLINE = ord("\n")


class Vocabulary:
    """The symbols that a model knows, sorted; a symbol's id is its place.

    ``codes`` are their numbers (see ``units``), ``start`` is the one that is fed before the first of a text, ``unit``
    what a text is cut into.
    """

    def __init__(self, codes: Iterable[int], start: int, unit: str = "char") -> None:
        """Hold the distinct ``codes``."""
        self.codes: Codes = np.unique(np.fromiter(codes, np.uint32))
        self.start, self.unit = start, unit

    @classmethod
    def of(cls, text: str | bytes, unit: str = "char") -> Vocabulary:
        """Return the vocabulary of a text.

        >>> vocabulary = Vocabulary.of("hello")
        >>> vocabulary.symbols, chr(vocabulary.start)
        ('ehlo', 'l')
        """
        return cls.counted(*np.unique(units.to_codes(text, unit), return_counts=True), unit)

    @classmethod
    def counted(
        cls,
        codes: Codes,
        counts: NDArray[np.integer[Any]],
        unit: str = "char",
        min_count: int = 1,
        max_vocab: int | None = None,
    ) -> Vocabulary:
        """Return the vocabulary of symbols that were counted.

        Those that are rarer than ``min_count``, or beyond the ``max_vocab`` commonest, share one unknown symbol.
        Letters, the newline and the end of a document are never among them. The start is the end of a document, a
        newline, or else the commonest. Raises TextError if no symbol is left.
        """
        always = (codes >= FIRST_SPECIAL) | (codes == NEWLINE)
        order = np.lexsort((codes, -counts, ~always))
        codes, counts = codes[order], counts[order]
        kept = (counts >= min_count) | always[order]
        if max_vocab is not None and not (kept.all() and len(codes) <= max_vocab):
            kept[max(max_vocab - 1, always.sum()) :] = False
        if not kept.any():
            raise TextError(
                "no symbol is common enough to be known; a lower --min-count or a larger --max-vocab keeps some"
            )
        known = codes[kept]
        likeliest = known[counts[kept] == counts[kept].max()].min()
        start = next((code for code in (END_OF_DOCUMENT, NEWLINE) if code in known), likeliest)
        return cls([*known, UNKNOWN] if len(known) < len(codes) else known, int(start), unit)

    @classmethod
    def restore(cls, header: dict[str, Any], unit: str) -> Vocabulary:
        """Return the vocabulary that ``header`` describes, as ``describe`` made it."""
        return cls([*map(ord, header["symbols"]), *header["special"]], header["start_symbol"], unit)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON can hold it: size, characters, numbers of the symbols of its own, start."""
        special = self.codes[self.codes >= FIRST_SPECIAL].tolist()
        return {"size": len(self), "symbols": self.symbols, "special": special, "start_symbol": self.start}

    @property
    def symbols(self) -> str:
        """The characters among them; of bytes, those of the same numbers."""
        return self.codes[self.codes < FIRST_SPECIAL].tobytes().decode("utf-32-le", "surrogatepass")

    @property
    def start_id(self) -> Ids:
        """The id of ``start``, (1,)."""
        return self.table(np.array([self.start]))

    def id(self, code: int) -> int | None:
        """Return the id of a symbol, or None if it is not here."""
        at = int(np.searchsorted(self.codes, code))
        return at if at < len(self) and self.codes[at] == code else None

    def __len__(self) -> int:
        return len(self.codes)

    def table(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
        """Return the id of each symbol; that of the unknown one, or -1 if there is none, where it is not here."""
        ids = np.searchsorted(self.codes, codes).clip(max=len(self) - 1)
        rare = self.id(UNKNOWN)
        return np.where(self.codes[ids] == codes, ids, -1 if rare is None else rare)

    def known(self, codes: Codes) -> tuple[Ids, Ids, NDArray[np.bool_]]:
        """Return the ids of symbols (see ``table``), the character that each is of, and which of those are unknown."""
        ids, character = self.table(codes), np.cumsum(units.starts_character(codes)) - 1
        n = int(character[-1]) + 1 if len(codes) else 0
        return ids, character, np.bincount(character, ids < 0, n) > 0

    def encode(self, text: str | bytes, *, unknown: str = "error") -> Ids:
        """Return the ids of a text's symbols, (n,).

        ``unknown`` says what happens to a character that is not here, if no symbol stands for such: ``"error"`` raises
        UnknownCharacterError, which names it and its place, ``"skip"`` leaves it out.
        """
        codes = units.to_codes(text, self.unit)
        ids, character, bad = self.known(codes)
        if not bad.any():
            return ids
        if unknown == "error":
            symbol = int((ids < 0).argmax())
            at = int(character[symbol])
            if self.unit == "byte":
                what = f"the byte {codes[symbol]:#04x} (offset {at})"
            else:
                assert isinstance(text, str)
                what = f"{text[at]!r} (U+{ord(text[at]):04X}, offset {at})"
            raise UnknownCharacterError(
                f"{what} is not among the model's {len(self)} characters; --unknown skip leaves it out"
            )
        whole: Ids = ids[~bad[character]]  # no letter of a syllable without the others
        return whole

    def decode(self, ids: Ids) -> str:
        """Return the text of these ids; a byte as the character of its number."""
        codes = self.codes[ids]
        if codes.max(initial=0) >= FIRST_SPECIAL:
            return units.to_text(codes.tolist())
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def one_hot(self, ids: Ids) -> Array:
        """Return a row of zeros with a single one for each id, (n, V): what the models' input stands for."""
        rows: Array = np.eye(len(self), dtype=np.float32)[ids]
        return rows
