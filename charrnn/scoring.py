"""How well a model foresees a given text: nats per character."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from charrnn import loss
from charrnn.arrays import Array, Ids, columns
from charrnn.stack import Stack
from charrnn.windows import Position, documents, passes

WARM_UP = 200  # characters read before the first that counts, in every lane
CHUNK = 1024  # of all lanes together, at a time: what they leave on the tape stays in the cache


def lanes(n: int) -> int:
    """Return in how many lanes n characters are read: by the length alone, so that every caller gets the same."""
    return max(1, min(64, n // 1000))


def score(stack: Stack, ids: Ids, context: Ids, threads: int = 1) -> Array:
    """Return -log p of each symbol given those before it, in nats, (n,) float64.

    ``context`` (at least one symbol) stands before the first. A text of 2,000 symbols or more is read in several
    lanes at once, each warmed up by the 200 symbols before it; threads share them out.
    """
    n, c = len(ids), len(context)
    out = np.zeros(n)
    if not n:
        return out
    everything = np.concatenate([context, ids])
    B = lanes(n)
    starts = c + np.arange(B) * n // B  # the first symbol that counts
    ends = np.append(starts[1:], c + n)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")  # of a model that is past saving
    def read(starts: Ids, ends: Ids) -> None:
        first = np.maximum(starts - 1 - WARM_UP, 0)  # the first that is read
        steps = int((ends - 1 - first).max())
        T = min(max(1, CHUNK // len(starts)), steps)
        tape, state = stack.tape(T, len(starts)), stack.zero_state(len(starts))
        for t in range(0, steps, T):
            target = first + 1 + np.arange(t, min(t + T, steps))[:, None]
            cut = [part.cut(0, len(target)) for part in tape]
            state = stack.forward(everything[np.minimum(target - 1, c + n - 1)], state, cut)
            counts = (target >= starts) & (target < ends)
            ys = np.where(counts, everything[np.minimum(target, c + n - 1)], -1)
            nats, _ = loss.forward(columns(cut[-1]["logits"]), ys.ravel())
            out[target[counts] - c] = nats.reshape(ys.shape)[counts]

    if threads == 1:
        read(starts, ends)
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = (np.array_split(edges, min(threads, B)) for edges in (starts, ends))
            list(pool.map(read, *parts))
    return out


def score_documents(stack: Stack, ids: Ids, ends: NDArray[np.int64], start: int) -> Array:
    """Return -log p of each symbol given those before it in its document, in nats, (n,) float64.

    ``ends`` are where the documents end (see ``windows.borders``); ``start`` is the id that is fed before the first
    symbol of each.
    """
    out = np.zeros(len(ids))
    B, T = min(64, len(ends)), CHUNK // 64
    tape, state = stack.tape(T, B), stack.zero_state(B)
    # the windows over the symbols' places, of which the ids follow
    for window in islice(documents(np.arange(len(ids)), ends, B, T, Position(), -1, None), passes(ends, B, T)):
        state[..., window.fresh] = 0
        cut = [part.cut(0, len(window.xs)) for part in tape]
        xs = np.where(window.xs < 0, start, ids[window.xs])
        counts = window.ys >= 0
        ys = np.where(counts, ids[window.ys], -1)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # of a model that is past saving
            state = stack.forward(xs, state, cut)
            nats, _ = loss.forward(columns(cut[-1]["logits"]), ys.ravel())
        out[window.ys[counts]] = nats.reshape(ys.shape)[counts]
    return out
