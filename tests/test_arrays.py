import numpy as np

from charrnn.arrays import Flat, Tape, columns, sigmoid


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
    tape = Tape(5, {"h": np.arange(6.0), "a": np.arange(5.0)})
    cut = tape.cut(2, 4)
    assert cut.T == 2
    assert cut["h"].tolist() == [2, 3, 4]
    assert cut["a"].tolist() == [2, 3]
    cut["a"][0] = 7
    assert tape["a"][2] == 7
    assert cut.cut(1, 2)["h"].tolist() == [3, 4]


def test_sigmoid_at_any_input() -> None:
    a = np.array([-1e30, -800.0, -1.0, 0.0, 1.0, 800.0, 1e30])
    sigmoid(a)
    wanted = [0, 0, 1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e), 1, 1]
    np.testing.assert_allclose(a, wanted, rtol=1e-12)


def test_columns_puts_all_steps_and_lanes_side_by_side() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    packed = columns(a)
    assert packed.shape == (3, 8)
    assert packed[1].tolist() == [*a[0, 1], *a[1, 1]]
