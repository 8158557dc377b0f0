import math

import numpy as np

from charrnn import loss
from tests.conftest import assert_close, numeric

T, V, B = 4, 6, 3


def test_nats_of_equal_logits_are_ln_v() -> None:
    nats = loss.forward(np.full((T, V, B), 7.0), np.zeros((T, B), int))
    np.testing.assert_allclose(nats, math.log(V), rtol=1e-14)


def test_gradient_is_that_of_central_differences_and_padding_is_free() -> None:
    rng = np.random.default_rng(0)
    logits, ys = rng.standard_normal((T, V, B)), rng.integers(0, V, (T, B))
    ys[1, 2] = ys[3, 0] = -1
    p = logits.copy()
    nats = loss.forward(p, ys)
    assert (nats[ys < 0] == 0).all()
    assert (nats[ys >= 0] > 0).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
    d = loss.backward(p, ys, 0.25)
    assert not d[1, :, 2].any()
    assert_close(d, numeric(lambda: 0.25 * float(loss.forward(logits.copy(), ys).sum()), logits))


def test_large_logits_do_not_overflow() -> None:
    logits = np.zeros((1, 3, 1), np.float32)
    logits[0, :, 0] = [1e38, 0, -1e38]
    assert loss.forward(logits.copy(), np.array([[0]]))[0, 0] == 0
    assert loss.forward(logits.copy(), np.array([[1]]))[0, 0] == np.float32(1e38)
