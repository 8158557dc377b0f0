"""Verbatim overlap of a sample with a text: how much of it the model may have memorized."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.text import units
from charrnn.text.corpus import Corpus, EncodedSlice, SymbolStore
from charrnn.text.units import END_OF_DOCUMENT, Codes
from charrnn.text.vocabulary import NEWLINE

CHUNK_SYMBOLS = 1 << 18
COPY_LENGTHS = (20, 40, 80)  # characters: for each, the fraction in copies of at least this length

Lengths = NDArray[np.intp]
Progress = Callable[[int], object]


class SuffixAutomaton:
    """The substrings of a sample as paths through states (Blumer et al., 1985).

    The substrings of one state end at the same positions of the sample, and each is a suffix of
    the longest one. ``link`` is the state of its longest suffix that ends elsewhere too. State 0
    is the empty substring. The automaton of n symbols has at most 2 n states.
    """

    def __init__(self, sample: Iterable[int]) -> None:
        self.next: list[dict[int, int]] = [{}]  # of each state, by symbol
        self.link = [-1]
        self.length = [0]  # of the longest substring of each state
        self.prefixes = [0]  # the states of the prefixes of the sample, the empty one included
        for symbol in sample:
            state = self.prefixes[-1]
            new = self._add_state({}, self.length[state] + 1, 0)
            self.prefixes.append(new)
            while state >= 0 and symbol not in self.next[state]:
                self.next[state][symbol] = new
                state = self.link[state]
            if state >= 0:
                target = self.next[state][symbol]
                if self.length[target] > self.length[state] + 1:
                    target = self._split(target, state, symbol)
                self.link[new] = target

    def _split(self, target: int, state: int, symbol: int) -> int:
        """Move the suffixes of ``state`` and the symbol, which also end here, to a new state."""
        new = self._add_state(self.next[target].copy(), self.length[state] + 1, self.link[target])
        self.link[target] = new
        while state >= 0 and self.next[state].get(symbol) == target:
            self.next[state][symbol] = new
            state = self.link[state]
        return new

    def _add_state(self, following: dict[int, int], length: int, link: int) -> int:
        self.next.append(following)
        self.length.append(length)
        self.link.append(link)
        return len(self.next) - 1

    def match(self, text: EncodedSlice, on_progress: Progress) -> list[int]:
        """Return the length of the longest substring of each state, or its links, in a text."""
        following, link, length = self.next, self.link, self.length
        longest = [0] * len(link)
        state = matched = 0  # the longest substring that ends here in the text
        for start in range(0, len(text), CHUNK_SYMBOLS):
            symbols = text[start : start + CHUNK_SYMBOLS].tolist()
            for symbol in symbols:
                while symbol not in following[state] and state:
                    state = link[state]
                    matched = length[state]
                if symbol in following[state]:
                    state = following[state][symbol]
                    matched += 1
                    if matched > longest[state]:
                        longest[state] = matched
            on_progress(len(symbols))
        # the suffixes of a match are in the text too
        by_length = sorted(range(1, len(link)), key=length.__getitem__)
        for state in reversed(by_length):
            if longest[state]:
                longest[link[state]] = length[link[state]]
        for state in by_length:
            longest[state] = longest[state] or longest[link[state]]
        return longest


def match_lengths(
    sample: Codes, text: EncodedSlice, on_progress: Progress = lambda symbols: None
) -> Lengths:
    """Return the length of the longest match with a text from each position of a sample, (n,).

    ``text`` (see ``code_view``) is read once, in chunks; ``on_progress`` is called with the length
    of each. Time grows with the sum of both lengths, memory with the length of the sample.
    """
    automaton = SuffixAutomaton(sample.tolist())
    longest = np.array(automaton.match(text, on_progress), np.intp)
    # the longest match that ends at a position never starts before the previous one
    starts = np.arange(len(sample) + 1) - longest[automaton.prefixes]
    positions = np.arange(len(sample))
    return np.searchsorted(starts, positions, side="right") - 1 - positions


def code_view(store: SymbolStore, stop: int = sys.maxsize) -> EncodedSlice:
    """Return a store up to ``stop``, as symbols instead of ids."""
    return EncodedSlice(store, store.codes.astype(np.intp), 0, min(stop, len(store)))


def longest_matches(lengths: Lengths, top: int) -> list[tuple[int, int]]:
    """Return position and length of the ``top`` longest matches that do not overlap, longest first.

    Each is as long as it can be in both directions.
    """
    is_start = (lengths > 0) & (lengths >= np.append(0, lengths[:-1]))  # not the tail of another
    starts = np.flatnonzero(is_start)
    free = np.ones(len(lengths), bool)
    chosen: list[tuple[int, int]] = []
    for start in starts[np.argsort(-lengths[starts], kind="stable")].tolist():
        if len(chosen) == top:
            break
        end = start + int(lengths[start])
        if free[start] and free[end - 1]:  # no chosen one is inside: none is shorter
            free[start:end] = False
            chosen.append((start, end - start))
    return chosen


def copied_fraction(lengths: Lengths, min_length: int) -> float:
    """Return the fraction of the sample in matches of at least this length."""
    positions = np.arange(len(lengths))
    ends = np.where(lengths >= min_length, positions + lengths, 0)
    return float((np.maximum.accumulate(ends) > positions).mean())


def find_first(piece: Codes, text: EncodedSlice) -> int:
    """Return the first position of a piece in a text, or -1."""
    wanted, size = piece.astype(np.intp).tobytes(), np.dtype(np.intp).itemsize
    for start in range(0, len(text), CHUNK_SYMBOLS):
        data = text[start : start + CHUNK_SYMBOLS + len(piece) - 1].tobytes()
        at = data.find(wanted)
        while at > 0 and at % size:  # not at the start of a symbol
            at = data.find(wanted, at + 1)
        if at >= 0:
            return start + at // size
    return -1


def locate(text: EncodedSlice, position: int) -> tuple[int, int, int]:
    """Return the document, from 0, the line in it, from 1, and the offset in it of a position."""
    document, line, document_start = 0, 1, 0
    for start in range(0, position, CHUNK_SYMBOLS):
        codes = text[start : min(start + CHUNK_SYMBOLS, position)]
        ends = np.flatnonzero(codes == END_OF_DOCUMENT)
        if len(ends):
            document, line, document_start = document + len(ends), 1, start + int(ends[-1]) + 1
            codes = codes[ends[-1] + 1 :]
        line += int((codes == NEWLINE).sum())
    return document, line, position - document_start


def find_overlap(
    sample: str | bytes, corpus: Corpus, top: int, on_progress: Progress = lambda symbols: None
) -> dict[str, Any]:
    """Return the fraction of a sample copied from a corpus, and its longest copies, as JSON.

    ``corpus`` has the unit char or byte and one document per file: no copy crosses two files.
    Lengths and offsets are in characters (unit byte: in bytes, and the text of a copy has one
    character per byte). The position of a copy is its first one in the corpus.
    """
    codes = units.to_codes(sample, corpus.unit)
    text = code_view(corpus.store)
    lengths = match_lengths(codes, text, on_progress)
    copies = []
    for position, length in longest_matches(lengths, top):
        piece = codes[position : position + length]
        document, line, offset = locate(text, find_first(piece, text))
        source = {"file": corpus.files[document].name, "line": line, "offset": offset}
        copy = {"length": length, "sample_offset": position, **source}
        copies.append(copy | {"text": units.to_text(piece.tolist())})
    return {
        "characters": len(codes),
        "corpus_characters": corpus.characters,
        "copied_fraction": {str(n): copied_fraction(lengths, n) for n in COPY_LENGTHS},
        "copies": copies,
    }
