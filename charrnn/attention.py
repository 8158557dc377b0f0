"""Attention with the general score of Luong et al., 2015: every step looks at all source states.

p = softmax(h W s) over the source positions,  z = sum p_i s_i,  output [h; z]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charrnn.arrays import Array, empty_feature_major


@dataclass
class Tape:
    """Every buffer of T steps and S source positions, allocated once; the lane B comes first.

    A lane's steps are then the rows of one product. ``dz`` becomes the gradient of the queries.
    """

    h: Array  # (B, T, H)
    s: Array  # (B, S, D), masked positions are 0
    is_masked: NDArray[np.bool_]  # (B, 1, S)
    q: Array  # (B, T, D), the queries h W
    p: Array  # (B, T, S)
    z: Array  # (B, T, D)
    dh: Array  # (B, T, H)
    ds: Array  # (B, S, D)
    ds_of_z: Array  # (B, S, D)
    da: Array  # (B, T, S), the gradient of the scores
    dz: Array  # (B, T, D)
    out: Array  # (T, H + D, B), feature-major

    def slice(self, T: int, S: int) -> Tape:
        """Return buffers of fewer steps and positions in the same memory, contiguous again.

        Only ``read_source`` of the new tape fills its source.
        """
        (B, _, H), D = self.h.shape, self.s.shape[2]
        shapes = _shapes(T, S, H, D, B)
        views = {
            name: getattr(self, name).reshape(-1)[: math.prod(shape)].reshape(shape)
            for name, shape in shapes.items()
        }
        out = self.out.transpose(1, 0, 2).reshape(-1)[: (H + D) * T * B].reshape(H + D, T, B)
        return Tape(**views, out=out.transpose(1, 0, 2))


def _shapes(T: int, S: int, H: int, D: int, B: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every buffer but ``out``, in the order of ``Tape``."""
    steps, source, pairs = (B, T, D), (B, S, D), (B, T, S)
    shapes = [(B, T, H), source, (B, 1, S), steps, pairs, steps]
    shapes += [(B, T, H), source, source, pairs, steps]
    return dict(zip([f.name for f in fields(Tape)], shapes, strict=False))


def new_tape(T: int, S: int, H: int, D: int, B: int, dtype: DTypeLike) -> Tape:
    """Allocate the buffers of T steps of size H over S source positions of size D, for B lanes."""
    buffers = {
        name: np.empty(shape, np.bool_ if name == "is_masked" else dtype)
        for name, shape in _shapes(T, S, H, D, B).items()
    }
    return Tape(**buffers, out=empty_feature_major(T, H + D, B, dtype))


def read_source(s: Array, valid: NDArray[np.bool_], tape: Tape) -> None:
    """Keep the source states ``s`` (S, D, B) on the tape; ``valid`` (S, B) masks each lane's.

    What stands at a masked position never counts, not even NaN.
    """
    tape.s[:] = s.transpose(2, 0, 1)
    np.logical_not(valid.T, out=tape.is_masked[:, 0])
    tape.s[tape.is_masked[:, 0]] = 0


def forward(W: Array, h: Array, tape: Tape) -> Array:
    """Return [h; z] (T, H + D, B), feature-major, on the tape; W is (H, D), ``h`` (T, H, B).

    ``tape.p`` (B, T, S) is how much each step takes from each position: exactly 0 at a masked one,
    and at all of them where a lane has no source, so that z is 0.
    """
    # scores h W s: the queries of all steps are one product, their scores one for each lane
    H, p = h.shape[1], tape.p
    tape.h[:] = h.transpose(2, 0, 1)
    np.matmul(_rows(tape.h), W, out=_rows(tape.q))
    np.matmul(tape.q, tape.s.swapaxes(1, 2), out=p)

    # softmax; without the maximum exp could overflow, and without a source the maximum is -inf
    np.copyto(p, -np.inf, where=tape.is_masked)
    p -= np.maximum(p.max(-1, keepdims=True), np.finfo(p.dtype).min)
    np.exp(p, out=p)
    p /= np.maximum(p.sum(-1, keepdims=True), 1)  # the largest is exp(0) = 1

    np.matmul(p, tape.s, out=tape.z)
    tape.out[:, :H] = h
    tape.out[:, H:] = tape.z.transpose(1, 2, 0)
    return tape.out


def backward(W: Array, dW: Array, dout: Array, tape: Tape) -> tuple[Array, Array]:
    """Write dW; return dh (T, H, B) and ds (S, D, B), views of the tape, 0 where s is masked.

    ``dout`` (T, H + D, B) is the gradient that arrives at the output.
    """
    # z = p s
    H, dz, da = len(W), tape.dz, tape.da
    dz[:] = dout[:, H:].transpose(2, 0, 1)
    np.matmul(dz, tape.s.swapaxes(1, 2), out=da)  # dp
    np.matmul(tape.p.swapaxes(1, 2), dz, out=tape.ds_of_z)

    # through the softmax: da = p (dp - sum p dp), and the sum is dz z
    da -= np.einsum("btd,btd->bt", dz, tape.z)[..., None]
    da *= tape.p

    # a = q s and q = h W
    dq = dz
    np.matmul(da, tape.s, out=dq)
    np.matmul(da.swapaxes(1, 2), tape.q, out=tape.ds)
    tape.ds += tape.ds_of_z
    np.matmul(_rows(tape.h).T, _rows(dq), out=dW)
    np.matmul(_rows(dq), W.T, out=_rows(tape.dh))
    dh = tape.dh.transpose(1, 2, 0)
    dh += dout[:, :H]
    return dh, tape.ds.transpose(1, 2, 0)


def _rows(a: Array) -> Array:
    """Return a view of (B, T, N) as (B * T, N): the steps of all lanes are the rows of a product.

    Every buffer of the tape is contiguous.
    """
    rows: Array = a.reshape(-1, a.shape[2])
    return rows
