import math

import numpy as np
import pytest

from charrnn import loss
from tests.conftest import assert_close, numeric

n, V = 12, 6


def test_loss_of_equal_logits_is_ln_v() -> None:
    nats, _ = loss.forward(np.full((V, n), 7.0), np.zeros(n, int))
    np.testing.assert_allclose(nats, math.log(V), rtol=1e-14)


def test_gradient_matches_central_differences_and_padding_is_free() -> None:
    rng = np.random.default_rng(0)
    logits, ys = rng.standard_normal((V, n)), rng.integers(0, V, n)
    ys[5] = ys[9] = -1
    e = logits.copy()
    nats, total = loss.forward(e, ys)
    assert (nats[ys < 0] == 0).all()
    assert (nats[ys >= 0] > 0).all()
    p = np.exp(logits) / np.exp(logits).sum(0)
    np.testing.assert_allclose(e / total, p, rtol=1e-12)
    for i in np.flatnonzero(ys >= 0):
        assert nats[i] == pytest.approx(-math.log(p[ys[i], i]))
    d = loss.backward(e, total, ys, 0.25)
    assert not d[:, ys < 0].any()
    assert_close(d, numeric(lambda: 0.25 * float(loss.forward(logits.copy(), ys)[0].sum()), logits))


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e38], [0], [-1e38]], np.float32)
    assert loss.forward(logits.copy(), np.array([0]))[0] == 0
    assert loss.forward(logits.copy(), np.array([1]))[0] == np.float32(1e38)
