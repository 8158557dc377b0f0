import math

import numpy as np
import pytest

from charrnn import optim
from charrnn.optim import OPTIMIZERS, SCHEDULES, clip


def update_naively(name: str, d: list[float], lr: float) -> float:
    """Return one parameter, 1 at first, after a sequence of gradients, as the papers write it."""
    p, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate(d, 1):
        if name == "sgd":
            p -= lr * g
        elif name == "adagrad":
            v += g**2
            p -= lr * g / math.sqrt(v + 1e-8)
        elif name == "rmsprop":
            v = 0.95 * v + 0.05 * g**2
            p -= lr * g / math.sqrt(v + 1e-8)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p -= lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("block", [2, 1000])
def test_update_rule_matches_its_paper(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "BLOCK_SIZE", block)
    o, rng = OPTIMIZERS[name], np.random.default_rng(0)
    d = rng.standard_normal((20, 3))
    p, opt_state = np.ones(3), np.zeros((o.num_moments, 3))
    for step, row in enumerate(d, 1):
        o.update(p, row.copy(), 0.01, step, opt_state)
    np.testing.assert_allclose(
        p, [update_naively(name, list(d[:, i]), 0.01) for i in range(3)], rtol=1e-6
    )


def test_clip_by_norm_keeps_the_direction() -> None:
    d = np.array([3.0, 4.0])
    assert clip(d, 1, 0) == 5
    np.testing.assert_allclose(d, [0.6, 0.8])
    assert clip(d, 2, 0) == pytest.approx(1)
    np.testing.assert_allclose(d, [0.6, 0.8])


def test_clip_by_value_and_no_limit() -> None:
    d = np.array([-9.0, 0.5, 7.0])
    clip(d, 0, 5)
    assert d.tolist() == [-5, 0.5, 5]
    clip(d, 0, 0)
    assert d.tolist() == [-5, 0.5, 5]


def test_schedules_start_at_one_and_fall() -> None:
    for name, f in SCHEDULES.items():
        values = [f(x) for x in np.linspace(0, 1, 11)]
        assert values[0] == 1
        if name != "constant":
            assert values == sorted(values, reverse=True)
            assert values[5] == pytest.approx(0.5)
            assert values[-1] == pytest.approx(0)
