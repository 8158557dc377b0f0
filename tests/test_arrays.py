import numpy as np
import pytest

from charrnn.arrays import (
    Array,
    Parameters,
    empty_feature_major,
    merge_time_batch,
    repeat_steps,
    sigmoid,
    sigmoid_derivative,
    tanh_derivative,
)


def test_named_parameters_are_views_of_the_vector() -> None:
    params = Parameters({"a": (2, 3), "b": (4,)}, np.float64)
    params["b"][:] = [1, 2, 3, 4]
    params["a"][1, 2] = 9
    assert params.vector.tolist() == [0, 0, 0, 0, 0, 9, 1, 2, 3, 4]
    assert list(params) == ["a", "b"]
    other = params.zeros_like()
    assert other.vector.dtype == np.float64
    assert not other.vector.any()
    assert other["a"].shape == (2, 3)


def test_repeated_steps_are_the_same_memory() -> None:
    scratch = np.zeros((2, 3))
    steps = repeat_steps(scratch, 4)
    assert steps.shape == (4, 2, 3)
    steps[1, 0, 2] = 7
    assert scratch[0, 2] == steps[3, 0, 2] == 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_has_its_limits(dtype: type) -> None:
    a: Array = np.array([-np.inf, -1e30, -800, -1, 0, 1, 800, 1e30, np.inf, np.nan], dtype)
    with np.errstate(over="ignore"):
        sigmoid(a)
    wanted = [0, 0, 0, 1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e), 1, 1, 1, np.nan]
    np.testing.assert_allclose(a, wanted, rtol=1e-6 if dtype == np.float32 else 1e-12)


def test_derivatives_match_central_differences() -> None:
    a, e = np.linspace(-3, 3, 13), 1e-6
    up, down, s, d = a + e, a - e, a.copy(), np.empty_like(a)
    for x in (up, down, s):
        sigmoid(x)
    sigmoid_derivative(s, d)
    np.testing.assert_allclose(d, (up - down) / (2 * e), atol=1e-9)
    tanh_derivative(np.tanh(a), d)
    np.testing.assert_allclose(d, (np.tanh(a + e) - np.tanh(a - e)) / (2 * e), atol=1e-9)


def test_merge_time_batch_orders_by_step_then_lane() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    side = merge_time_batch(a)
    assert side.shape == (3, 8)
    assert side[1].tolist() == [*a[0, 1], *a[1, 1]]


@pytest.mark.parametrize("B", [1, 4])
def test_merging_a_feature_major_array_is_a_view_even_of_some_steps(B: int) -> None:
    a = empty_feature_major(5, 3, B, np.float32)
    assert a.shape == (5, 3, B)
    merge_time_batch(a)[:] = np.arange(15 * B).reshape(3, 5 * B)
    assert a[2, 1].tolist() == [7 * B + b for b in range(B)]
    merge_time_batch(a[:2])[2] = -1
    assert (a[:2, 2] == -1).all()
