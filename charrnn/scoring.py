"""How well a model predicts a text: the negative log-likelihood (NLL) of each symbol, in nats.

The scores of a text, (2, n) float64, are -log p of each symbol given those before it, and the
logarithm of the highest p of any symbol in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from charrnn import affine, loss
from charrnn.adaptive import AdaptiveNetwork, AdaptiveRule
from charrnn.arrays import Array, Ids, empty_feature_major, merge_time_batch
from charrnn.network import Network, NetworkTape, Stepper
from charrnn.text import batches
from charrnn.text.batches import Batch, document_ends
from charrnn.workers import ALONE, Workers

WARM_UP_SYMBOLS = 200  # read before the first target of every lane
# -log p of a character that is not in the vocabulary, in nats: it could be any character.
UNKNOWN_COST = dict.fromkeys(("char", "jamo", "word"), math.log(0x110000)) | {"byte": math.log(256)}
CHUNK_SYMBOLS = 1024  # of all lanes together, at a time: their buffers stay in the cache
MIN_WORK = 10**9  # symbols times parameters, below which starting a worker takes longer
MAX_STEPWISE = 2**18  # parameters of several layers: so few stay in the cache from step to step
# of a contiguous text: the most lanes, and the fewest symbols of each. A product of many lanes is
# faster, but every lane has to be warmed up.
LANES = ((64, 1000), (128, 2000))
DOCUMENT_LANES = 128
MAX_TARGET_SYMBOLS = 2**14  # of all lanes together, if whole lines are read
STRETCH = 12  # characters: about a word; see docs/quality.md


def contiguous_scores(network: Network, ids: Ids, context: Ids, workers: Workers = ALONE) -> Array:
    """Return the scores of a text.

    ``context`` (at least one symbol) comes before the first. From 2,000 symbols on, parallel lanes
    read the text, each warmed up by the 200 symbols before it; workers share the lanes.
    """
    n, c = len(ids), len(context)
    if not n:
        return np.zeros((2, 0))
    context_and_ids = np.concatenate([context, ids])
    B = max(1, *(min(most, n // symbols) for most, symbols in LANES))  # the same for every caller
    starts = c + np.arange(B) * n // B  # the first target of each lane
    lane_ends = np.append(starts[1:], c + n)

    # for each worker, the symbols that its lanes read
    tasks = []
    groups = min(_useful_workers(workers, network, n), B)
    pairs = zip(np.array_split(starts, groups), np.array_split(lane_ends, groups), strict=True)
    for group, ends in pairs:
        first = max(int(group[0]) - 1 - WARM_UP_SYMBOLS, 0)
        tasks.append((network, context_and_ids[first : ends[-1]], group - first, ends - first))
    return np.concatenate(workers.call(score_lanes, tasks), axis=1)


def score_lanes(network: Network, ids: Ids, starts: Ids, ends: Ids) -> Array:
    """Return the scores of adjoining lanes, from ``starts`` to ``ends``, (B,) each."""
    T = min(max(1, CHUNK_SYMBOLS // len(starts)), len(ids))
    stream = batches.warm_up_batches(ids, starts, ends, WARM_UP_SYMBOLS, T)
    return _scores_of_targets(network, stream, T, len(starts), int(starts[0]), int(ends[-1]))


def document_scores(
    network: Network, ids: Ids, ends: Ids, start: int, workers: Workers = ALONE
) -> Array:
    """Return the scores of a text, each symbol given those before it in its document.

    ``ends`` are the documents' ends (see ``document_ends``); ``start`` is the id that is fed before
    the first symbol of each. Workers share the documents.
    """
    tasks, begin = [], 0
    groups = min(_useful_workers(workers, network, len(ids)), len(ends))
    for group in np.array_split(ends, groups):
        tasks.append((network, ids[begin : group[-1]], group - begin, start))
        begin = int(group[-1])
    return np.concatenate(workers.call(score_documents, tasks), axis=1)


def score_documents(network: Network, ids: Ids, ends: Ids, start: int) -> Array:
    """Return the scores of some documents."""
    B, T = min(DOCUMENT_LANES, len(ends)), CHUNK_SYMBOLS // DOCUMENT_LANES
    stream = batches.document_batches(ids, ends, B, T, batches.Position(), start, None)
    one_epoch = islice(stream, batches.batches_per_epoch(ends, B, T))
    return _scores_of_targets(network, one_epoch, T, B, 0, len(ids))


def _useful_workers(workers: Workers, network: Network, n: int) -> int:
    """Return the number of workers that make scoring ``n`` symbols faster."""
    return workers.size if n * len(network.params.vector) >= MIN_WORK else 1


@np.errstate(all="ignore")  # the weights may have diverged
def _scores_of_targets(
    network: Network, batches: Iterable[Batch], T: int, B: int, start: int, end: int
) -> Array:
    """Return the scores of every target, whose positions are from ``start`` to ``end``."""
    out = np.zeros((2, end - start))
    is_small = network.num_layers == 1 or len(network.params.vector) <= MAX_STEPWISE
    read = _read_stepwise if is_small else _read_layerwise
    for batch, logits in read(network, batches, T, B):
        nll, sum_exp = loss.forward(merge_time_batch(logits), batch.ys.ravel())
        scores = np.stack([nll, -np.log(sum_exp)]).reshape(2, *batch.ys.shape)
        is_target = batch.ys >= 0
        out[:, batch.at[is_target] - start] = scores[:, is_target]
    return out


def _read_layerwise(
    network: Network, batches: Iterable[Batch], T: int, B: int
) -> Iterator[tuple[Batch, Array]]:
    """Yield each batch with its logits (T, V, B). Each layer reads the whole batch in turn."""
    for batch, tape in network.read(batches, T, B):
        yield batch, tape.logits


def _read_stepwise(
    network: Network, batches: Iterable[Batch], T: int, B: int
) -> Iterator[tuple[Batch, Array]]:
    """Yield the same, but run all layers at each step, and keep only the outputs of the top one."""
    Why, by = network.params["Why"], network.params["by"]
    all_hs, all_logits = (empty_feature_major(T, n, B, Why.dtype) for n in reversed(Why.shape))
    stepper = Stepper(network, network.zero_state(B))
    for batch in batches:
        hs, logits = all_hs[: len(batch.xs)], all_logits[: len(batch.xs)]
        stepper.state[..., batch.reset] = 0
        for ids, h in zip(batch.xs, hs, strict=True):
            stepper.read(ids)
            h[:] = stepper.h
        affine.forward(Why, by, merge_time_batch(hs), logits, logits)
        yield batch, logits


@np.errstate(all="ignore")  # the weights may have diverged
def target_log_probs(network: Network, ids: Ids, targets: Ids, ends: Ids) -> Array:
    """Return log p of every output at each of the m targets, (m, O) float64, in their order.

    ``targets`` (n,) are below 0 where there is none, ``ends`` the ends of the documents in ``ids``.
    """
    index = np.cumsum(targets >= 0) - 1
    out = np.zeros((int((targets >= 0).sum()), network.num_outputs))
    for batch, tape in _read_targets(network, ids, targets, ends):
        is_target = batch.ys >= 0
        logits = tape.logits.swapaxes(1, 2)[is_target]
        out[index[batch.at[is_target]]] = loss.log_softmax(logits)
    return out


@np.errstate(all="ignore")  # the weights may have diverged
def target_nll(network: Network, ids: Ids, targets: Ids, ends: Ids) -> Array:
    """Return -log p of the target of each symbol, (n,), given the same; 0 where there is none."""
    out = np.zeros(len(ids))
    for batch, tape in _read_targets(network, ids, targets, ends):
        nll, _ = loss.forward(merge_time_batch(tape.logits), batch.ys.ravel())
        is_target = batch.ys >= 0
        out[batch.at[is_target]] = nll.reshape(batch.ys.shape)[is_target]
    return out


def _read_targets(
    network: Network, ids: Ids, targets: Ids, ends: Ids
) -> Iterator[tuple[Batch, NetworkTape]]:
    """Yield batches of whole documents with their tapes."""
    longest = int(np.diff(ends, prepend=0).max(initial=1))
    B, T = max(1, min(DOCUMENT_LANES, len(ends), MAX_TARGET_SYMBOLS // longest)), longest
    order = B, T, batches.Position(), 0, None, batches.ALL_LANES
    stream = batches.document_batches(ids, ends, *order, targets, network.PADDING)
    one_epoch = islice(stream, batches.batches_per_epoch(ends, B, T)) if len(ends) else ()
    return network.read(one_epoch, T, B)


def symbol_scores(
    network: Network,
    ids: Ids,
    context: Ids,
    separator_id: int | None,
    start: int,
    workers: Workers = ALONE,
    rule: AdaptiveRule | None = None,
) -> Array:
    """Return the scores of a text, (2, n), as the text and the options require.

    With ``separator_id`` the text is made of documents, which end there; with ``rule`` a copy of
    the network adapts to the text.
    """
    if rule is not None:
        ends = None if separator_id is None else document_ends(ids, separator_id)
        return AdaptiveNetwork(network, rule).score(ids, context, ends, start)
    if separator_id is None or not len(ids):
        return contiguous_scores(network, ids, context, workers)
    return document_scores(network, ids, document_ends(ids, separator_id), start, workers)


class LineScores(NamedTuple):
    """How odd each of n lines is, in nats per character."""

    nll: Array  # (n,): the mean of -log p over the line
    stretch: Array  # (n,): over the STRETCH characters of the line that have the highest mean

    @property
    def score(self) -> Array:
        """The mean plus half of the stretch, divided by 1.5: of the size of a mean, (n,)."""
        score: Array = (2 * self.nll + self.stretch) / 3
        return score


def line_scores(nll: Array, line: Ids, n: int) -> LineScores:
    """Return the scores of n lines, given -log p and the line of each character, (m,).

    Every line has a character; all of one that is shorter than a stretch are its stretch.
    """
    lengths = np.bincount(line, minlength=n)
    ends = np.cumsum(lengths)
    means: Array = np.bincount(line, nll, n) / lengths
    if not n:
        return LineScores(means, means)

    # the mean over each stretch that ends in its line
    stretches = np.convolve(nll, np.full(STRETCH, 1 / STRETCH))[STRETCH - 1 :]  # (m,) by its start
    is_inside = np.arange(STRETCH, len(nll) + STRETCH) <= ends[line]
    highest = np.maximum.reduceat(np.where(is_inside, stretches, -np.inf), ends - lengths)
    return LineScores(means, np.where(lengths < STRETCH, means, highest))
