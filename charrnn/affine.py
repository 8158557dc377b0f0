"""The affine map between layers, W x + b, for all columns of a window at once; and its backward."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids, columns

FEW = 128  # up to that many symbols, a product with one-hot columns is faster than sorting them


def forward(W: Array, b: Array, x: Array, product: Array, out: Array) -> None:
    """Write W x + b to ``out`` (T, M, B).

    W is (M, N), b is (M,), ``x`` is (N, T * B). The product is made in ``product`` (T, M, B), which is packed and may
    be ``out``.
    """
    np.matmul(W, x, out=columns(product))
    np.add(product, b[:, None], out=out)


def backward(W: Array, dW: Array, db: Array, x: Array, dout: Array, dx: Array) -> None:
    """Write dW and db for the gradient ``dout`` (M, n), and the gradient of ``x`` to ``dx``, both (N, n)."""
    np.add.reduce(dout, axis=1, out=db)
    np.matmul(dout, x.T, out=dW)
    np.matmul(W.T, dout, out=dx)


def forward_ids(W: Array, b: Array, xs: Ids, Wb: Array, out: Array) -> None:
    """Write W x + b to ``out`` (T, M, B), where ``xs`` (T, B) are ids that stand for one-hot columns x.

    W times a one-hot column is a column of W. ``Wb`` (M, N) becomes W + b.
    """
    np.add(W, b[:, None], out=Wb)
    if xs.shape[1] == 1:
        out[..., 0] = Wb.T[xs[:, 0]]  # a lane alone: all steps in one call
    else:
        for x, row in zip(xs, out, strict=True):
            np.take(Wb, x, axis=1, out=row, mode="clip")


def backward_ids(dW: Array, db: Array, xs: Ids, dout: Array, one_hot: Array, scratch: Array) -> None:
    """Write dW and db for the gradient ``dout`` (M, n), which is spent; ``xs`` (n,) are ids.

    ``one_hot`` is a scratch (n, N), used up to ``FEW`` symbols, and ``scratch`` is another (M, n), used beyond.
    """
    np.add.reduce(dout, axis=1, out=db)
    if dW.shape[1] <= FEW:
        one_hot[:] = 0
        one_hot[np.arange(len(xs)), xs] = 1
        np.matmul(dout, one_hot, out=dW)
        return
    # the same sums: the columns of dout, sorted by symbol, added up over each symbol's run
    order = np.argsort(xs, kind="stable")
    symbols = xs[order]
    starts = np.append(0, np.flatnonzero(symbols[1:] != symbols[:-1]) + 1)
    np.take(dout, order, axis=1, out=scratch, mode="clip")
    dW[:] = 0
    dW[:, symbols[starts]] = np.add.reduceat(scratch, starts, axis=1, out=dout[:, : len(starts)])
