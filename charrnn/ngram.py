"""Count models, to tell what a loss is worth: n-grams with interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

ORDER = 6  # of the longest n-grams, if not told otherwise
CHUNK = 2**16  # symbols looked up at a time
Floats = NDArray[np.float64]
Counts = NDArray[np.int32]


def score(train: Ids, texts: Sequence[tuple[Ids, Ids]], V: int, order: int = ORDER) -> Iterator[list[Floats]]:
    """Yield for n = 1, 2, ... ``order`` the loss of each text under the n-grams of ``train``: nats per symbol, (n,).

    Each text is its ids (n,), at least one text in all, and the ids before it, which are only history. Histories cross
    the borders of lines and files: these are models of plain text. Nothing is learned from the texts. The memory that
    is needed is 30 to 60 bytes for each symbol, the fewer the more of it repeats itself, and does not grow with V.

    Interpolated modified Kneser-Ney (Chen and Goodman, 1999): for the symbol w after the history h, and h' without the
    first symbol of h, p(w | h) = (c(h w) - D(c(h w)) + (D1 N1(h) + D2 N2(h) + D3 N3(h)) p(w | h')) / c(h). In the
    model's own order c counts occurrences, in those below how many kinds of symbols stand before; c(h) is its sum over
    w, Nk(h) the number of w with a count of k (N3: 3 or more). Where c(h) is 0, it is p(w | h'); the last is 1 / V.
    """
    gap = np.full(order, V)  # in front of each part: no symbol, and in no n-gram that counts
    parts = [gap, train, *(part for ids, context in texts for part in (gap, context, ids))]
    joined = np.concatenate(parts, dtype=np.min_scalar_type(V), casting="unsafe")  # the smaller, the faster to sort
    N = len(joined) - order + 1  # places: the first is the last of the gap
    last, lengths = len(train), [len(ids) for ids, _ in texts]
    ends = last + 1 + np.cumsum([order + len(context) + len(ids) for ids, context in texts])
    del train, parts  # they may be eight times as large as what was made of them

    def of_texts(a: Counts, before: int = 0) -> Counts:
        return np.concatenate([a[end - n - before : end - before] for end, n in zip(ends, lengths, strict=True)])

    columns = [joined[order - n :][:N] for n in range(1, order + 1)]  # the symbol at each place, the one before, ...
    places = np.lexsort(columns[::-1]).astype(np.int32)  # in this order equal n-grams lie together, for every n
    new = np.arange(N) == 0  # where in this order another one begins
    grams = np.zeros(N, np.int32)  # which n-gram ends at each place: of order 0, the empty one
    p = np.full(sum(lengths), 1 / V)
    known: tuple[Counts, Counts, Counts] | None = None  # of the order below, what _interpolated asks for
    for n, column in enumerate(columns, 1):
        begins = new.copy()
        new[1:] |= (sorted_ := column[places])[1:] != sorted_[:-1]
        histories, history = grams[places[new] - 1], of_texts(grams, 1)  # those one shorter, still
        number = np.cumsum(new, dtype=np.int32)
        number -= 1
        grams[places] = number
        del number, sorted_  # as large as the text, as are the others
        counts = _sums((places >= n) & (places <= last), new)
        if known:
            p = _interpolated(_sums(counts > 0, begins[new]), *known, p)
        known = histories, of_texts(grams), history
        yield np.split(-np.log(_interpolated(counts, *known, p)), np.cumsum(lengths)[:-1])


def _sums(values: NDArray[np.bool_], new: NDArray[np.bool_]) -> Counts:
    """Return how many of the values are true from each place where ``new`` is to the next."""
    upto: Counts = np.cumsum(values, dtype=np.int32)[np.append(new[1:], True)]
    upto[1:] -= upto[:-1].copy()
    return upto


def _interpolated(counts: Counts, histories: Counts, gram: Counts, history: Counts, lower: Floats) -> Floats:
    """Return p of each symbol of the texts, (n,), from ``lower``, that of the order below.

    ``counts`` and ``histories`` are the count of each n-gram and the number of its history; ``gram`` and ``history``
    are, for each symbol of the texts, the number of the n-gram that it ends and that of its history.
    """
    D = discounts(counts)
    asked = np.zeros(histories.max() + 1, bool)  # in a text; what is summed over the others is not needed
    asked[history] = True
    number = np.cumsum(asked, dtype=np.int32) - 1
    used = (counts > 0) & asked[histories]
    c, h = counts[used], number[histories[used]]
    total, freed = (np.bincount(h, w, number[-1] + 1) for w in (c, D[np.minimum(c, 3)]))
    p = np.empty(len(gram))
    for at in range(0, len(p), CHUNK):
        part = slice(at, at + CHUNK)
        c, h = counts[gram[part]], number[history[part]]
        here = (c - D[np.minimum(c, 3)] + freed[h] * lower[part]) / np.maximum(total[h], 1)
        p[part] = np.where(total[h] > 0, here, lower[part])
    return p


def discounts(counts: Counts) -> Floats:
    """Return what is taken from the counts 0, 1, 2, and 3 or more, (4,), as the counts of counts ask for.

    Dk = k - (k + 1) Y n(k + 1) / nk, with Y = n1 / (n1 + 2 n2), if nk counts are k (Chen and Goodman, 1999). Where that
    is not defined, or not positive, half of k is taken: a history must leave something to the shorter one.
    """
    n = [np.count_nonzero(counts == k) for k in range(5)]
    D = np.arange(4) / 2
    for k in (1, 2, 3):
        if n[1] and n[k]:
            found = k - (k + 1) * n[1] / (n[1] + 2 * n[2]) * n[k + 1] / n[k]
            D[k] = found if found > 0 else k / 2
    return D
