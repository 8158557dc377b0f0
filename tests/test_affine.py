import numpy as np
import pytest

from charrnn import affine
from charrnn.arrays import Array, empty_feature_major, merge_time_batch
from tests.conftest import assert_close, numeric

T, M, N = 4, 3, 6


def forward(W: Array, b: Array, x: Array, B: int) -> Array:
    out = np.empty((T, M, B))
    affine.forward(W, b, x, empty_feature_major(T, M, B, W.dtype), out)
    return out


def test_gradients_match_central_differences() -> None:
    rng, B = np.random.default_rng(0), 5
    W, b, x = rng.standard_normal((M, N)), rng.standard_normal(M), rng.standard_normal((N, T * B))
    dout = rng.standard_normal((T, M, B))

    def loss() -> float:
        return float((forward(W, b, x, B) * dout).sum())

    dW, db, dx = (np.full_like(a, np.nan) for a in (W, b, x))
    affine.backward(W, dW, db, x, merge_time_batch(dout), dx)
    assert_close(dW, numeric(loss, W))
    assert_close(db, numeric(loss, b))
    assert_close(dx, numeric(loss, x))


def test_product_can_be_computed_in_place() -> None:
    rng, B = np.random.default_rng(0), 5
    W, b, x = rng.standard_normal((M, N)), rng.standard_normal(M), rng.standard_normal((N, T * B))
    out = empty_feature_major(T, M, B, W.dtype)
    affine.forward(W, b, x, out, out)
    assert (out == forward(W, b, x, B)).all()


@pytest.mark.parametrize("B", [1, 5])
@pytest.mark.parametrize("N", [6, affine.MAX_ONE_HOT, affine.MAX_ONE_HOT + 1])
def test_ids_equal_one_hot_columns(N: int, B: int) -> None:
    rng = np.random.default_rng(0)
    W, b, dout = rng.standard_normal((M, N)), rng.standard_normal(M), rng.standard_normal((T, M, B))
    # symbol 3 does not occur: the gradient of its column must be zero, whatever dW was before
    ids = rng.choice([0, 1, 2, 4, 5, N - 1], (T, B))
    x = np.eye(N)[ids.ravel()].T  # (N, T * B)
    ax = np.empty((T, M, B))
    affine.forward_ids(W, b, ids, np.empty_like(W), ax)
    np.testing.assert_allclose(ax, forward(W, b, x, B), rtol=0, atol=1e-12)

    results = []
    for one_hot in (True, False):
        dW, db = np.full_like(W, np.nan), np.full_like(b, np.nan)
        if one_hot:
            affine.backward(W, dW, db, x, merge_time_batch(dout), np.empty_like(x))
        else:
            overwritten, one_hots, scratch = (
                merge_time_batch(dout).copy(),
                np.empty((T * B, N)),
                np.empty((M, T * B)),
            )
            affine.backward_ids(dW, db, ids.ravel(), overwritten, one_hots, scratch)
        assert not dW[:, 3].any()
        results.append((dW, db))
    for product, sums in zip(*results, strict=True):
        np.testing.assert_allclose(sums, product, rtol=0, atol=1e-12)
