"""A network mixed with counts of n-grams, by a gate that decides for each symbol.

The network's share is sigmoid(theta . f). The features f are known before the symbol: how sure the
network is, and how much the counts know of the longest history that has occurred before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.counts import Context, Counts, Floats, Reader
from charrnn.loss import log_softmax

MAX_ITERATIONS = 30  # of the fit
MAX_FITTED_SYMBOLS = 100_000
PART_HANDICAP = 4.0  # nats that a part has to be ahead of what the gate mixes
PENALTY = 1.0  # of the sum of the losses, in nats, per half a square
MIN_IMPROVEMENT = 1e-6  # of the mean loss, in nats
MIN_DAMPING, MAX_DAMPING = 1e-6, 1e6


class Mixture(NamedTuple):
    """The counts of a model, and the gate that mixes them with its network."""

    counts: Counts
    gate: Floats


def gate_features(log_max: Array, context: Context, max_order: int) -> Floats:
    """Return the features of each symbol, (n, 7 + max_order).

    ``log_max`` (n,) is the logarithm of the network's highest p. The others are of the counts, the
    last ones one-hot: the order of the longest n-grams that continue a known history.
    """
    highest, escape = np.exp(log_max), context.escape
    columns = [
        log_max,
        highest,
        np.log(escape),
        escape,
        np.log1p(context.total),
        np.log1p(context.successors),
        escape * highest,
        *(context.order == order for order in range(1, max_order + 1)),
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def mix(gate: Floats, features: Floats, network_nll: Array, counts_nll: Array) -> Floats:
    """Return -log p of each symbol under the mixture, in nats, (n,)."""
    z = features @ gate
    log_share, log_rest = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    nll: Floats = -np.logaddexp(log_share - network_nll, log_rest - counts_nll)
    return nll


def bayes_log_shares(nlls: Array, paid: Array) -> tuple[Floats, Floats]:
    """Return the log shares of k predictors of a text, (k, n), and what they paid in all, (k,).

    By Bayes' rule the share of each is in proportion to the probability that it gave to the text so
    far: ``nlls`` (k, n) are -log p, ``paid`` (k,) their sums before this text. So mixed, predictors
    cost at most log k more than the best of them, over the whole text.
    """
    total = paid[:, None] + np.cumsum(np.insert(nlls, 0, 0, axis=1), axis=1)
    before = total[:, :-1] - total[:, :-1].min(0)
    log_shares: Floats = -before - np.logaddexp.reduce(-before, axis=0)
    return log_shares, total[:, -1].astype(np.float64)


def network_share(gate: Floats, features: Floats) -> Floats:
    """Return the network's share of each mixture, (n,)."""
    share: Floats = np.exp(-np.logaddexp(0, -(features @ gate)))
    return share


def fit_gate(features: Floats, network_nll: Array, counts_nll: Array) -> Floats:
    """Return the gate with the lowest loss on a text, fitted to its first 100,000 symbols.

    A penalty on the squares of the weights keeps a short text from deciding too much. Gauss-Newton
    steps with the damping of Levenberg and Marquardt (Marquardt, 1963): a step that does not lower
    the loss is made again, shorter.
    """
    # in units of its root mean square, so that the damping is the same for each feature
    f = features[:MAX_FITTED_SYMBOLS]
    scale = np.sqrt((f * f).mean(0))
    scale[scale == 0] = 1
    f = f / scale
    network_nll, counts_nll = network_nll[: len(f)], counts_nll[: len(f)]

    gate, damping, penalty = np.zeros(f.shape[1]), 1e-3, PENALTY / len(f)
    nll = mix(gate, f, network_nll, counts_nll)
    loss = nll.mean()
    for _ in range(MAX_ITERATIONS):
        # the derivative of each symbol's loss with respect to z = theta . f
        share = network_share(gate, f)
        dz = share * (1 - np.exp(nll - network_nll))
        gradient = f.T @ dz / len(f) + penalty * gate
        curvature = (f * (dz * dz)[:, None]).T @ f / len(f) + penalty * np.eye(len(gate))
        while damping < MAX_DAMPING:
            step = np.linalg.solve(curvature + damping * np.eye(len(gate)), gradient)
            tried = mix(gate - step, f, network_nll, counts_nll)
            tried_loss = tried.mean() + penalty / 2 * ((gate - step) ** 2).sum()
            if tried_loss < loss:
                break
            damping *= 4
        else:
            break
        improvement, loss, gate, nll = loss - tried_loss, tried_loss, gate - step, tried
        if improvement < MIN_IMPROVEMENT:
            break
        damping = max(damping / 4, MIN_DAMPING)
    result: Floats = gate / scale
    return result


def predict_text(
    counts: Counts, ids: Ids, context: Ids, log_max: Array, *, learn: bool
) -> tuple[Floats, Floats]:
    """Return -log p of each symbol under the counts, in nats, (n,), and the gate's features.

    ``context`` is the text before the first symbol, ``log_max`` (n,) is of the network. With
    ``learn`` the counts learn from each symbol.
    """
    positions = np.arange(len(context) + len(ids))
    is_target, everything = positions >= len(context), np.concatenate([context, ids])
    p, known = counts.predict(everything, is_target, positions, learn=learn)
    return -np.log(p), gate_features(log_max, known, len(counts.levels))


class LearningMixture:
    """A mixture whose counts learn from each text that it predicts.

    What the gate mixes is mixed with its two parts again, by Bayes' rule: on a text that is unlike
    the one that the gate was fitted to, the better part alone may be best.
    """

    def __init__(self, mixture: Mixture) -> None:
        """Start from counts, which stay as they are."""
        self.counts, self.gate = mixture.counts.copy(), mixture.gate
        self.paid = np.array([0, PART_HANDICAP, PART_HANDICAP])

    def predict_text(self, ids: Ids, context: Ids, scores: Array) -> tuple[Floats, Floats]:
        """Return -log p of each symbol under the counts and mixed, (n,), in nats.

        ``scores`` (2, n) are the network's (see ``scoring``), ``context`` is the text before.
        """
        counts_nll, features = predict_text(self.counts, ids, context, scores[1], learn=True)
        return counts_nll, self._mix(features, scores[0], counts_nll)

    def predict_documents(self, ids: Ids, ends: Ids, start: int, scores: Array) -> Floats:
        """Return -log p of each symbol mixed, given its own document only, (n,).

        ``ends`` are the documents' ends; ``start`` comes before the first symbol of each.
        """
        begins = np.append(0, ends[:-1])
        is_target = np.insert(np.ones(len(ids), bool), begins, False)
        lengths = np.repeat(np.flatnonzero(~is_target), ends - begins + 1)
        lengths = np.arange(len(is_target)) - lengths
        with_starts = np.insert(ids, begins, start)
        p, known = self.counts.predict(with_starts, is_target, lengths, learn=True)
        features = gate_features(scores[1], known, len(self.counts.levels))
        return self._mix(features, scores[0], -np.log(p))

    def _mix(self, features: Floats, network_nll: Array, counts_nll: Floats) -> Floats:
        gated = mix(self.gate, features, network_nll, counts_nll)
        nlls = np.stack([gated, network_nll, counts_nll])
        log_shares, self.paid = bayes_log_shares(nlls, self.paid)
        nll: Floats = -np.logaddexp.reduce(log_shares - nlls, axis=0)
        return nll


class MixedLanes:
    """Mixes what the network predicts in each lane with what the counts predict."""

    def __init__(self, mixture: Mixture, history: Ids, num_lanes: int) -> None:
        """Start after the symbols of ``history``, which every lane has read."""
        self.gate, self.reader = mixture.gate, Reader(mixture.counts, num_lanes)
        for symbol in history[-len(mixture.counts.levels) :]:
            self.reader.read(np.repeat(symbol, num_lanes))

    def __call__(self, ids: Ids, logits: Array) -> Array:
        """Read ids (B,); return log p of the mixture, given the network's logits, (V, B) both."""
        self.reader.read(ids)
        counts_p, context = self.reader.predict()
        log_p = log_softmax(logits.T)
        features = gate_features(log_p.max(1), context, len(self.reader.tables))
        share = network_share(self.gate, features)[:, None]
        mixed: Array = np.log(share * np.exp(log_p) + (1 - share) * counts_p).T
        return mixed
