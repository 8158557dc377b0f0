"""Symbols as ids, and back. Ids follow the order of the codes, so they never depend on the text."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.config import DEFAULT_WORDS
from charrnn.errors import TextError, UnknownCharacterError
from charrnn.text import tokens, units
from charrnn.text.units import (
    END_OF_DOCUMENT,
    END_SPELL,
    FIRST_DIGIT,
    FIRST_SPECIAL,
    FIRST_WORD,
    SPELL,
    UNKNOWN,
    Codes,
)

NEWLINE = ord("\n")
SKIP_UNKNOWN = "use --unknown skip to ignore it"
SPELLING = [SPELL, END_SPELL, *range(FIRST_DIGIT, FIRST_WORD)]

A = TypeVar("A", bound=np.generic)


class EncodedText(NamedTuple):
    """A text as m symbols. They form p pieces: its characters, or with the unit word its tokens."""

    codes: Codes  # (m,)
    ids: Ids  # (m,): below 0 if unknown
    piece: Ids  # (m,): that each symbol is a part of
    is_unknown: NDArray[np.bool_]  # (p,)
    lengths: Ids | None = None  # (p,) in characters, if they are not all 1

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which symbols are in a piece without an unknown symbol, (m,)."""
        return ~self.is_unknown[self.piece]

    @property
    def starts_piece(self) -> NDArray[np.bool_]:
        """Which symbols are the first of their piece, (m,)."""
        return np.diff(self.piece, prepend=-1) > 0

    @property
    def last_character(self) -> Ids:
        """The index of the last character of each symbol's piece, (m,)."""
        return self.piece if self.lengths is None else (np.cumsum(self.lengths) - 1)[self.piece]

    def for_characters(self, of_pieces: NDArray[A]) -> NDArray[A]:
        """Return the values of the pieces, (p,), for each of their characters, (n,)."""
        return of_pieces if self.lengths is None else np.repeat(of_pieces, self.lengths)

    def divide(self, of_pieces: Array) -> Array:
        """Return the values of the pieces, (p,), each divided equally among its characters."""
        return of_pieces if self.lengths is None else self.for_characters(of_pieces / self.lengths)


class Vocabulary:
    """The symbols of a model. ``codes`` (see ``units``) are sorted; a symbol's id is its index.

    ``start_symbol`` is the code of the symbol that is fed before the first one of a text. With the
    unit word, ``words`` are the sorted tokens of several characters that have a symbol, with the
    codes from FIRST_WORD on. Any other token is spelled: its characters, between two symbols.
    """

    def __init__(
        self,
        codes: Iterable[int],
        start_symbol: int,
        unit: str = "char",
        words: Sequence[str] = (),
    ) -> None:
        all_codes = [*codes, *range(FIRST_WORD, FIRST_WORD + len(words))]
        self.codes: Codes = np.unique(np.fromiter(all_codes, np.uint32))
        self.start_symbol, self.unit, self.words = start_symbol, unit, words

    @classmethod
    def from_text(cls, text: str | bytes, unit: str = "char") -> Vocabulary:
        codes = units.to_codes(text, unit)
        counted = np.unique(codes, return_counts=True)
        if unit == "word":
            assert isinstance(text, str)
            return cls.from_words(*counted, Counter(tokens.split_tokens(text)))
        return cls.from_counts(*counted, unit)

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
    def from_words(
        cls,
        codes: Codes,
        counts: NDArray[np.integer[Any]],
        word_counts: Counter[str],
        min_count: int = 1,
        max_vocab: int = DEFAULT_WORDS,
        words: Sequence[str] | None = None,
    ) -> Vocabulary:
        """Return the vocabulary of counted characters and tokens, or of ``words``, for that unit.

        The characters come first, up to half of ``max_vocab``, then the most common tokens. What
        occurs once, or fewer than ``min_count`` times, has no symbol; the newline always has one.
        """
        # the characters; a lone surrogate, which no file has, is spelled
        is_kept = (counts >= max(min_count, tokens.MIN_WORD_COUNT)) & (codes != NEWLINE)
        is_kept &= (codes < FIRST_SPECIAL) & ((codes < 0xD800) | (codes > 0xDFFF))
        common_first = np.lexsort((codes, -counts, ~is_kept))[: is_kept.sum()]
        characters = codes[common_first[: max_vocab // 2]].tolist()
        ends = codes[codes == END_OF_DOCUMENT].tolist()

        others = [NEWLINE, *characters, *ends, *SPELLING]
        if words is None:
            words = tokens.choose_words(word_counts, max_vocab - len(others), min_count)
        return cls(others, ends[0] if ends else NEWLINE, "word", words)

    @classmethod
    def from_header(cls, header: Mapping[str, Any], unit: str) -> Vocabulary:
        codes = [*map(ord, header["symbols"]), *header["special"]]
        return cls(codes, header["start_symbol"], unit, header.get("words", ()))

    def to_header(self) -> dict[str, Any]:
        codes = self.codes[self.codes < FIRST_WORD]
        words = {"words": list(self.words)} if self.unit == "word" else {}
        return {
            "size": len(self),
            "symbols": self.symbols,
            "special": codes[codes >= FIRST_SPECIAL].tolist(),
            "start_symbol": self.start_symbol,
            **words,
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

    @functools.cached_property
    def texts(self) -> list[str]:
        """The text of each symbol of the unit word, in the order of the ids.

        A digit is one of ``tokens.DIGIT_CHARACTERS``; other special symbols have no text.
        """
        names = dict(zip(range(FIRST_DIGIT, FIRST_WORD), tokens.DIGIT_CHARACTERS, strict=True))
        others = self.codes[self.codes < FIRST_WORD].tolist()
        return [chr(c) if c < FIRST_SPECIAL else names.get(c, "") for c in others] + [*self.words]

    @functools.cached_property
    def _token_ids(self) -> dict[str, int]:
        """The id of each token that has a symbol; the end of a document is an empty token."""
        is_digit = (self.codes >= FIRST_DIGIT) & (self.codes < FIRST_WORD)
        ids = {text: i for i, text in enumerate(self.texts) if text and not is_digit[i]}
        end = self.id(END_OF_DOCUMENT)
        return ids if end is None else {**ids, "": end}

    def encode_tokens(self, all_tokens: Iterable[str]) -> tuple[Ids, Ids]:
        """Return the ids of tokens, (m,), and the number of ids of each, (p,)."""
        ids: list[int] = []
        sizes: list[int] = []
        find = self._token_ids.get
        for token in all_tokens:
            i = find(token)
            if i is not None:
                ids.append(i)
                sizes.append(1)
            else:
                spelled = self._spell(token)
                ids += spelled
                sizes.append(len(spelled))
        return np.array(ids, np.intp), np.array(sizes, np.intp)

    def _spell(self, token: str) -> list[int]:
        """Return the ids of a token that has no symbol."""
        spell, end, zero = self._spelling_ids
        ids = [spell]
        for c in token:
            i = self._token_ids.get(c)
            ids += [zero + digit for digit in tokens.to_digits(c)] if i is None else [i]
        return [*ids, end]

    @functools.cached_property
    def _spelling_ids(self) -> list[int]:
        ids: list[int] = self.ids_of(np.array([SPELL, END_SPELL, FIRST_DIGIT])).tolist()
        return ids

    def read(self, text: str | bytes) -> EncodedText:
        """Return the symbols of a text; see ``units.to_codes`` for what a unit takes."""
        codes = units.to_codes(text, self.unit)
        if self.unit != "word":
            return EncodedText(codes, *self.lookup(codes))
        assert isinstance(text, str)
        pieces = tokens.split_tokens(text)
        ids, sizes = self.encode_tokens(pieces)
        piece = np.repeat(np.arange(len(pieces)), sizes)
        lengths = np.array([*map(len, pieces)], np.intp)
        return EncodedText(self.codes[ids], ids, piece, np.zeros(len(pieces), bool), lengths)

    def encode(
        self, text: str | bytes, *, unknown: str = "error", advice: str = SKIP_UNKNOWN
    ) -> Ids:
        """Return the ids of a text's symbols, (n,).

        A character that is not in the vocabulary, if there is no unknown symbol, raises
        UnknownCharacterError, which ends with ``advice``; with ``unknown="skip"`` it is left out,
        with all of its jamo.
        """
        encoded = self.read(text)
        codes, ids = encoded.codes, encoded.ids
        if not encoded.is_unknown.any():
            return ids
        if unknown == "skip":
            known: Ids = ids[encoded.is_known]
            return known

        # name the first unknown one
        symbol = int((ids < 0).argmax())
        offset = int(encoded.piece[symbol])
        symbol_name = f"byte {codes[symbol]:#04x} (offset {offset:,})"
        if isinstance(text, str) and self.unit != "byte":
            symbol_name = f"{text[offset]!r} (U+{ord(text[offset]):04X}, offset {offset:,})"
        raise UnknownCharacterError(
            f"{symbol_name} is not in the model's vocabulary of {len(self):,} symbols; {advice}"
        )

    def decode(self, ids: Ids) -> str:
        """Return the text of ids; a byte is the character of the same value."""
        if self.unit == "word":
            return tokens.join_digits("".join([self.texts[i] for i in ids.tolist()]))
        codes = self.codes[ids]
        if codes.max(initial=0) >= FIRST_SPECIAL:
            return units.to_text(codes.tolist())
        return codes.tobytes().decode("utf-32-le", "surrogatepass")
