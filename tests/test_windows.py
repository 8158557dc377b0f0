import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.windows import Position, lane_length, shrink, windows


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 20))
def test_one_pass_uses_every_pair_and_no_other(N: int, B: int, T: int) -> None:
    B, T = shrink(N, B, T)
    ids = np.arange(N)
    stream = windows(ids, B, T, Position())
    pairs = []
    for w in stream:
        assert w.xs.shape[1] == B
        assert len(w.xs) <= T
        assert (w.ys == w.xs + 1).all()
        pairs += w.xs.ravel().tolist()
        if w.position.epoch:
            break
    assert set(pairs) == set(range(N - 1))
    assert len(pairs) == B * lane_length(N, B)
    assert len(pairs) - (N - 1) < B  # shared pairs, fewer than lanes


def test_lanes_are_contiguous_and_fresh_only_at_the_start() -> None:
    ids = np.arange(101)
    ws = list(itertools.islice(windows(ids, 4, 10, Position()), 6))
    assert [len(w.xs) for w in ws] == [10, 10, 5, 10, 10, 5]
    assert [bool(w.fresh.all()) for w in ws] == [True, False, False, True, False, False]
    assert [w.position for w in ws] == [(0, 10), (0, 20), (1, 0), (1, 10), (1, 20), (2, 0)]
    assert ws[0].xs[0].tolist() == [0, 25, 50, 75]
    for before, after in itertools.pairwise(ws[:3]):
        assert (after.xs[0] == before.xs[-1] + 1).all()
    assert (ws[3].xs == ws[0].xs).all()


@pytest.mark.parametrize("done", [1, 2, 3, 5])
def test_a_position_goes_on_where_it_was(done: int) -> None:
    ids = np.arange(101)
    whole = list(itertools.islice(windows(ids, 4, 10, Position()), 8))
    rest = list(itertools.islice(windows(ids, 4, 10, whole[done - 1].position), 8 - done))
    for a, b in zip(whole[done:], rest, strict=True):
        assert (a.xs == b.xs).all()
        assert (a.ys == b.ys).all()
        assert (a.fresh == b.fresh).all()
        assert a.position == b.position


def test_a_small_text_shrinks_the_lanes_first() -> None:
    assert shrink(100_000, 64, 64) == (64, 64)
    assert shrink(1001, 64, 64) == (15, 64)
    assert shrink(30, 64, 64) == (1, 29)
    assert shrink(2, 64, 64) == (1, 1)
