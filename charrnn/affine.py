"""The affine map between layers, ax = W x + b, for every step of a window; and its backward."""

from __future__ import annotations

import numpy as np

from charrnn.arrays import Array, Ids, columns


def forward(W: Array, b: Array, xs: Array | Ids, out: Array) -> Array:
    """Return W x + b for every step, written to ``out`` (T, M, B).

    W is (M, N), b is (M,). ``xs`` is (T, N, B), or ids (T, B) that stand for one-hot columns of length N.
    """
    if xs.ndim == 2:
        # W times a one-hot column is a column of W: gathering it is the same thing, and faster
        Wb = W + b[:, None]
        for t in range(len(xs)):
            np.take(Wb, xs[t], axis=1, out=out[t], mode="clip")
    else:
        np.matmul(W, xs, out=out)
        out += b[:, None]
    return out


def backward(W: Array, dW: Array, db: Array, xs: Array | Ids, dout: Array, dxs: Array | None = None) -> Array | None:
    """Write dW and db for the gradient ``dout`` (T, M, B), and the gradient of ``xs`` to ``dxs`` if given."""
    flat = columns(dout)
    db[:] = flat.sum(1)
    if xs.ndim == 2:
        # dout times one-hot rows: the columns of dout, sorted by symbol, summed over each symbol's run
        order = np.argsort(xs, axis=None, kind="stable")
        symbols, starts = np.unique(xs.ravel()[order], return_index=True)
        dW[:] = 0
        dW[:, symbols] = np.add.reduceat(np.take(flat, order, axis=1), starts, axis=1)
    else:
        np.matmul(flat, columns(xs).T, out=dW)
    return None if dxs is None else np.matmul(W.T, dout, out=dxs)
