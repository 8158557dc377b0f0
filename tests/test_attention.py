"""Attention over a masked source, in float64 against central differences and the plain formula."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from charrnn import attention
from charrnn.arrays import Array, merge_time_batch
from tests.conftest import assert_close, numeric

T, S, H, B = 4, 6, 5, 3
VALID = np.arange(S)[:, None] < [6, 1, 3]  # lengths of the lanes' sources


class Case(NamedTuple):
    W: Array
    h: Array
    s: Array
    dout: Array
    valid: NDArray[np.bool_] = VALID

    def forward(self, fill: float = 0.0) -> tuple[Array, attention.Tape]:
        """Return the output and the tape, whose buffers held ``fill`` before."""
        (S, D, B), (T, H, _) = self.s.shape, self.h.shape
        tape = attention.new_tape(T, S, H, D, B, self.W.dtype)
        for buffer in vars(tape).values():
            buffer[...] = fill
        attention.read_source(self.s, self.valid, tape)
        return attention.forward(self.W, self.h, tape), tape

    def loss(self) -> float:
        return float((self.forward()[0] * self.dout).sum())

    def gradients(self, fill: float = 0.0) -> tuple[Array, Array, Array]:
        """Return dW, dh and ds."""
        dW = np.full_like(self.W, fill)
        dh, ds = attention.backward(self.W, dW, self.dout, self.forward(fill)[1])
        return dW, dh, ds

    def lane(self, b: int) -> Case:
        arrays = (a[..., [b]] for a in (self.h, self.s, self.dout, self.valid))
        return Case(self.W, *arrays)  # type: ignore[arg-type]


@pytest.fixture(params=[H, 2, 8])
def case(request: pytest.FixtureRequest) -> Case:
    """Random states, and a source of the same size, a smaller or a larger one."""
    r, D = np.random.default_rng(1).standard_normal, request.param
    return Case(r((H, D)), r((T, H, B)), r((S, D, B)), r((T, H + D, B)))


def test_output_matches_the_formula(case: Case) -> None:
    out, tape = case.forward()
    assert np.shares_memory(merge_time_batch(out), tape.out)
    for b in range(B):
        s = case.s[case.valid[:, b], :, b]  # (n, D)
        for t in range(T):
            h = case.h[t, :, b]
            p = np.exp(h @ case.W @ s.T)
            p /= p.sum()
            np.testing.assert_allclose(tape.p[b, t, : len(s)], p, rtol=0, atol=1e-12)
            np.testing.assert_allclose(out[t, :, b], [*h, *(p @ s)], rtol=0, atol=1e-12)


def test_gradients_match_central_differences(case: Case) -> None:
    dW, dh, ds = case.gradients()
    assert_close(dW, numeric(case.loss, case.W))
    assert_close(dh, numeric(case.loss, case.h))
    assert_close(ds, numeric(case.loss, case.s))


@pytest.mark.parametrize("case", [H], indirect=True)
def test_states_of_the_same_network_get_both_gradients(case: Case) -> None:
    # a network that attends to its own first states: h and s are the same memory
    same = Case(case.W, case.h, case.h[:3], case.dout, VALID[:3])
    _, dh, ds = same.gradients()
    total = dh.copy()
    total[:3] += ds
    assert_close(total, numeric(same.loss, case.h))


def test_batch_matches_each_lane_alone(case: Case) -> None:
    dW, dh, ds = case.gradients()
    total = np.zeros_like(dW)
    for b in range(B):
        dW_lane, dh_lane, ds_lane = case.lane(b).gradients()
        np.testing.assert_allclose(dh_lane, dh[..., [b]], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ds_lane, ds[..., [b]], rtol=0, atol=1e-12)
        total += dW_lane
    np.testing.assert_allclose(total, dW, rtol=0, atol=1e-12)


def test_masked_positions_are_exactly_zero_whatever_stands_there(case: Case) -> None:
    dW, dh, ds = (a.copy() for a in case.gradients())
    p = case.forward()[1].p
    assert not p.transpose(2, 0, 1)[~VALID].any()
    assert not ds.transpose(0, 2, 1)[~VALID].any()
    case.s.transpose(0, 2, 1)[~VALID] = np.nan
    for before, after in zip((dW, dh, ds), case.gradients(), strict=True):
        assert (before == after).all()


def test_lane_without_a_source_gets_zeros(case: Case) -> None:
    empty = case._replace(valid=VALID & np.array([True, False, True]))
    out, tape = empty.forward()
    assert not tape.p[1].any()
    assert not out[:, H:, 1].any()
    dW, dh, ds = empty.gradients()
    assert np.isfinite(dW).all()
    assert (dh[..., 1] == case.dout[:, :H, 1]).all()
    assert not ds[..., 1].any()


def test_used_tape_changes_nothing(case: Case) -> None:
    for clean, dirty in zip(case.gradients(), case.gradients(np.nan), strict=True):
        assert (clean == dirty).all()


def test_slice_of_a_larger_tape_gives_the_same(case: Case) -> None:
    D = case.W.shape[1]
    large = attention.new_tape(T + 3, S + 2, H, D, B, np.float64)
    for t, s in ((T, S), (2, 3)):
        part = Case(case.W, case.h[:t], case.s[:s], case.dout[:t], VALID[:s])
        tape = large.slice(t, s)
        attention.read_source(part.s, part.valid, tape)
        out = attention.forward(part.W, part.h, tape)
        assert np.shares_memory(merge_time_batch(out), large.out)
        assert (out == part.forward()[0]).all()
        dW = np.empty_like(part.W)
        dh, ds = attention.backward(part.W, dW, part.dout, tape)
        for got, wanted in zip((dW, dh, ds), part.gradients(), strict=True):
            assert (got == wanted).all()


def test_steps_one_by_one_match_all_at_once(case: Case) -> None:
    # as a text is written: the source is read once
    out, D = case.forward()[0], case.W.shape[1]
    tape = attention.new_tape(1, S, H, D, B, np.float64)
    attention.read_source(case.s, VALID, tape)
    for t in range(T):
        step = attention.forward(case.W, case.h[[t]], tape)
        np.testing.assert_allclose(step[0], out[t], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_do_not_overflow(case: Case, dtype: type) -> None:
    W, h, s, dout = (1e4 * a.astype(dtype) for a in case[:4])
    large = Case(W, h, s, dout)
    out, tape = large.forward()
    assert out.dtype == dtype
    np.testing.assert_allclose(tape.p.sum(-1), 1, rtol=1e-5)
    assert all(a.dtype == dtype and np.isfinite(a).all() for a in large.gradients())


def test_float32_is_close_to_float64(case: Case) -> None:
    W, h, s, dout = (a.astype(np.float32) for a in case[:4])
    single = Case(W, h, s, dout)
    for got, wanted in zip(single.gradients(), case.gradients(), strict=True):
        assert_close(got.astype(np.float64), wanted, 1e-5)


def test_inputs_are_not_changed(case: Case) -> None:
    before = [a.copy() for a in case]
    case.gradients()
    assert all((a == b).all() for a, b in zip(before, case, strict=True))
