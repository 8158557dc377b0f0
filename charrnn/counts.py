"""Counts of n-grams, which predict the next symbol and can learn from it.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman, 1999): for a symbol w after the
history h, with h' as h without its first symbol,

    p(w | h) = (c(h w) - D(c(h w)) + escape(h) p(w | h')) / total(h)
    escape(h) = D1 N1(h) + D2 N2(h) + D3 N3(h)

For the highest order, c counts occurrences; for lower orders, distinct symbols before. total(h) is
its sum over w, Nk(h) the number of w with a count of k (N3: 3 or more). Where total(h) is 0,
p(w | h) = p(w | h'). Below order 1, p = 1 / V. N-grams cross the boundaries of lines and files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

MAX_ORDER = 8  # length of the longest n-grams
MIN_PRUNED_ORDER = 6  # n-grams of this length and longer are kept if they occur twice
MAX_SYMBOL_COUNT = 2**16 - 1  # larger counts become this
CHUNK_SYMBOLS = 2**17  # that are read at a time

Floats = NDArray[np.float64]
Counted = NDArray[np.int32]
Numbers = NDArray[Any]  # of any dtype
Mask = NDArray[np.bool_]


class Stored(NamedTuple):
    """The n-grams of one length as they are stored, sorted by their history and last symbol."""

    symbols: Ids  # the last symbol of each n-gram
    counts: Counted  # of each n-gram
    children: Counted  # for each history, the number of its n-grams
    dropped: Counted  # for each history, the number of its n-grams that were dropped
    discounts: Floats  # (4,), of the counts 0, 1, 2, and 3 or more


class Context(NamedTuple):
    """What is known of the longest history that occurred before each symbol, (n,) each."""

    order: Counted  # its length + 1
    escape: Floats  # the probability that it leaves to the shorter history
    total: Counted
    successors: Counted  # distinct symbols after it


@dataclass
class Level:
    """The n-grams of one length.

    They are numbered: those of the training text in the order of their keys, later ones as they
    come. The key of an n-gram is h V + w for its last symbol w and its history, which is number h
    of the n-grams one shorter.
    """

    keys: Ids  # sorted
    numbers: Counted  # of the keys
    counts: Counted  # of each n-gram, by number
    # of each history, by number
    totals: Counted
    successors: Counted
    escapes: Floats
    discounts: Floats

    @classmethod
    def from_stored(cls, stored: Stored, V: int) -> Level:
        """Return the level, with the sums over each history."""
        symbols, counts, children, dropped, D = stored
        histories, n = np.repeat(np.arange(len(children)), children), len(children)
        return cls(
            keys=histories * V + symbols,
            numbers=np.arange(len(symbols), dtype=np.int32),
            counts=counts,
            totals=(np.bincount(histories, counts, n) + dropped).astype(np.int32),
            successors=children + dropped,
            escapes=np.bincount(histories, D[np.minimum(counts, 3)], n).astype(np.float64)
            + dropped,
            discounts=D,
        )

    def find(self, keys: Ids) -> Ids:
        """Return the number of the n-gram with each key, or -1."""
        at = self.keys.searchsorted(keys)
        is_found = np.append(self.keys, -2)[at] == keys
        return np.where(is_found, np.append(self.numbers, -1)[at], -1)

    def add(self, keys: Ids) -> None:
        """Add n-grams with a count of 0; they get the next numbers."""
        n, at = len(self.counts), self.keys.searchsorted(keys)
        self.numbers = np.insert(self.numbers, at, np.arange(n, n + len(keys), dtype=np.int32))
        self.keys = np.insert(self.keys, at, keys)
        self.counts = _extend(self.counts, len(keys))

    def add_histories(self, n: int) -> None:
        """Add histories without n-grams."""
        self.totals, self.successors = _extend(self.totals, n), _extend(self.successors, n)
        self.escapes = _extend(self.escapes, n)


class Counts:
    """The n-grams of a text, of each length up to ``len(levels)``."""

    def __init__(self, V: int, stored: Sequence[Stored]) -> None:
        self.V, self.levels = V, [Level.from_stored(each, V) for each in stored]

    def copy(self) -> Counts:
        """Return counts that may learn while these stay as they are."""
        return copy.deepcopy(self)

    def predict(
        self, ids: Ids, is_target: Mask, history_lengths: Ids, *, learn: bool
    ) -> tuple[Floats, Context]:
        """Return p of each target given the symbols before it, (n,), and what is known of these.

        ``history_lengths`` (n,) is the number of symbols before each symbol that it may depend on.
        With ``learn`` each target is counted, after it has been predicted.
        """
        chunks = []
        for start in range(0, max(len(ids), 1), CHUNK_SYMBOLS):
            first = max(0, start - len(self.levels))
            chunk = slice(first, start + CHUNK_SYMBOLS)
            is_target_here = is_target[chunk].copy()
            is_target_here[: start - first] = False  # they are histories here
            chunks.append(self._predict(ids[chunk], is_target_here, history_lengths[chunk], learn))
        p = np.concatenate([p for p, _ in chunks])
        contexts = zip(*(context for _, context in chunks), strict=True)
        return p, Context(*(np.concatenate(each) for each in contexts))

    def _predict(
        self, ids: Ids, is_target: Mask, history_lengths: Ids, learn: bool
    ) -> tuple[Floats, Context]:
        # number the n-grams that end at each target, and their histories
        numbered, targets = [], np.flatnonzero(is_target)
        grams: Ids = np.zeros(len(ids), np.int64)
        for n, level in enumerate(self.levels):
            keys, histories = continue_ngrams(n, grams, ids, history_lengths, self.V)
            grams, is_new = level.find(keys), np.zeros(len(ids), bool)
            if learn:
                new = np.flatnonzero((grams < 0) & (keys >= 0) & is_target)
                new_keys, first, inverse = np.unique(keys[new], True, True)
                grams[new] = len(level.counts) + inverse
                is_new[new[first]] = True
                level.add(new_keys)
                for next_level in self.levels[n + 1 : n + 2]:
                    next_level.add_histories(len(new_keys))
            numbered.append((grams[targets], histories[targets], is_new[targets]))

        # interpolate; of the highest order every occurrence counts, below it a new longer n-gram
        p, zeros = np.full(len(targets), 1 / self.V), np.zeros(len(targets), np.int32)
        context = Context(zeros, np.ones(len(p)), zeros.copy(), zeros.copy())
        for n, level in enumerate(self.levels):
            gram, history, _ = numbered[n]
            is_highest, events = n == len(self.levels) - 1, None
            if learn:
                events = (gram >= 0) & (is_highest or numbered[n + 1][2])
            p = interpolate(level, n + 1, gram, history, events, p, context)
        return p, context


def continue_ngrams(n: int, grams: Ids, ids: Ids, history_lengths: Ids, V: int) -> tuple[Ids, Ids]:
    """Return the keys of the n-grams of n + 1 symbols, and the numbers of their histories, or -1.

    ``grams`` are the numbers of the n-grams one shorter that end at each symbol.
    """
    histories = np.append(0 if n == 0 else -1, grams[:-1])[: len(ids)]
    histories[history_lengths < n] = -1
    return np.where(histories >= 0, histories * V + ids, -1), histories


def interpolate(
    level: Level,
    order: int,
    grams: Ids,
    histories: Ids,
    events: Mask | None,
    lower_p: Floats,
    context: Context,
) -> Floats:
    """Return p of each target, (n,), given ``lower_p`` of the order below; update the context.

    Grams and histories are numbers, or -1. The targets where ``events`` is true are counted.
    """
    # as they are before this text; number -1 is the zero at the end
    D, counts = level.discounts, _extend(level.counts, 1)[grams]
    totals, successors = (
        _extend(level.totals, 1)[histories],
        _extend(level.successors, 1)[histories],
    )
    escapes = _extend(level.escapes, 1)[histories]

    # what the text before each target adds, and the text as a whole
    if events is not None:
        counts = counts + _running_sum(events, grams, np.argsort(grams, kind="stable"))
        by_history = np.argsort(histories, kind="stable")
        is_first = events & (counts == 0)
        change = D[np.minimum(counts + 1, 3)] - D[np.minimum(counts, 3)]
        change = np.where(events, change, 0)
        totals = totals + _running_sum(events, histories, by_history)
        successors = successors + _running_sum(is_first, histories, by_history)
        escapes = escapes + _running_sum(change, histories, by_history)
        np.add.at(level.counts, grams[events], 1)
        np.add.at(level.totals, histories[events], 1)
        np.add.at(level.successors, histories[is_first], 1)
        np.add.at(level.escapes, histories[events], change[events])

    seen = totals > 0
    escape = escapes / np.maximum(totals, 1)
    context.order[seen], context.escape[seen] = order, escape[seen]
    context.total[seen], context.successors[seen] = totals[seen], successors[seen]
    p = (counts - D[np.minimum(counts, 3)]) / np.maximum(totals, 1) + escape * lower_p
    return np.where(seen, p, lower_p)


class Reader:
    """Predicts every symbol after the texts of some lanes, which it reads symbol by symbol."""

    def __init__(self, counts: Counts, num_lanes: int) -> None:
        """Start before any symbol. The counts must not learn meanwhile."""
        V, self.V, self.tables = counts.V, counts.V, []
        for level in counts.levels:
            # a history's n-grams are neighbors
            starts = level.keys.searchsorted(np.arange(len(level.totals) + 1) * V)
            histories, symbols = np.divmod(level.keys, V)
            c, totals = level.counts[level.numbers], np.maximum(level.totals, 1)
            gains = (c - level.discounts[np.minimum(c, 3)]) / totals[histories]
            shares = level.escapes / totals
            self.tables.append((starts, symbols, level.numbers, gains, shares, level))
        # for each lane the numbers of its last n symbols, for n = 0, 1, ...
        self.histories = [[0] for _ in range(num_lanes)]

    def read(self, ids: Ids) -> None:
        """Read a symbol of each lane, (B,)."""
        for lane, symbol in enumerate(ids.tolist()):
            histories = [0]
            for (starts, symbols, numbers, *_), h in zip(
                self.tables[:-1], self.histories[lane], strict=False
            ):
                children = symbols[starts[h] : starts[h + 1]]
                at = int(children.searchsorted(symbol))
                if at == len(children) or children[at] != symbol:
                    break  # longer ones are unknown, too
                histories.append(int(numbers[starts[h] + at]))
            self.histories[lane] = histories

    def predict(self) -> tuple[Floats, Context]:
        """Return p of every symbol in every lane, (B, V), and what is known of each lane, (B,)."""
        p, contexts = np.full((len(self.histories), self.V), 1 / self.V), []
        for p_lane, histories in zip(p, self.histories, strict=True):
            context = (0, 1.0, 0, 0)
            for n, h in enumerate(histories):
                starts, symbols, _, gains, shares, level = self.tables[n]
                if level.totals[h]:
                    children = slice(starts[h], starts[h + 1])
                    p_lane *= shares[h]
                    p_lane[symbols[children]] += gains[children]
                    context = n + 1, shares[h], level.totals[h], level.successors[h]
            contexts.append(context)
        return p, Context(*map(np.array, zip(*contexts, strict=True)))


def _running_sum(values: Numbers, groups: Ids, by_group: Ids) -> Numbers:
    """Return for each value the sum of those before it in its group; ``by_group`` sorts them."""
    groups, ordered = groups[by_group], values[by_group]
    sums = np.cumsum(ordered) - ordered
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))[: len(groups)]
    sums -= np.repeat(sums[starts], np.diff(starts, append=len(groups)))
    out = np.empty_like(sums)
    out[by_group] = sums
    return out


def _extend(a: Numbers, n: int) -> Numbers:
    return np.append(a, np.zeros(n, a.dtype))


# --- counting a text ---


class Grams(NamedTuple):
    """The n-grams of one length in a text, sorted."""

    symbols: Ids  # the last symbol of each, in a small dtype
    histories: Counted  # numbers of the n-grams one shorter, by their first symbols
    suffixes: Counted  # the same, by their last symbols
    occurrences: Counted


def number_ngrams(ids: Ids, V: int, max_order: int = MAX_ORDER) -> Iterator[Grams]:
    """Yield the n-grams of a text for n = 1, 2, ... ``max_order``."""
    # sort the positions by their symbol, the symbol after it, ...: equal n-grams are neighbors
    N, dtype = len(ids), np.min_scalar_type(V)  # a small one is fast to sort
    padded = np.append(ids.astype(dtype), np.full(max_order, V, dtype))
    del ids  # may be eight times as large
    columns = [padded[n : N + n] for n in range(max_order)]
    positions = np.lexsort(columns[::-1]).astype(np.int32)
    is_new = np.arange(N) == 0  # in this order
    numbers = np.zeros(N + 1, np.int32)  # of the n-gram that starts at a position
    for n, column in enumerate(columns, 1):
        symbols = column[positions]
        is_new[1:] |= symbols[1:] != symbols[:-1]
        starts = np.flatnonzero(is_new)
        lengths = np.diff(starts, append=N)
        is_inside = positions[starts] <= N - n  # the others reach beyond the end of the text
        lengths, starts = lengths[is_inside], starts[is_inside]
        at = positions[starts]
        histories, suffixes = numbers[at], numbers[at + 1]
        numbers[positions] = np.cumsum(is_new & (positions <= N - n), dtype=np.int32) - 1
        yield Grams(symbols[starts], histories, suffixes, lengths.astype(np.int32))


def prune(all_grams: Sequence[Grams]) -> list[Stored]:
    """Return the n-grams without long ones that occur once; every history keeps its total."""
    stored, is_kept_history = [], np.ones(1, bool)
    for n, (grams, longer) in enumerate(zip_longest(all_grams, all_grams[1:]), 1):
        is_kept = np.full(len(grams.symbols), n < MIN_PRUNED_ORDER) | (grams.occurrences > 1)
        stored.append(to_stored(grams, symbol_counts(grams, longer), is_kept, is_kept_history))
        is_kept_history = is_kept
    return stored


def symbol_counts(grams: Grams, longer: Grams | None) -> Counted:
    """Return c of each n-gram: its occurrences, or the distinct symbols before it."""
    if longer is None:
        return grams.occurrences
    return np.bincount(longer.suffixes, minlength=len(grams.symbols)).astype(np.int32)


def to_stored(grams: Grams, counts: Counted, is_kept: Mask, is_kept_history: Mask) -> Stored:
    """Return the n-grams that are kept."""
    n = len(is_kept_history)
    children = np.bincount(grams.histories[is_kept], minlength=n)
    dropped = np.bincount(grams.histories[~is_kept], minlength=n)
    return Stored(
        grams.symbols[is_kept],
        np.minimum(counts[is_kept], MAX_SYMBOL_COUNT).astype(np.int32),
        children[is_kept_history].astype(np.int32),
        dropped[is_kept_history].astype(np.int32),
        discounts(counts),
    )


def discounts(counts: Numbers) -> Floats:
    """Return the discounts of the counts 0, 1, 2, and 3 or more, (4,).

    Dk = k - (k + 1) Y n(k + 1) / nk, with Y = n1 / (n1 + 2 n2), if nk counts are k (Chen and
    Goodman, 1999). Where this is undefined or not positive, Dk is k / 2: each history must leave
    some probability to the shorter one.
    """
    n = [np.count_nonzero(counts == k) for k in range(5)]
    D = np.arange(4) / 2
    for k in (1, 2, 3):
        if n[1] and n[k]:
            Dk = k - (k + 1) * n[1] / (n[1] + 2 * n[2]) * n[k + 1] / n[k]
            D[k] = Dk if Dk > 0 else D[k]
    return D
