"""Baselines: n-gram models with interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids

MAX_ORDER = 6  # the default for the longest n-grams
CHUNK_SYMBOLS = 2**16
Floats = NDArray[np.float64]
Counts = NDArray[np.int32]


def ngram_losses(
    train: Ids, texts: Sequence[tuple[Ids, Ids]], V: int, order: int = MAX_ORDER
) -> Iterator[list[Floats]]:
    """Yield the loss of each text under the n-grams of ``train``, for n = 1, 2, ... ``order``.

    Each text, at least one, is its ids (n,) and its context, the ids before it, which have no loss.
    The losses (n,) are in nats per symbol. N-grams cross the boundaries of lines and files. Memory
    is 30 to 60 bytes per symbol of training and texts, and does not depend on V.

    Interpolated modified Kneser-Ney (Chen and Goodman, 1999): for a symbol w after the history h,
    with h' as h without its first symbol,

        p(w | h) = (c(h w) - D(c(h w)) + (D1 N1(h) + D2 N2(h) + D3 N3(h)) p(w | h')) / c(h)

    For the highest order, c counts occurrences; for lower orders, distinct symbols before. c(h) is
    its sum over w, Nk(h) the number of w with a count of k (N3: 3 or more). Where c(h) is 0,
    p(w | h) = p(w | h'). Below order 1, p = 1 / V.
    """
    # join all symbols, each stretch after padding, whose n-grams are not counted
    padding = np.full(order, V)
    chunks = [padding, train]
    chunks += [chunk for ids, context in texts for chunk in (padding, context, ids)]
    # a small dtype is faster to sort
    joined = np.concatenate(chunks, dtype=np.min_scalar_type(V), casting="unsafe")
    num_positions = len(joined) - order + 1  # the first one is the last of the padding
    last, lengths = len(train), [len(ids) for ids, _ in texts]
    text_ends = last + 1 + np.cumsum([order + len(context) + len(ids) for ids, context in texts])
    del train, chunks  # they may be eight times as large as ``joined``

    def of_texts(values: Counts, before: int = 0) -> Counts:
        ends = text_ends - before
        return np.concatenate([values[end - n : end] for end, n in zip(ends, lengths, strict=True)])

    # sort the positions by their symbol, the symbol before it, ...: equal n-grams are neighbors
    columns = [joined[order - n :][:num_positions] for n in range(1, order + 1)]
    positions = np.lexsort(columns[::-1]).astype(np.int32)
    is_new = np.arange(num_positions) == 0  # in this order
    grams = np.zeros(num_positions, np.int32)  # the index of the n-gram that ends at a position
    p = np.full(sum(lengths), 1 / V)
    lower_order: tuple[Counts, Counts, Counts] | None = None
    for n, column in enumerate(columns, 1):
        # number the n-grams
        starts = is_new.copy()  # of the n-grams one shorter
        symbols = column[positions]
        is_new[1:] |= symbols[1:] != symbols[:-1]
        histories, text_histories = grams[positions[is_new] - 1], of_texts(grams, 1)
        indices = np.cumsum(is_new, dtype=np.int32)
        indices -= 1
        grams[positions] = indices
        del indices, symbols  # each is as large as the text

        # count them, and for the order below the distinct symbols before
        counts = _count((positions >= n) & (positions <= last), is_new)
        if lower_order:
            p = _interpolate(_count(counts > 0, starts[is_new]), *lower_order, p)
        lower_order = histories, of_texts(grams), text_histories
        yield np.split(-np.log(_interpolate(counts, *lower_order, p)), np.cumsum(lengths)[:-1])


def _count(values: NDArray[np.bool_], starts: NDArray[np.bool_]) -> Counts:
    """Return the number of true values from each start to the next."""
    sums: Counts = np.cumsum(values, dtype=np.int32)[np.append(starts[1:], True)]
    sums[1:] -= sums[:-1].copy()
    return sums


def _interpolate(
    counts: Counts, histories: Counts, text_grams: Counts, text_histories: Counts, lower_p: Floats
) -> Floats:
    """Return p of each symbol of the texts, (n,), given ``lower_p`` of the order below.

    ``counts`` and ``histories`` are given for each n-gram; ``text_grams`` and ``text_histories``
    are the n-gram that each symbol of the texts ends, and its history. Both are given by index.
    """
    D = discounts(counts)
    needed = np.zeros(histories.max() + 1, bool)  # the histories in the texts
    needed[text_histories] = True
    index = np.cumsum(needed, dtype=np.int32) - 1
    used = (counts > 0) & needed[histories]
    c, h = counts[used], index[histories[used]]
    total = np.bincount(h, c, index[-1] + 1)
    backoff_mass = np.bincount(h, D[np.minimum(c, 3)], index[-1] + 1)
    p = np.empty(len(text_grams))
    for start in range(0, len(p), CHUNK_SYMBOLS):
        chunk = slice(start, start + CHUNK_SYMBOLS)
        c, h = counts[text_grams[chunk]], index[text_histories[chunk]]
        p_here = c - D[np.minimum(c, 3)] + backoff_mass[h] * lower_p[chunk]
        p[chunk] = np.where(total[h] > 0, p_here / np.maximum(total[h], 1), lower_p[chunk])
    return p


def discounts(counts: Counts) -> Floats:
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
