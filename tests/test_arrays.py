import numpy as np
import pytest

from charrnn.arrays import Flat, Tape, columns, packed, sigmoid


def test_flat_windows_are_views_of_the_vector() -> None:
    flat = Flat({"a": (2, 3), "b": (4,)}, np.float64)
    flat["b"][:] = [1, 2, 3, 4]
    flat["a"][1, 2] = 9
    assert flat.vector.tolist() == [0, 0, 0, 0, 0, 9, 1, 2, 3, 4]
    assert list(flat) == ["a", "b"]
    other = flat.like()
    assert other.vector.dtype == np.float64
    assert not other.vector.any()
    assert other["a"].shape == (2, 3)


def test_tape_cut_keeps_the_row_before_the_first_step() -> None:
    tape = Tape(5, {"h": np.arange(6.0)[:, None]}, {"da": np.arange(5.0)[:, None]}, {"dh": np.zeros(1)})
    cut = tape.cut(2, 4)
    assert cut.T == 2
    assert cut["h"].ravel().tolist() == [2, 3, 4]
    assert cut["da"].ravel().tolist() == [2, 3]
    assert cut["dh"] is tape["dh"]
    cut["da"][0] = 7
    assert tape["da"][2] == 7
    assert cut.cut(1, 2)["h"].ravel().tolist() == [3, 4]
    assert tape.cut(0, 5) is tape


def test_steps_are_views_made_once() -> None:
    tape = Tape(2, {"a": np.arange(6.0).reshape(2, 3, 1)}, {"da": np.zeros((2, 1, 1))}, {"dh": np.zeros((3, 1))})
    (a0, dh0), (a1, dh1) = tape.steps("a", "dh")
    assert a0.ravel().tolist() == [0, 1, 2]
    assert dh0 is dh1 is tape["dh"]
    a1[:] = -1
    assert tape["a"].ravel().tolist() == [0, 1, 2, -1, -1, -1]
    assert tape.steps("a", "dh")[1][0] is a1
    assert len(tape.steps("da")[0]) == 1


def test_sigmoid_at_any_input() -> None:
    a = np.array([-1e30, -800.0, -1.0, 0.0, 1.0, 800.0, 1e30])
    sigmoid(a)
    wanted = [0, 0, 1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e), 1, 1]
    np.testing.assert_allclose(a, wanted, rtol=1e-12)


def test_columns_puts_all_steps_and_lanes_side_by_side() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    side = columns(a)
    assert side.shape == (3, 8)
    assert side[1].tolist() == [*a[0, 1], *a[1, 1]]


@pytest.mark.parametrize("B", [1, 4])
def test_columns_of_what_is_packed_are_a_view_even_of_a_part_of_the_steps(B: int) -> None:
    a = packed(5, 3, B, np.float32)
    assert a.shape == (5, 3, B)
    columns(a)[:] = np.arange(15 * B).reshape(3, 5 * B)
    assert a[2, 1].tolist() == [7 * B + b for b in range(B)]
    columns(a[:2])[2] = -1
    assert (a[:2, 2] == -1).all()
