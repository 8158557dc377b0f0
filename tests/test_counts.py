import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from charrnn import counts
from charrnn.arrays import Ids
from charrnn.counts import Counts, Reader, number_ngrams, prune

Gram = tuple[int, ...]


class Naive:
    """Modified Kneser-Ney from dictionaries; each symbol is counted after its prediction."""

    def __init__(self, train: Gram, order: int, V: int) -> None:
        self.V, self.order = V, order
        occurrences = [
            Counter(train[i : i + k] for i in range(len(train) - k + 1)) for k in range(order + 1)
        ]
        self.seen = set().union(*occurrences)
        self.counts = [Counter(gram[1:] for gram in longer) for longer in occurrences[1:]]
        self.counts.append(occurrences[order])
        self.D = [counts.discounts(np.array([*each.values()])) for each in self.counts]

    def p(self, gram: Gram) -> float:
        if not gram:
            return 1 / self.V
        c, D = self.counts[len(gram)], self.D[len(gram)]
        after = [n for other, n in c.items() if other[:-1] == gram[:-1]]
        if not sum(after):
            return self.p(gram[1:])
        escape = sum(D[min(n, 3)] for n in after)
        return float(c[gram] - D[min(c[gram], 3)] + escape * self.p(gram[1:])) / sum(after)

    def count(self, gram: Gram) -> None:
        """Count the n-grams that end ``gram``, of the highest order."""
        for k in range(1, len(gram) + 1):
            part = gram[len(gram) - k :]
            if k == self.order:
                self.counts[k][part] += 1
            if part not in self.seen and k > 1:
                self.counts[k - 1][part[1:]] += 1
            self.seen.add(part)


def make_counts(train: Ids, V: int, order: int = 8) -> Counts:
    return Counts(V, prune(list(number_ngrams(train, V, order))))


def predict(model: Counts, ids: Ids, context: int, *, learn: bool) -> NDArray[np.float64]:
    positions = np.arange(len(ids))
    return model.predict(ids, positions >= context, positions, learn=learn)[0]


@pytest.mark.parametrize("context", [0, 2, 20])
@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("chunk", [16, 1000])
def test_learning_counts_equal_naive_ones(
    context: int, order: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "CHUNK_SYMBOLS", chunk)
    rng = np.random.default_rng(0)
    ids = rng.choice(6, 400, p=[0.4, 0.2, 0.2, 0.1, 0.06, 0.04])
    train, text = ids[:250], ids[300 - context :]
    naive, wanted = Naive(tuple(train.tolist()), order, 7), []
    text[-30:-10:2] = 6  # not in the training text
    for i in range(context, len(text)):
        gram = tuple(text[max(i - order + 1, 0) : i + 1].tolist())
        wanted.append(naive.p(gram))
        naive.count(gram)
    model = make_counts(train, 7, order)
    np.testing.assert_allclose(predict(model, text, context, learn=True), wanted, rtol=1e-10)


def test_counts_learn_from_one_text_to_the_next() -> None:
    rng = np.random.default_rng(1)
    ids = rng.choice(5, 900, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    train, text = ids[:300], ids[300:]
    whole = predict(make_counts(train, 5), text, 0, learn=True)
    model = make_counts(train, 5)
    first = predict(model, text[:200], 0, learn=True)
    rest = predict(model, text[190:], 10, learn=True)
    np.testing.assert_allclose(np.concatenate([first, rest]), whole, rtol=1e-12)
    static = make_counts(train, 5)
    copied = static.copy()
    predict(copied, text, 0, learn=True)
    again = predict(static, text, 0, learn=False)
    np.testing.assert_array_equal(again, predict(make_counts(train, 5), text, 0, learn=False))
    assert whole.mean() > again.mean()


def of_each_symbol(model: Counts, history: Ids, V: int, *, learn: bool) -> NDArray[np.float64]:
    texts = [np.append(history, w) for w in range(V)]
    return np.array([predict(model.copy(), t, len(history), learn=learn)[0] for t in texts])


@pytest.mark.parametrize("learned", [0, 200])
def test_pruned_counts_sum_to_one(learned: int) -> None:
    rng = np.random.default_rng(2)
    train, V = np.tile(rng.choice(4, 60), 9), 6
    train[rng.choice(len(train), 60)] = 4
    model = make_counts(train, V)
    stored = prune(list(number_ngrams(train, V)))
    assert any(level.dropped.any() for level in stored[5:])
    assert all((level.counts > 1).all() for level in stored[7:])
    text = rng.choice(train, learned)
    if learned:
        predict(model, text, 0, learn=True)
    for start in range(0, 300, 7):
        p = of_each_symbol(model, train[start : start + 9], V, learn=False)
        assert math.isclose(p.sum(), 1, rel_tol=1e-12)
        assert (p > 0).all()


def test_histories_end_where_they_are_cut() -> None:
    ids = np.tile([0, 1, 2, 3], 50)
    model = make_counts(ids, 4)
    lengths = np.array([1, 2, 3, 1, 2, 3])
    text, is_target = np.array([0, 1, 2, 0, 1, 2]), np.ones(6, bool)
    p, context = model.predict(text, is_target, lengths, learn=False)
    assert context.order.tolist() == [1, 2, 3, 2, 2, 3]
    np.testing.assert_array_equal(p[1:3], p[4:6])


def test_reader_predicts_what_the_counts_do() -> None:
    rng = np.random.default_rng(3)
    train, V = np.append(np.tile(rng.choice(4, 50), 6), rng.choice(6, 200)), 7
    model, texts = make_counts(train, V), rng.choice(6, (2, 30))
    texts[0, :20] = train[5:25]
    texts[1, 9] = 6
    reader = Reader(model, 2)
    for t in range(30):
        p, context = reader.predict()
        for lane in (0, 1):
            wanted = of_each_symbol(model, texts[lane, :t], V, learn=False)
            np.testing.assert_allclose(p[lane], wanted, rtol=1e-10)
            positions = np.arange(t + 1)
            parts = model.predict(texts[lane, : t + 1], positions == t, positions, learn=False)[1]
            assert [x[lane] for x in context] == pytest.approx([x[0] for x in parts])
        reader.read(texts[:, t])


def test_empty_text_has_no_predictions() -> None:
    model = make_counts(np.array([0, 1, 0]), 2)
    assert predict(model, np.zeros(0, int), 0, learn=True).shape == (0,)
    assert predict(model, np.array([1, 1, 1]), 0, learn=True)[2] > 0
