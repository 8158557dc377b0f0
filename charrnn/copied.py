"""What a sample shares with a text word for word, which tells whether a model is only copying."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import units
from charrnn.corpus import Corpus, Part, Store
from charrnn.units import BEYOND, END, Codes
from charrnn.vocabulary import NEWLINE

CHUNK = 1 << 18  # places of the text that are looked at together: what is computed of them stays in the cache
KEY = 62  # bits of a key, which is an integer of 64
SHARES = (20, 40, 80)  # characters

Places = NDArray[np.intp]


def lengths(sample: Codes, text: Part) -> Places:
    """Return how long the longest piece is that begins at each place of the sample and stands in the text, (n,).

    ``text`` holds symbols, as the sample does (see ``symbols``). The suffixes of the sample are sorted (Manber and
    Myers, 1993); the longest match of each place of the text is searched among them, for a chunk of places at a
    time; and what a suffix shares with the text, its neighbours share as far as they are alike. Nothing is taken
    on the word of a hash. Time grows with (N + n) log n, memory with n.
    """
    n = len(sample)
    if not n:
        return np.zeros(0, np.intp)
    index = Index(sample)
    short, long = np.zeros(len(index.names[0]), np.intp), np.zeros(n, np.intp)
    chunk = max(CHUNK, 4 * n)  # a match reaches n places beyond it
    for at in range(0, len(text), chunk):
        index.search(text[at : at + chunk + n + index.q], chunk, short, long)
    # from suffix to suffix, in both directions: the piece shared grows no longer on the way
    for order in (slice(None), slice(None, None, -1)):
        shared = 0
        values: list[int] = []
        for own, alike in zip(long[order].tolist(), [0, *index.alike[order].tolist()], strict=True):
            shared = max(own, min(shared, alike))
            values.append(shared)
        long = np.array(values, np.intp)[order]
    found = short[index.ranks[0][:n] - 1]
    found[index.suffixes] = np.maximum(found[index.suffixes], long)
    return found


class Index:
    """The suffixes of a sample, sorted.

    ``keys`` are q symbols from each place on, packed into a number; the places ``ranks[j]`` are the ranks of the
    q * 2^j symbols from there on, from 1 up (0 at the end), and ``names[j]`` what they are the ranks of: keys, or
    pairs of ranks. ``alike`` is how many symbols each suffix shares with the next one.
    """

    def __init__(self, sample: Codes) -> None:
        alphabet = np.unique(sample)
        self.n, self.other = len(sample), len(alphabet) + 1  # a symbol's number, from 1 up; 0 is the end
        self.bits = self.other.bit_length()
        self.q = max(1, KEY // self.bits)
        self.numbers = np.full(BEYOND, self.other)
        self.numbers[alphabet] = np.arange(1, self.other)
        self.limits = 1 << self.bits * np.arange(self.q)
        self.keys = self.pack(np.pad(self.numbers[sample], (0, self.q)))
        values, reach = self.keys[:-1], self.q
        self.ranks: list[Places] = []
        self.names: list[Places] = []
        while True:
            names, ranks = np.unique(values, return_inverse=True)
            self.names.append(names)
            self.ranks.append(np.append(ranks.reshape(-1) + 1, 0))
            if reach >= self.n:
                break
            values = self.pairs(self.ranks[-1][:-1], np.pad(self.ranks[-1][reach:-1], (0, reach)))
            reach *= 2
        self.suffixes: Places = np.argsort(self.ranks[-1][:-1])
        self.alike = self._alike(self.suffixes[:-1], self.suffixes[1:])

    def pack(self, numbers: Places) -> Places:
        """Return q numbers from each place on as one number, for all places but the last q - 1."""
        keys = np.zeros(len(numbers) - self.q + 1, np.intp)
        for t in range(self.q):
            keys <<= self.bits
            keys |= numbers[t : t + len(keys)]
        return keys

    def pairs(self, first: Places, second: Places) -> Places:
        """Return two ranks as one number."""
        return first * (self.n + 1) + second

    def common(self, a: Places, b: Places) -> Places:
        """Return how many symbols keys have in common before they differ."""
        return self.q - np.searchsorted(self.limits, a ^ b, side="right")

    def _alike(self, a: Places, b: Places) -> Places:
        shared = np.zeros(len(a), np.intp)
        for j in reversed(range(len(self.ranks))):
            same = self.ranks[j][a + shared] == self.ranks[j][b + shared]
            shared += same * (self.q << j)
        return shared + self.common(self.keys[a + shared], self.keys[b + shared])

    def search(self, codes: Places, places: int, short: Places, long: Places) -> None:
        """Find the longest match of each of the first ``places`` of a stretch of text among the suffixes.

        Raise ``short`` for each of the first names to what it shares with the text, q at most, and ``long`` for each
        suffix, sorted, to what it is found to share.
        """
        numbers = np.full(len(codes) + self.n + self.q, self.other)
        numbers[: len(codes)] = self.numbers[codes]
        keys = self.pack(numbers)
        order = np.argsort(keys)
        ordered = keys[order]
        left, right = (np.searchsorted(ordered, self.names[0], side) for side in ("left", "right"))
        for at in (left - 1, left):  # what differs least stands beside it
            beside = ordered[at.clip(0, len(keys) - 1)]
            np.maximum(short, self.common(self.names[0], beside), out=short)

        # the ranks of q, 2 q, 4 q ... symbols of the text, as far as the sample has them, else 0
        count = right - left
        ranks = [np.zeros(len(keys), np.intp)]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        ranks[0][order[np.repeat(left, count) + within]] = np.repeat(np.arange(1, len(left) + 1), count)
        for j, names in enumerate(self.names[1:]):
            first, second = ranks[j][: -(self.q << j)], ranks[j][self.q << j :]
            at = np.flatnonzero((first > 0) & (second > 0))
            pair = self.pairs(first[at], second[at])
            rank = np.searchsorted(names, pair).clip(max=len(names) - 1)
            there = names[rank] == pair
            if not there.any():
                break
            ranks.append(np.zeros(len(keys), np.intp))
            ranks[-1][at[there]] = rank[there] + 1

        # the suffixes from low to high begin with the ``shared`` symbols from ``at`` on
        at = np.flatnonzero(ranks[0][:places])
        shared, low, high = np.zeros_like(at), np.zeros_like(at), np.full_like(at, self.n)
        for j in reversed(range(len(ranks))):
            rank = ranks[j][at + shared]
            here = np.flatnonzero(rank)
            rank, l, h, s = rank[here], low[here], high[here], shared[here]
            l, h = self._bisect(self.ranks[j], l, h, s, rank), self._bisect(self.ranks[j], l, h, s, rank + 1)
            some = l < h
            here = here[some]
            low[here], high[here] = l[some], h[some]
            shared[here] += self.q << j
        key = keys[at + shared]
        place = self._bisect(self.keys, low, high, shared, key)
        for beside in (place - 1, place):
            inside = (beside >= low) & (beside < high)
            suffix, s = beside[inside], shared[inside]
            np.maximum.at(long, suffix, s + self.common(self.keys[self.suffixes[suffix] + s], key[inside]))

    def _bisect(self, values: Places, low: Places, high: Places, shared: Places, wanted: Places) -> Places:
        """Return the first suffix from low to high whose value, ``shared`` symbols on, is not below the one wanted."""
        low, high = low.copy(), high.copy()
        while len(active := np.flatnonzero(low < high)):
            middle = (low[active] + high[active]) // 2
            below = values[self.suffixes[middle] + shared[active]] < wanted[active]
            low[active[below]] = middle[below] + 1
            high[active[~below]] = middle[~below]
        return low


def symbols(store: Store, stop: int | None = None) -> Part:
    """Return the symbols of a store, up to a place: what ``lengths`` compares with."""
    return Part(store, store.codes.astype(np.intp), 0, len(store) if stop is None else min(stop, len(store)))


def pieces(found: Places, top: int) -> list[tuple[int, int]]:
    """Return the longest of the pieces shared, as place in the sample and length, longest first.

    Each is as long as it can be in both directions, and none overlaps one before it in the list.
    """
    before = np.append(0, found[:-1])
    at = np.flatnonzero((found > 0) & (found >= before))  # the others are the tail of the one before
    free = np.ones(len(found), bool)
    chosen: list[tuple[int, int]] = []
    for start in at[np.argsort(-found[at], kind="stable")].tolist():
        length = int(found[start])
        if len(chosen) == top:
            break
        if free[start] and free[start + length - 1]:  # those chosen are no shorter: none lies between
            free[start : start + length] = False
            chosen.append((start, length))
    return chosen


def share(found: Places, length: int) -> float:
    """Return the share of the sample that lies in pieces shared of this length or more."""
    ends = np.where(found >= length, np.arange(len(found)) + found, 0)
    return float((np.maximum.accumulate(ends) > np.arange(len(found))).mean())


def first(piece: Codes, text: Part) -> int:
    """Return where a piece stands in the text first; -1 if it does not."""
    wanted, size = piece.astype(np.intp).tobytes(), np.dtype(np.intp).itemsize
    for start in range(0, len(text), CHUNK):
        data, at = text[start : start + CHUNK + len(piece) - 1].tobytes(), -1
        while (at := data.find(wanted, at + 1)) >= 0:
            if at % size == 0:
                return start + at // size
    return -1


def place(text: Part, at: int) -> tuple[int, int, int]:
    """Return which document a place of the text lies in, from 0, its line there, from 1, and its offset there."""
    document = begin = 0
    line = 1
    for start in range(0, at, CHUNK):
        codes = text[start : min(start + CHUNK, at)]
        ends = np.flatnonzero(codes == END)
        if len(ends):
            document, line, begin = document + len(ends), 1, start + int(ends[-1]) + 1
            codes = codes[ends[-1] + 1 :]
        line += int((codes == NEWLINE).sum())
    return document, line, at - begin


def compare(sample: str | bytes, corpus: Corpus, top: int) -> dict[str, Any]:
    """Return what a sample shares with a corpus, as JSON can hold it.

    ``corpus`` is of characters or bytes, ``by="file"``: a piece lies in one file. Lengths, places in the sample and
    offsets are in characters (in bytes, of a corpus of bytes, whose pieces are told as the characters of the same
    numbers); the place is the first in the corpus.
    """
    codes = units.encode(sample, corpus.unit)
    text = symbols(corpus.store)
    found = lengths(codes, text)
    copies = []
    for at, length in pieces(found, top):
        piece = codes[at : at + length]
        document, line, offset = place(text, first(piece, text))
        copies.append(
            {
                "length": length,
                "at": at,
                "file": corpus.files[document][0],
                "line": line,
                "offset": offset,
                "text": units.decode(piece.tolist()),
            }
        )
    return {
        "characters": len(codes),
        "corpus": corpus.characters,
        "shares": {str(length): share(found, length) for length in SHARES},
        "copies": copies,
    }
