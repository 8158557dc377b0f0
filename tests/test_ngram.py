import math
from collections import Counter

import numpy as np
import pytest

from charrnn.ngram import LADDER, ladder


def naive(train: list[int], history: list[int], c: int, n: int, V: int) -> float:
    """Return Witten and Bell's p(c | history) of order n, from dictionaries."""
    if n == 0:
        return 1 / V
    h = tuple(history[len(history) - n + 1 :])
    after = Counter(train[i + n - 1] for i in range(len(train) - n + 1) if tuple(train[i : i + n - 1]) == h)
    lower = naive(train, history, c, n - 1, V)
    if len(h) < n - 1 or not after:
        return lower
    return (after[c] + len(after) * lower) / (after.total() + len(after))


@pytest.mark.parametrize("context", [3, 0])
def test_each_order_is_the_naive_one(context: int) -> None:
    rng = np.random.default_rng(0)
    V = 7
    ids = rng.choice(V, 400, p=[0.4, 0.2, 0.2, 0.1, 0.06, 0.04, 0.0])
    ids[390] = 6  # not in the training part
    train, val = ids[:300], ids[300:]
    losses = ladder(train, val, train[300 - context :], V)
    assert list(losses) == list(LADDER)
    seen = [int(i) for i in ids]
    for n, loss in enumerate(losses.values()):
        wanted = [-math.log(naive(seen[:300], seen[300 - context : i], seen[i], n, V)) for i in range(300, 400)]
        assert loss == pytest.approx(math.fsum(wanted) / 100, rel=1e-12)


def test_a_large_vocabulary_and_a_short_text() -> None:
    V = 1_114_112
    losses = ladder(np.array([0, V - 1]), np.array([V - 1, 5]), np.array([0]), V)
    assert losses["uniform"] == pytest.approx(math.log(V))
    assert all(math.isfinite(x) for x in losses.values())
    assert losses["bigram"] < losses["unigram"] < losses["uniform"]
