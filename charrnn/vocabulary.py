"""Symbols to ids and back. The order is that of the code points, so that it never changes from run to run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.errors import UnknownCharacterError


def code_points(text: str) -> Ids:
    """Return the code points of a text, (n,) uint32; lone surrogates are code points too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class Vocabulary:
    """The symbols that a model knows, sorted; a symbol's id is its place."""

    def __init__(self, symbols: Iterable[str], start: str) -> None:
        """Hold the distinct characters of ``symbols``; ``start`` is fed before the first character of a text."""
        self.symbols = "".join(sorted(set(symbols)))
        self._codes = code_points(self.symbols)
        self.start = start

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Return the vocabulary of a text; its start is the newline, or else its commonest character.

        >>> Vocabulary.of("hello").symbols, Vocabulary.of("hello").start
        ('ehlo', 'l')
        """
        codes, counts = np.unique(code_points(text), return_counts=True)
        symbols = [chr(code) for code in codes]
        return cls(symbols, "\n" if "\n" in symbols else symbols[int(counts.argmax())])

    def __len__(self) -> int:
        return len(self._codes)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self.symbols

    def encode(self, text: str, *, unknown: str = "error") -> Ids:
        """Return the ids of a text's characters, (n,) int32.

        ``unknown`` says what happens to a character that is not here: ``"error"`` raises
        UnknownCharacterError, which names it and its place, ``"skip"`` leaves it out.
        """
        codes = code_points(text)
        ids = np.searchsorted(self._codes, codes).clip(max=len(self) - 1)
        known = self._codes[ids] == codes
        if not known.all() and unknown == "error":
            at = int(known.argmin())
            raise UnknownCharacterError(
                f"{text[at]!r} (U+{ord(text[at]):04X}, offset {at}) is not among the model's {len(self)} "
                f"characters; --unknown skip leaves it out"
            )
        kept: Ids = ids[known].astype(np.int32)
        return kept

    def decode(self, ids: Ids) -> str:
        """Return the text whose characters have these ids."""
        return self._codes[ids].tobytes().decode("utf-32-le", "surrogatepass")

    def one_hot(self, ids: Ids) -> Array:
        """Return a row of zeros with a single one for each id, (n, V): what the models' input stands for."""
        rows: Array = np.eye(len(self), dtype=np.float32)[ids]
        return rows
