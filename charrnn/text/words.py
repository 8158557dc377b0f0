"""A corpus as words: counting them, and encoding it with a vocabulary, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charrnn.text import tokens
from charrnn.text.corpus import SymbolStore
from charrnn.text.units import END_OF_DOCUMENT
from charrnn.text.vocabulary import NEWLINE, Vocabulary

SPACE = ord(" ")


def read_tokens(store: SymbolStore, start: int, stop: int) -> Iterator[list[str]]:
    """Yield the tokens of a part of a store of characters; the end of a document is an empty one.

    They do not depend on the chunks in which the store is read.
    """
    rest = ""  # the last token of a chunk, which may continue in the next
    for indices in store.chunks(start, stop):
        codes, chunk = store.codes[indices], list[str]()
        for i, part in enumerate(np.split(codes, np.flatnonzero(codes == END_OF_DOCUMENT))):
            if i:
                chunk.append("")
            text = part[min(i, 1) :].tobytes().decode("utf-32-le", "surrogatepass")
            chunk += tokens.split_tokens(rest + text)
            rest = ""
        if chunk and chunk[-1]:
            rest = chunk.pop()
        yield chunk
    yield [rest] if rest else []


def next_word(store: SymbolStore, offset: int) -> int:
    """Return the offset after the next space or newline, if one is near, so that no word is cut."""
    codes = store.codes[store[offset - 1 : offset + tokens.MAX_TOKEN_CHARACTERS]]
    return offset + int(np.isin(codes, [NEWLINE, SPACE]).argmax())  # 0 if there is none


def count_words(store: SymbolStore, stop: int) -> tuple[Counter[str], int]:
    """Return what ``tokens.count_tokens`` does, for the tokens before an offset."""
    return tokens.count_tokens(read_tokens(store, 0, stop))


def encode_store(
    store: SymbolStore, vocabulary: Vocabulary, bounds: Sequence[int]
) -> tuple[SymbolStore, NDArray[np.intp], list[int]]:
    """Return the symbols of a corpus as a vocabulary has them.

    That is a store, the id of each of its indices, and the offsets there of ``bounds``, which begin
    with 0. Only the unit word needs another store. Its tokens end at every bound; what comes after
    the last is left out.
    """
    if vocabulary.unit != "word":
        return store, vocabulary.ids_of(store.codes), list(bounds)
    temp_dir = None if store.temp_dir is None else Path(store.temp_dir)
    encoded, offsets = SymbolStore(temp_dir), [0]
    for start, stop in pairwise(bounds):
        for chunk in read_tokens(store, start, stop):
            ids, _ = vocabulary.encode_tokens(chunk)
            encoded.append(ids.astype(np.uint32))
        offsets.append(len(encoded))
    encoded.finalize()
    return encoded, encoded.codes.astype(np.intp), offsets
