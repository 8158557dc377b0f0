"""Baselines: n-gram models with interpolated modified Kneser-Ney smoothing; see ``counts``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np

from charrnn import counts
from charrnn.arrays import Ids
from charrnn.counts import Context, Floats, Grams, Level


def ngram_losses(
    all_grams: Sequence[Grams], texts: Sequence[tuple[Ids, Ids]], V: int
) -> Iterator[list[Floats]]:
    """Yield the loss of each text under the n-grams of a training text, for n = 1, 2, ...

    Each text, at least one, is its ids (n,) and its context, the ids before it, which have no loss.
    The losses (n,) are in nats per symbol.
    """
    # join the texts
    ids = np.concatenate([piece for text, context in texts for piece in (context, text)])
    lengths = [len(text) for text, _ in texts]
    is_target = np.concatenate([np.arange(len(c) + len(t)) >= len(c) for t, c in texts])
    history_lengths = np.concatenate([np.arange(len(c) + len(t)) for t, c in texts])
    targets = np.flatnonzero(is_target)

    # the model of n-grams ends the interpolation of the shorter ones with occurrences
    grams: Ids = np.zeros(len(ids), np.int64)
    p, zeros = np.full(len(targets), 1 / V), np.zeros(len(targets), np.int32)
    unused = Context(zeros, np.zeros(len(targets)), zeros, zeros)
    is_history = np.ones(1, bool)
    for n, (each, longer) in enumerate(zip_longest(all_grams, all_grams[1:])):
        keys, histories = counts.continue_ngrams(n, grams, ids, history_lengths, V)
        is_kept = np.ones(len(each.symbols), bool)
        highest, lower = (
            Level.from_stored(counts.to_stored(each, c, is_kept, is_history), V)
            for c in (each.occurrences, counts.symbol_counts(each, longer))
        )
        grams, is_history = highest.find(keys), is_kept
        here = n + 1, grams[targets], histories[targets], None, p, unused
        yield np.split(-np.log(counts.interpolate(highest, *here)), np.cumsum(lengths)[:-1])
        p = counts.interpolate(lower, *here)
