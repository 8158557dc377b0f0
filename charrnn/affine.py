"""The affine map between layers, W x + b, for all columns of a batch at once; and its backward."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids, merge_time_batch

MAX_ONE_HOT = 128  # symbols up to which a product with one-hot columns is faster than sorting


def forward(W: Array, b: Array, x: Array, product: Array, out: Array) -> None:
    """Write W x + b to ``out`` (T, M, B).

    W is (M, N), b is (M,), ``x`` is (N, T * B). The product is computed in ``product`` (T, M, B),
    which is feature-major and may be ``out``.
    """
    np.matmul(W, x, out=merge_time_batch(product))
    np.add(product, b[:, None], out=out)


def backward(W: Array, dW: Array, db: Array, x: Array, dout: Array, dx: Array) -> None:
    """Write dW, db and dx (N, n), given ``x`` (N, n) and the gradient ``dout`` (M, n)."""
    np.add.reduce(dout, axis=1, out=db)
    np.matmul(dout, x.T, out=dW)
    np.matmul(W.T, dout, out=dx)


def forward_ids(W: Array, b: Array, xs: Ids, W_plus_b: Array, out: Array) -> None:
    """Write W x + b to ``out`` (T, M, B), where x are the one-hot columns of the ids ``xs`` (T, B).

    W times a one-hot column is a column of W. ``W_plus_b`` (M, N) becomes W + b.
    """
    np.add(W, b[:, None], out=W_plus_b)
    if xs.shape[1] == 1:
        out[..., 0] = W_plus_b.T[xs[:, 0]]  # a single lane: all steps in one call
    else:
        for x, row in zip(xs, out, strict=True):
            np.take(W_plus_b, x, axis=1, out=row, mode="clip")


def backward_ids(
    dW: Array, db: Array, xs: Ids, dout: Array, one_hot: Array, scratch: Array
) -> None:
    """Write dW and db for the gradient ``dout`` (M, n), which is overwritten; ``xs`` (n,) are ids.

    ``one_hot`` (n, N) is scratch for up to ``MAX_ONE_HOT`` symbols, ``scratch`` (M, n) beyond.
    """
    if dW.shape[1] <= MAX_ONE_HOT:
        one_hot[:] = 0
        one_hot[np.arange(len(xs)), xs] = 1
        np.matmul(dout, one_hot, out=dW)
        np.add.reduce(dW, axis=1, out=db)  # every column of dout is in one column of dW
        return
    np.add.reduce(dout, axis=1, out=db)
    # the same sums: the columns of dout, sorted by symbol, added over each symbol's run
    order = np.argsort(xs, kind="stable")
    symbols = xs[order]
    starts = np.append(0, np.flatnonzero(symbols[1:] != symbols[:-1]) + 1)
    np.take(dout, order, axis=1, out=scratch, mode="clip")
    dW[:] = 0
    dW[:, symbols[starts]] = np.add.reduceat(scratch, starts, axis=1, out=dout[:, : len(starts)])
