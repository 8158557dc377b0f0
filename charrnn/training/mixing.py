"""What is fitted to the validation split at the end of a run: gates, and the rates to adapt at."""

from __future__ import annotations

import math
import time
from itertools import product

import numpy as np

from charrnn.adaptive import AdaptiveRule
from charrnn.arrays import Array
from charrnn.counts import Counts
from charrnn.mixture import LearningMixture, Mixture, fit_gate, predict_text
from charrnn.network import Network
from charrnn.storage.state import Adaptation, Mixing
from charrnn.tasks.split import Split, Splits
from charrnn.workers import Workers

MAX_GATE_SYMBOLS = 100_000  # of the validation split
MAX_ADAPTED_SYMBOLS = 12_000  # of it; a network adapts slowly
TIMED_SYMBOLS = 200
COUNTED_PER_SECOND = 100_000  # symbols, by n-grams that learn
LEARNING_RATES, DECAYS = (0.1, 0.2, 0.4), (0.0003, 0.001)


def rms_gradient(optimizer_state: Array) -> Array | None:
    """Return the RMS gradient of each weight, (n,), as the optimizer has it.

    It is the root of the second moments, which adam, rmsprop and adagrad keep last; None for sgd.
    """
    if not len(optimizer_state):
        return None
    rms: Array = np.sqrt(optimizer_state[-1])
    return rms if rms.any() else None


def fit_mixing(
    network: Network, counts: Counts, splits: Splits, optimizer_state: Array, workers: Workers
) -> Mixing:
    """Fit the gates to the validation split, and measure the losses of the test split.

    ``network`` has the best weights of the run.
    """
    # static counts, and counts that learn
    val, test = shorten(splits.val, MAX_GATE_SYMBOLS), splits.test
    scores, gates = val.scores(network, workers), []
    for learn in (False, True):
        used = counts.copy() if learn else counts
        nll, features = predict_text(used, val.ids, val.context, scores[1], learn=learn)
        gates.append(fit_gate(features, scores[0], nll))
    static, learning = gates
    adaptation = choose_adaptation(
        network, counts, splits.val, rms_gradient(optimizer_state), workers
    )

    # the test split
    counts_loss = mixed_loss = None
    if len(test.ids):
        learner = LearningMixture(Mixture(counts, learning))
        nlls = learner.predict_text(test.ids, test.context, test.scores(network, workers))
        counts_loss, mixed_loss = (float(nll.sum() / test.characters) for nll in nlls)
    return Mixing(
        static=static.tolist(),
        learning=learning.tolist(),
        adaptation=adaptation,
        counts_loss=counts_loss,
        mixed_loss=mixed_loss,
    )


def choose_adaptation(
    network: Network, counts: Counts, val: Split, rms: Array | None, workers: Workers
) -> Adaptation | None:
    """Return the rates with the lowest loss on the start of the validation split, and a gate."""
    if rms is None:
        return None
    val = shorten(val, MAX_ADAPTED_SYMBOLS)
    rules = [AdaptiveRule(rms, lr, decay) for lr, decay in product(LEARNING_RATES, DECAYS)]
    all_scores: list[Array] = []
    for start in range(0, len(rules), workers.size):
        group = rules[start : start + workers.size]
        all_scores += workers.call(Split.scores, [(val, network, None, rule) for rule in group])
    best = int(np.argmin([scores[0].sum() for scores in all_scores]))
    scores, rule = all_scores[best], rules[best]
    nll, features = predict_text(counts.copy(), val.ids, val.context, scores[1], learn=True)
    gate = fit_gate(features, scores[0], nll).tolist()
    return Adaptation(learning_rate=rule.learning_rate, decay=rule.decay, gate=gate)


def estimate_seconds(
    network: Network, splits: Splits, optimizer_state: Array, workers: Workers
) -> float:
    """Return how long ``fit_mixing`` will take, without its evaluations of whole splits."""
    counted = 2 * min(len(splits.val.ids), MAX_GATE_SYMBOLS) + len(splits.test.ids)
    seconds, rms = counted / COUNTED_PER_SECOND, rms_gradient(optimizer_state)
    if rms is not None and len(splits.val.ids):
        # the time of one pair of rates on a piece, for all pairs on all symbols
        piece = shorten(splits.val, TIMED_SYMBOLS)
        started = time.perf_counter()
        piece.scores(network, rule=AdaptiveRule(rms, LEARNING_RATES[0], DECAYS[0]))
        elapsed = time.perf_counter() - started
        per_symbol = elapsed / (len(piece.context) + len(piece.ids))
        rounds = math.ceil(len(LEARNING_RATES) * len(DECAYS) / workers.size)
        seconds += rounds * per_symbol * min(len(splits.val.ids), MAX_ADAPTED_SYMBOLS)
    return seconds


def shorten(split: Split, n: int) -> Split:
    """Return the first ``n`` symbols of a split."""
    return split._replace(ids=split.ids[:n])
