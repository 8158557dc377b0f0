"""The naive algorithm of min-char-rnn: float64, one-hot columns, a character at a time, Adagrad.

Source: Karpathy, "Minimal character-level language model with a vanilla recurrent neural network",
2015 (a gist of 112 lines); rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def prepare(job: dict[str, Any]) -> Callable[[], int]:
    """Prepare training on batches of T characters."""
    V, H, T = job["V"], job["H"], job["T"]
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, V + 1)
    ids = rng.choice(V, 1_000_000, p=weights / weights.sum())
    p = {
        "Wxh": 0.01 * rng.standard_normal((H, V)),
        "Whh": 0.01 * rng.standard_normal((H, H)),
        "Why": 0.01 * rng.standard_normal((V, H)),
        "bh": np.zeros((H, 1)),
        "by": np.zeros((V, 1)),
    }
    opt_state = {name: np.zeros_like(w) for name, w in p.items()}
    at, hprev = 0, np.zeros((H, 1))

    def step() -> int:
        nonlocal at, hprev
        if at + T + 1 >= len(ids):
            at, hprev = 0, np.zeros((H, 1))
        xs, hs, ps, loss = [], [hprev], [], 0.0
        for t in range(T):
            x = np.zeros((V, 1))
            x[ids[at + t]] = 1
            h = np.tanh(p["Wxh"] @ x + p["Whh"] @ hs[-1] + p["bh"])
            y = np.exp(p["Why"] @ h + p["by"])
            prob = y / np.sum(y)
            loss -= np.log(prob[ids[at + t + 1], 0])
            xs.append(x)
            hs.append(h)
            ps.append(prob)
        d = {name: np.zeros_like(w) for name, w in p.items()}
        dhnext = np.zeros((H, 1))
        for t in reversed(range(T)):
            dy = np.copy(ps[t])
            dy[ids[at + t + 1]] -= 1
            d["Why"] += dy @ hs[t + 1].T
            d["by"] += dy
            dh = p["Why"].T @ dy + dhnext
            da = (1 - hs[t + 1] * hs[t + 1]) * dh
            d["bh"] += da
            d["Wxh"] += da @ xs[t].T
            d["Whh"] += da @ hs[t].T
            dhnext = p["Whh"].T @ da
        for name, w in p.items():
            np.clip(d[name], -5, 5, out=d[name])
            opt_state[name] += d[name] * d[name]
            w -= 0.1 * d[name] / np.sqrt(opt_state[name] + 1e-8)
        at, hprev = at + T, hs[-1]
        return T

    return step
