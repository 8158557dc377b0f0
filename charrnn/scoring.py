"""How well a model predicts a given text: the negative log-likelihood (NLL) of each symbol, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn import loss
from charrnn.arrays import Array, Ids, merge_time_batch
from charrnn.optim import OPTIMIZERS, clip
from charrnn.stack import Stack
from charrnn.windows import (
    Batch,
    Position,
    batches_per_epoch,
    document_batches,
    document_ends,
    warm_up_batches,
)

WARM_UP_SYMBOLS = 200  # read before the first target of every lane
# -log p of a character that is not in the vocabulary, in nats: it could be any character.
UNKNOWN_COST = {"char": math.log(0x110000), "jamo": math.log(0x110000), "byte": math.log(256)}
DYNAMIC_STEPS = 20  # symbols between two updates of dynamic evaluation
CHUNK_SYMBOLS = 1024  # of all lanes together, at a time: their buffers stay in the cache
MAX_LANES = 64  # of a contiguous text
MIN_LANE_SYMBOLS = 1000
DOCUMENT_LANES = 128


def num_lanes(n: int) -> int:
    """Return the number of lanes for n symbols: it depends on the length alone, for every caller."""
    return max(1, min(MAX_LANES, n // MIN_LANE_SYMBOLS))


def contiguous_nll(stack: Stack, ids: Ids, context: Ids, threads: int = 1) -> Array:
    """Return -log p of each symbol given those before it, in nats, (n,) float64.

    ``context`` (at least one symbol) comes before the first. A text of 2,000 symbols or more is read
    in parallel lanes, each warmed up by the 200 symbols before it; threads share the lanes.
    """
    n, c = len(ids), len(context)
    out = np.zeros(n)
    if not n:
        return out
    context_and_ids = np.concatenate([context, ids])
    B = num_lanes(n)
    starts = c + np.arange(B) * n // B  # the first target of each lane
    lane_ends = np.append(starts[1:], c + n)

    def score_lanes(starts: Ids, ends: Ids) -> None:
        T = min(max(1, CHUNK_SYMBOLS // len(starts)), len(context_and_ids))
        batches = warm_up_batches(context_and_ids, starts, ends, WARM_UP_SYMBOLS, T)
        _write_nll(stack, batches, T, len(starts), out, c)

    threads = min(threads, B)
    _map(score_lanes, *(np.array_split(a, threads) for a in (starts, lane_ends)))
    return out


def document_nll(
    stack: Stack, ids: Ids, ends: NDArray[np.int64], start: int, threads: int = 1
) -> Array:
    """Return -log p of each symbol given those before it in its document, in nats, (n,) float64.

    ``ends`` are the documents' ends (see ``windows.document_ends``); ``start`` is the id that is fed
    before the first symbol of each. Threads share the documents.
    """
    out = np.zeros(len(ids))

    def score_group(begin: int, ends: NDArray[np.int64]) -> None:
        B, T = min(DOCUMENT_LANES, len(ends)), CHUNK_SYMBOLS // DOCUMENT_LANES
        group, ends = ids[begin : ends[-1]], ends - begin
        batches = document_batches(group, ends, B, T, Position(), start, None)
        one_epoch = islice(batches, batches_per_epoch(ends, B, T))
        _write_nll(stack, one_epoch, T, B, out[begin:], 0)

    threads = min(threads, len(ends))
    groups = np.array_split(ends, threads)
    begins = [0, *(int(group[-1]) for group in groups[:-1])]
    _map(score_group, begins, groups)
    return out


def _map(work: Callable[..., None], *args: Sequence[Any]) -> None:
    """Call ``work`` for each of the arguments, each on a thread of its own if there are several."""
    if len(args[0]) == 1:
        work(*(each[0] for each in args))
        return
    with ThreadPoolExecutor(len(args[0])) as pool:
        list(pool.map(work, *args))


def _write_nll(
    stack: Stack, batches: Iterable[Batch], T: int, B: int, out: Array, offset: int
) -> None:
    """Write -log p of every target to ``out``, at its position less ``offset``."""
    for batch, tape in stack.read(batches, T, B):
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # weights that diverged
            nll, _ = loss.forward(merge_time_batch(tape.logits), batch.ys.ravel())
        is_target = batch.ys >= 0
        out[batch.at[is_target] - offset] = nll.reshape(batch.ys.shape)[is_target]


def symbol_nll(
    stack: Stack,
    ids: Ids,
    context: Ids,
    separator_id: int | None,
    start: int,
    threads: int = 1,
    dynamic_lr: float | None = None,
) -> Array:
    """Return -log p of each symbol of a text, in nats, (n,) float64.

    With ``separator_id`` the text is made of documents, which end there. With ``dynamic_lr``, a
    learning rate, a copy of the network keeps training while it reads (see ``dynamic_nll``).
    """
    if dynamic_lr is not None:
        return dynamic_nll(stack.copy(), ids, context, separator_id, start, dynamic_lr)
    if separator_id is None or not len(ids):
        return contiguous_nll(stack, ids, context, threads)
    return document_nll(stack, ids, document_ends(ids, separator_id), start, threads)


def dynamic_nll(
    stack: Stack, ids: Ids, context: Ids, separator_id: int | None, start: int, lr: float
) -> Array:
    """Return the same for a network that keeps training while it reads; this changes its weights.

    Dynamic evaluation: Mikolov et al., 2010, section 3; Graves, 2013, section 3; Krause et al., 2018.
    One lane reads the text in batches of 20 symbols. Each is scored first, and then one step of
    gradient descent with learning rate ``lr`` is made on it, with the gradient clipped at norm 1.
    """
    out = np.zeros(len(ids))
    context_and_ids = np.concatenate([context, ids])
    tape, state, c = stack.new_tape(DYNAMIC_STEPS, 1), stack.zero_state(1), len(context)
    no_moments = np.empty((0, len(stack.p.vector)))
    one_text = separator_id is None
    ends = [len(context_and_ids)] if one_text else (document_ends(ids, separator_id) + c).tolist()
    begin = 0
    for end in ends:
        # the document, from its first input on; the first target is at ids[at]
        first = begin if one_text else max(begin, c)
        document = context_and_ids[first:end]
        if not one_text:
            document = np.append(start, document)
        at = (1 if one_text else first) - c
        state[:] = 0
        for t in range(0, len(document) - 1, DYNAMIC_STEPS):
            chunk = document[t : t + DYNAMIC_STEPS + 1, None]
            xs, ys, n = chunk[:-1], chunk[1:], len(chunk) - 1
            nll, last = stack.loss_and_grad(xs, ys, state, tape.slice(0, n), scale=1 / n)
            state[:] = last
            in_context = max(-(at + t), 0)  # targets in the context are not scored
            out[max(at + t, 0) : max(at + t + n, 0)] = nll[in_context:, 0]
            clip(stack.d.vector, 1, 0)
            OPTIMIZERS["sgd"].update(stack.p.vector, stack.d.vector, lr, 1, no_moments)
        begin = end
    return out
