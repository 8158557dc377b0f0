import numpy as np
import pytest

from charrnn import affine
from charrnn.vocabulary import Vocabulary
from tests.conftest import assert_close, numeric

T, M, N, B = 4, 3, 6, 5


@pytest.mark.parametrize("ids", [True, False])
def test_gradients_are_those_of_central_differences(ids: bool) -> None:
    rng = np.random.default_rng(0)
    W, b, dout = rng.standard_normal((M, N)), rng.standard_normal(M), rng.standard_normal((T, M, B))
    # symbol 3 never stands there: its column's gradient must be zero, whatever dW held before
    xs = rng.choice([0, 1, 2, 4, 5], (T, B)) if ids else rng.standard_normal((T, N, B))

    def loss() -> float:
        return float((affine.forward(W, b, xs, np.empty((T, M, B))) * dout).sum())

    dW, db = np.full_like(W, np.nan), np.full_like(b, np.nan)
    dxs = affine.backward(W, dW, db, xs, dout, None if ids else np.empty((T, N, B)))
    assert_close(dW, numeric(loss, W))
    assert_close(db, numeric(loss, b))
    if ids:
        assert dxs is None
        assert not dW[:, 3].any()
    else:
        assert dxs is not None
        assert_close(dxs, numeric(loss, xs))


def test_a_gather_is_the_product_with_one_hot_columns() -> None:
    rng = np.random.default_rng(0)
    v = Vocabulary.of("abcdef")
    W, b, xs = rng.standard_normal((M, N)), rng.standard_normal(M), rng.integers(0, N, (T, B))
    one_hot = np.stack([v.one_hot(row).T for row in xs]).astype(np.float64)  # (T, N, B)
    dout = rng.standard_normal((T, M, B))
    results = []
    for x in (xs, one_hot):
        dW, db = np.empty_like(W), np.empty_like(b)
        ax = affine.forward(W, b, x, np.empty((T, M, B)))
        affine.backward(W, dW, db, x, dout)
        results.append((ax, dW, db))
    for gathered, product in zip(*results, strict=True):
        np.testing.assert_allclose(gathered, product, rtol=0, atol=1e-12)
