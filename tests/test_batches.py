import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.text import batches as windows_module
from charrnn.text.batches import (
    Batch,
    Position,
    batches_per_epoch,
    contiguous_batches,
    document_batches,
    document_ends,
    fit_batch_shape,
    single_lane_batches,
    steps_per_lane,
    warm_up_batches,
)


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 20))
def test_one_epoch_uses_every_pair_and_no_other(N: int, B: int, T: int) -> None:
    B, T = fit_batch_shape(N, B, T)
    ids = np.arange(N)
    stream = contiguous_batches(ids, B, T, Position())
    pairs = []
    for w in stream:
        assert w.xs.shape[1] == B
        assert len(w.xs) <= T
        assert (w.ys == w.xs + 1).all()
        assert w.num_targets == w.ys.size
        pairs += w.xs.ravel().tolist()
        if w.position.epoch:
            break
    assert set(pairs) == set(range(N - 1))
    assert len(pairs) == B * steps_per_lane(N, B)
    assert len(pairs) - (N - 1) < B  # shared pairs, fewer than lanes


def test_lanes_are_contiguous_and_reset_only_at_the_start() -> None:
    ids = np.arange(101)
    ws = list(itertools.islice(contiguous_batches(ids, 4, 10, Position()), 6))
    assert [len(w.xs) for w in ws] == [10, 10, 5, 10, 10, 5]
    assert [bool(w.reset.all()) for w in ws] == [True, False, False, True, False, False]
    assert [w.position for w in ws] == [(0, 10), (0, 20), (1, 0), (1, 10), (1, 20), (2, 0)]
    assert ws[0].xs[0].tolist() == [0, 25, 50, 75]
    for before, after in itertools.pairwise(ws[:3]):
        assert (after.xs[0] == before.xs[-1] + 1).all()
    assert (ws[3].xs == ws[0].xs).all()


def content(batches: Iterable[Batch], n: int) -> list[Any]:
    """Return n batches in a form that can be compared."""
    return [[np.asarray(a).tolist() for a in batch] for batch in itertools.islice(batches, n)]


@pytest.mark.parametrize("done", [1, 2, 3, 5])
def test_batches_resume_at_a_position(done: int) -> None:
    ids = np.arange(101)
    whole = list(itertools.islice(contiguous_batches(ids, 4, 10, Position()), 8))
    rest = contiguous_batches(ids, 4, 10, whole[done - 1].position)
    assert content(rest, 8 - done) == content(whole[done:], 8)


def test_small_text_reduces_the_batch_size_first() -> None:
    assert fit_batch_shape(100_000, 64, 64) == (64, 64)
    assert fit_batch_shape(1001, 64, 64) == (15, 64)
    assert fit_batch_shape(30, 64, 64) == (1, 29)
    assert fit_batch_shape(2, 64, 64) == (1, 1)


def documents(
    ends: Any, B: int, T: int, seed: list[int] | None, at: Position, by_length: bool = True
) -> Iterator[Batch]:
    """Yield batches over positions instead of ids: -1 comes before a document."""
    ids, ends = np.arange(ends[-1]), np.array(ends)
    return document_batches(ids, ends, B, T, at, -1, seed, by_length=by_length)


def one_epoch(
    ends: list[int], B: int, T: int, seed: list[int] | None, by_length: bool = True
) -> list[Batch]:
    n = batches_per_epoch(np.array(ends), B, T)
    return list(itertools.islice(documents(ends, B, T, seed, Position(), by_length), n))


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
)
def test_every_document_is_read_once_from_a_reset_state(
    lengths: list[int], B: int, T: int, shuffled: bool, by_length: bool
) -> None:
    ends = list(itertools.accumulate(lengths))
    seen: list[int] = []
    before = [-9] * B  # the last symbol that each lane read
    for w in one_epoch(ends, B, T, [0, 3] if shuffled else None, by_length):
        assert w.xs.shape == w.ys.shape
        assert w.num_targets == (w.ys >= 0).sum()
        assert 1 <= len(w.xs) <= T
        for lane in range(B):
            ys = w.ys[:, lane]
            real = ys[ys >= 0]
            assert (ys[len(real) :] == -1).all()  # padding comes last
            if not len(real):
                continue
            if w.reset[lane]:
                assert w.xs[0, lane] == -1
                assert real[0] in {0, *ends}
            else:
                assert w.xs[0, lane] == before[lane] == real[0] - 1
            assert (w.xs[1 : len(real), lane] == real[:-1]).all()
            assert not set(real[:-1] + 1) & set(ends)  # no document ends inside
            before[lane] = int(real[-1])
            seen += real.tolist()
    assert sorted(seen) == list(range(ends[-1]))


def test_documents_read_in_parallel_have_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 640)
    ends = np.cumsum(lengths).tolist()
    padded = sum(w.ys.size for w in one_epoch(ends, 64, 64, [0]))
    assert padded < 1.2 * ends[-1]
    rows = lengths.reshape(-1, 64)
    assert 64 * rows.max(1).sum() > 1.8 * ends[-1]  # in their original order, half would be padding


def test_documents_in_random_order_meet_those_of_any_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 640)
    for by_length, wanted in ((True, 1), (False, 15)):
        batches = one_epoch(np.cumsum(lengths).tolist(), 64, 64, [0], by_length)
        spread = [np.std((w.ys >= 0).sum(0)) for w in batches]
        assert abs(np.mean(spread) - wanted) < 4, by_length


def test_order_differs_by_epoch_and_repeats_by_seed() -> None:
    ends = list(range(3, 300, 3))
    n = batches_per_epoch(np.array(ends), 4, 8)
    two, same, other = (
        [batch[1] for batch in content(documents(ends, 4, 8, seed, Position()), 2 * n)]
        for seed in ([1], [1], [2])
    )
    assert two == same
    assert two[:n] != two[n:]
    assert two[:n] != other[:n]


@pytest.mark.parametrize("shard", [7, 1 << 16])
def test_documents_resume_at_a_position(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "SHARD_DOCUMENTS", shard)
    ends = np.cumsum(np.random.default_rng(0).integers(1, 40, 50))
    n = batches_per_epoch(ends, 4, 9)
    whole = list(itertools.islice(documents(ends, 4, 9, [1], Position()), 2 * n))
    for done in (1, 5, n - 1, n, n + 3):
        rest = documents(ends, 4, 9, [1], whole[done - 1].position)
        assert content(rest, 2 * n - done) == content(whole[done:], 2 * n)


def test_document_ends_follow_each_separator() -> None:
    assert document_ends(np.array([1, 0, 2, 0]), 0).tolist() == [2, 4]
    assert document_ends(np.array([1, 0, 2]), 0).tolist() == [2, 3]
    assert document_ends(np.array([], int), 0).tolist() == []
    assert document_ends(np.array([1, 0, 2]), None).tolist() == [3]


def test_warm_up_batches_read_each_stretch_after_its_context() -> None:
    ids, starts, ends = np.arange(100), np.array([10, 40, 70]), np.array([40, 70, 100])
    batches = list(warm_up_batches(ids, starts, ends, 20, 16))
    xs, ys, at = (np.concatenate([getattr(b, a) for b in batches]) for a in ("xs", "ys", "at"))
    # 20 symbols before the first input, or as many as there are
    assert xs[0].tolist() == [0, 19, 49]
    for lane, (start, end) in enumerate(zip(starts, ends, strict=True)):
        is_target = ys[:, lane] >= 0
        targets = list(range(start, end))
        assert ys[is_target, lane].tolist() == at[is_target, lane].tolist() == targets
        assert (xs[is_target, lane] == ys[is_target, lane] - 1).all()
    assert [bool(b.reset.all()) for b in batches] == [True] + [False] * (len(batches) - 1)
    assert sum(b.num_targets for b in batches) == 90


def test_single_lane_reads_every_document_after_the_start() -> None:
    ids, ends = np.arange(10, 21), np.array([7, 7, 11])
    batches = list(single_lane_batches(ids, np.array([1, 2]), ends, 4))
    assert all(len(b.xs) <= 4 for b in batches)
    xs, ys, at = (
        [symbol for b in batches for symbol in getattr(b, name)[:, 0].tolist()]
        for name in ("xs", "ys", "at")
    )
    first, last = list(range(10, 17)), list(range(17, 21))
    assert xs == [1, 2, *first, 1, 2, 1, 2, *last]
    assert ys == [2, *first, -1, 2, -1, 2, *last, -1]
    assert [b.xs[0, 0] for b in batches if b.reset[0]] == [1, 1, 1]
    assert all(y == ids[i] for y, i in zip(ys, at, strict=True) if i >= 0 and y >= 10)


def test_batches_have_the_positions_of_their_targets() -> None:
    ids = np.random.default_rng(0).integers(0, 9, 101)
    contiguous = itertools.islice(contiguous_batches(ids, 4, 10, Position()), 5)
    ends = np.array([30, 31, 101])
    documents = itertools.islice(document_batches(ids, ends, 2, 10, Position(), 0, [1]), 9)
    for batch in itertools.chain(contiguous, documents):
        is_target = batch.ys >= 0
        assert (ids[batch.at[is_target]] == batch.ys[is_target]).all()
