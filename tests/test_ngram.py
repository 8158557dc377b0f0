import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.analysis.ngram import ngram_losses
from charrnn.arrays import Ids
from charrnn.counts import discounts, number_ngrams

Gram = tuple[int, ...]


class Naive:
    """Modified Kneser-Ney from dictionaries, one n-gram at a time."""

    def __init__(self, train: Gram, n: int, V: int) -> None:
        self.V = V
        occurrences = [
            Counter(train[i : i + k] for i in range(len(train) - k + 1)) for k in range(n + 1)
        ]
        self.counts = [Counter(gram[1:] for gram in longer) for longer in occurrences[1:]]
        self.counts.append(occurrences[n])
        self.after: list[dict[Gram, list[int]]] = []
        self.D: list[list[float]] = []
        for counts in self.counts:
            self.after.append(defaultdict(list))
            for gram, c in counts.items():
                self.after[-1][gram[:-1]].append(c)
            n1, n2, n3, n4 = (list(counts.values()).count(c) for c in (1, 2, 3, 4))
            Y = n1 / (n1 + 2 * n2) if n1 else 0
            D1 = 1 - 2 * Y * n2 / n1 if n1 else 0
            D2 = 2 - 3 * Y * n3 / n2 if n2 else 0
            D3 = 3 - 4 * Y * n4 / n3 if n3 else 0
            D = enumerate([D1, D2, D3], 1)
            self.D.append([0, *(Dk if n1 and Dk > 0 else k / 2 for k, Dk in D)])

    def p(self, gram: Gram) -> float:
        k = len(gram)
        if not k:
            return 1 / self.V
        lower, after = self.p(gram[1:]), self.after[k].get(gram[:-1], [])
        if not after:
            return lower
        c, D = self.counts[k][gram], self.D[k]
        return (c - D[min(c, 3)] + sum(D[min(other, 3)] for other in after) * lower) / sum(after)


def compare(train: Ids, texts: list[tuple[Ids, Ids]], V: int, order: int) -> None:
    losses = list(ngram_losses(list(number_ngrams(train, V, order)), texts, V))
    assert len(losses) == order
    for n, each in enumerate(losses, 1):
        naive = Naive(tuple(train.tolist()), n, V)
        for (ids, context), nats in zip(texts, each, strict=True):
            seen, c = (*context.tolist(), *ids.tolist()), len(context)
            grams = [seen[max(i - n + 1, 0) : i + 1] for i in range(c, len(seen))]
            wanted = [-math.log(naive.p(gram)) for gram in grams]
            np.testing.assert_allclose(nats, np.reshape(wanted, len(ids)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("context", [200, 3, 0])
def test_losses_equal_naive_ones(context: int) -> None:
    rng = np.random.default_rng(0)
    ids = rng.choice(8, 1000, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.02, 0.03, 0.0])
    ids[950] = 7  # not in the training split
    val, test = ((ids[a:b], ids[a - context : a]) for a, b in ((700, 800), (900, 1000)))
    compare(ids[:700], [val, test], 8, 6)


@given(st.data(), st.integers(1, 6))
def test_losses_of_texts_of_any_length(data: st.DataObject, order: int) -> None:
    symbols = st.lists(st.integers(0, 3), max_size=8).map(lambda ids: np.array(ids, int))
    train = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=60))
    texts = data.draw(st.lists(st.tuples(symbols, symbols), min_size=1))
    compare(np.array(train), texts, 4, order)


@pytest.mark.parametrize("V", [256, 65_536, 1_114_112])
def test_losses_with_large_vocabulary(V: int) -> None:
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 6, 400) * ((V - 1) // 5)
    compare(ids[:300], [(ids[300:], ids[300:300])], V, 4)


def test_loss_of_only_symbol_is_zero() -> None:
    grams = list(number_ngrams(np.zeros(50, int), 1))
    for losses in ngram_losses(grams, [(np.zeros(9, int), np.zeros(1, int))], 1):
        np.testing.assert_allclose(losses[0], 0, atol=1e-12)


def test_probabilities_sum_to_one_after_every_history() -> None:
    rng = np.random.default_rng(1)
    V = 5
    train = rng.choice(V, 300, p=[0.5, 0.3, 0.15, 0.05, 0])
    histories = [train[i : i + n] for i in (0, 40, 294) for n in range(6)]
    histories += [rng.integers(0, V, 9) for _ in range(50)]
    texts = [(np.array([w]), history) for history in histories for w in range(V)]
    for losses in ngram_losses(list(number_ngrams(train, V)), texts, V):
        p = np.exp(-np.concatenate(losses)).reshape(-1, V)
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
        assert (p > 0).all()


Y = 40 / (40 + 2 * 20)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        (
            np.repeat([0, 1, 2, 3, 4, 5, 6], [9, 40, 20, 12, 6, 3, 100]),
            [0, 1 - 2 * Y / 2, 2 - 3 * Y * 12 / 20, 3 - 4 * Y * 6 / 12],
        ),
        ([], [0, 0.5, 1, 1.5]),  # nothing is counted
        ([2, 2, 3, 4, 9], [0, 0.5, 1, 1.5]),  # no count is 1: Y is undefined
        ([1, 1, 5, 6], [0, 1, 1, 1.5]),
        ([1, 2, 3, 3, 3, 3, 4], [0, 1 / 3, 1, 3 - 1 / 3]),  # D2 would be -2
        ([1, 2, 3, 4, 4, 4], [0, 1 / 3, 1, 1.5]),  # D3 would be -1
    ],
)
def test_discounts_follow_counts_of_counts(counts: list[int], wanted: list[float]) -> None:
    np.testing.assert_allclose(discounts(np.array(counts, np.int32)), wanted)
