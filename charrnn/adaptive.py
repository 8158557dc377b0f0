"""Dynamic evaluation: a network that keeps training on the text that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from charrnn import loss
from charrnn.arrays import Array, Ids
from charrnn.mixture import bayes_log_shares
from charrnn.network import Network, NetworkTape

STEPS = 20  # symbols between two updates
OFFSET = 0.1  # added to each weight's RMS gradient, times their mean
MAX_NATS = 1e4  # the loss of a symbol if the weights have diverged


class AdaptiveRule(NamedTuple):
    """How a network adapts to a text: the RMS rule of Krause et al., 2018, equations 5 to 7."""

    rms_gradient: Array  # of each weight in training, (n,)
    learning_rate: float
    decay: float  # towards the weights before the text


class AdaptiveNetwork:
    """A network that adapts to the texts that it reads, mixed with itself as it was before.

    Dynamic evaluation (Mikolov et al., 2010, section 3; Krause et al., 2018): one lane reads a text
    in batches of 20 symbols. Each is predicted first, and then the weights are updated, given the
    gradient g of the mean loss, the RMS gradient r of the training and m = mean(r):

        theta += min(decay r / m, 1) (theta0 - theta) - learning_rate g m / (r + .1 m)

    The two networks are mixed by Bayes' rule: each has a share in proportion to the probability
    that it gave to all symbols so far. The mixture costs at most one bit more than the better of
    them, over all texts.
    """

    @np.errstate(all="ignore")  # the rates may be infinite
    def __init__(self, network: Network, rule: AdaptiveRule) -> None:
        """Start from a network, which stays as it is."""
        self.still, self.adaptive = network, network.copy()
        weights = network.params.vector
        r = rule.rms_gradient / rule.rms_gradient.mean()
        self.pull = np.minimum(rule.decay * r, 1).astype(weights.dtype)
        self.rates = (rule.learning_rate / (r + OFFSET)).astype(weights.dtype)
        self.tapes = [net.new_tape(STEPS, 1) for net in (self.still, self.adaptive)]
        self.paid = np.zeros(2)  # nats, by the network as it was, and by the one that adapts

    @np.errstate(all="ignore")  # the weights may diverge
    def score(self, ids: Ids, context: Ids, ends: Ids | None, start: int) -> Array:
        """Return the scores of a text, (2, n), see ``scoring``.

        ``context`` is the text before, with at least one symbol. With ``ends`` the text is made of
        documents, which end there, and ``start`` comes before the first symbol of each instead.
        """
        if ends is None:
            documents = [(0, np.concatenate([context, ids]))]
            out = np.zeros((2, len(context) + len(ids) - 1))
        else:
            bounds = pairwise([0, *ends.tolist()])
            documents = [(a, np.append(start, ids[a:b])) for a, b in bounds]
            out = np.zeros((2, len(ids)))
        for at, document in documents:
            for nll, p in self.read(document):
                n = len(nll)
                out[:, at : at + n] = nll, np.log(p.max(1))
                at += n
        return out[:, out.shape[1] - len(ids) :]

    def read(self, document: Ids) -> Iterator[tuple[Array, Array]]:
        """Yield the loss of each symbol but the first, (t,), and p of all symbols, (t, V).

        The state is zero at first. The network learns from each batch before the next.
        """
        still, adaptive, weights = self.still, self.adaptive, self.adaptive.params.vector
        still_state, state = still.zero_state(1), adaptive.zero_state(1)
        for t in range(0, len(document) - 1, STEPS):
            chunk = document[t : t + STEPS + 1, None]
            xs, ys, n = chunk[:-1], chunk[1:], len(chunk) - 1
            still_tape, tape = (each.slice(0, n) for each in self.tapes)

            # predict the batch with both
            still_state = still.forward(xs, still_state, still_tape)
            still_nll, still_p = _predictions(still_tape, ys[:, 0])
            nll, state = adaptive.loss_and_grad(xs, ys, state, tape, scale=1 / n)
            p = tape.logits[..., 0] * n  # they are p / n, less 1 / n at the targets
            p[np.arange(n), ys[:, 0]] += 1

            # mix them
            nlls = np.stack([still_nll, nll[:, 0].astype(np.float64)])
            nlls[1] = np.nan_to_num(nlls[1], nan=MAX_NATS, posinf=MAX_NATS)  # it has diverged
            log_shares, self.paid = bayes_log_shares(nlls, self.paid)
            both = np.stack([still_p, np.nan_to_num(p)])
            mixed_p = (np.exp(log_shares)[..., None] * both).sum(0)
            yield -np.logaddexp.reduce(log_shares - nlls, axis=0), mixed_p

            # train the one that adapts
            pulled = self.pull * (still.params.vector - weights)
            weights += pulled - self.rates * adaptive.grads.vector


def _predictions(tape: NetworkTape, ys: Ids) -> tuple[Array, Array]:
    """Return -log p of the targets ``ys`` (t,) of one lane, and p of every symbol, (t, V)."""
    logp = loss.log_softmax(tape.logits[..., 0])
    return -logp[np.arange(len(ys)), ys], np.exp(logp)
