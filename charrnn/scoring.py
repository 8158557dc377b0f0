"""How well a model foresees a given text: nats per character."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from charrnn import loss
from charrnn.arrays import Array, Ids, columns
from charrnn.optim import OPTIMIZERS, clip
from charrnn.stack import Stack
from charrnn.windows import Position, borders, documents, passes

WARM_UP = 200  # characters read before the first that counts, in every lane
# -log p of a character that a model does not know, in nats: it might be any there is.
UNKNOWN_COST = {"char": math.log(0x110000), "jamo": math.log(0x110000), "byte": math.log(256)}
ADAPT = 20  # symbols between two steps of learning
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


def losses(
    stack: Stack,
    ids: Ids,
    context: Ids,
    border: int | None,
    start: int,
    threads: int = 1,
    adapt: float | None = None,
) -> Array:
    """Return -log p of each symbol of a text, or with ``border`` of documents that end there, in nats, (n,) float64.

    With ``adapt``, a learning rate, it is a copy of the stack that reads, and goes on learning (see ``adapted``).
    """
    if adapt is not None:
        return adapted(stack.copy(), ids, context, border, start, adapt)
    if border is None or not len(ids):
        return score(stack, ids, context, threads)
    return score_documents(stack, ids, borders(ids, border), start, threads)


def adapted(stack: Stack, ids: Ids, context: Ids, border: int | None, start: int, lr: float) -> Array:
    """Return the same of a stack that goes on learning as it reads, and is changed by it.

    Dynamic evaluation: Mikolov et al., 2010, section 3; Graves, 2013, section 3; Krause et al., 2018. The text is
    read by a single lane, in windows of 20 symbols; each is scored first and then learned from, by a step of gradient
    descent with the learning rate ``lr``, its gradient clipped at a norm of 1.
    """
    out = np.zeros(len(ids))
    everything = np.concatenate([context, ids])
    tape, state, c = stack.tape(ADAPT, 1), stack.zero_state(1), len(context)
    ends = [len(everything)] if border is None else (borders(ids, border) + c).tolist()
    begin = 0
    for end in ends:
        document = everything[begin:end] if border is None else np.append(start, everything[max(begin, c) : end])
        state[:] = 0
        at = (1 if border is None else max(begin, c)) - c  # where the first target stands in ids
        for t in range(0, len(document) - 1, ADAPT):
            window = document[t : t + ADAPT + 1]
            n = len(window) - 1
            xs, ys, cut = window[:-1, None], window[1:, None], [part.cut(0, n) for part in tape]
            nats, last = stack.loss_and_grad(xs, ys, state, cut, scale=1 / n)
            state[:] = last
            first = max(-(at + t), 0)  # what stands in the context does not count
            out[max(at + t, 0) : max(at + t + n, 0)] = nats[first:, 0]
            clip(stack.d.vector, 1, 0)
            OPTIMIZERS["sgd"].update(stack.p.vector, stack.d.vector, lr, 1, np.empty((0, len(stack.p.vector))))
        begin = end
    return out


def score_documents(stack: Stack, ids: Ids, ends: NDArray[np.int64], start: int, threads: int = 1) -> Array:
    """Return -log p of each symbol given those before it in its document, in nats, (n,) float64.

    ``ends`` are where the documents end (see ``windows.borders``); ``start`` is the id that is fed before the first
    symbol of each. Threads share the documents out.
    """
    n = min(threads, len(ends))
    if n > 1:
        groups = np.array_split(ends, n)
        starts = [0, *(int(group[-1]) for group in groups[:-1])]
        with ThreadPoolExecutor(n) as pool:
            parts = pool.map(
                lambda at, group: score_documents(stack, ids[at : group[-1]], group - at, start), starts, groups
            )
            return np.concatenate(list(parts))
    out = np.zeros(len(ids))
    B, T = min(128, len(ends)), CHUNK // 128
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
