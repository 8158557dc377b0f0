"""Gradients of a trained network: how they vanish over time, and whether they are correct."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charrnn import loss
from charrnn.arrays import Array, Ids, merge_time_batch
from charrnn.errors import TextError
from charrnn.network import Network, NetworkTape, State
from charrnn.scoring import WARM_UP_SYMBOLS
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
from charrnn.text.words import encode_store

MAX_SYMBOLS = 500_000  # of a text that are used
NUM_POSITIONS = 64  # of the text, over which gradient norms are averaged
LANES = 16  # positions that are read in parallel
EPSILON = 1e-5  # the step of the central differences
MIN_DENOMINATOR = 1e-4  # of a relative error
TOLERANCE = 1e-4  # relative error above which a gradient is wrong


def encode_corpus(corpus: Corpus, vocabulary: Vocabulary) -> tuple[Ids, int]:
    """Return the ids of a text's first 500,000 symbols, and how many unknown ones were skipped."""
    stop = min(MAX_SYMBOLS, len(corpus.store))
    store, id_table, _ = encode_store(corpus.store, vocabulary, (0, stop))
    ids = np.take(id_table, store[:stop])
    return ids[ids >= 0], int((ids < 0).sum())


def gradient_flow(
    network: Network, ids: Ids, start: Ids, lags: int, ends: Ids | None = None
) -> Array:
    """Return the norm of the loss's gradient with respect to earlier states, (lags + 1, L, S).

    It is the geometric mean of ``state_gradient_norms`` over up to 64 positions of the text, in
    float64, each read from up to 200 symbols before. If the text is made of documents, which end at
    ``ends``, their starts are used, after ``start`` (1,). Pascanu et al., "On the difficulty of
    training recurrent neural networks", 2013, section 2: the norms of a vanilla RNN decay or grow
    exponentially with the lag, because each step multiplies by the same matrix.

    Raises TextError if the text, or every document, is too short.
    """
    if len(ids) < 3:
        raise TextError("the text must contain at least three characters of the model's vocabulary")

    # the possible starts
    T, network = lags + 1, network.copy(np.float64)
    starts: Ids
    if ends is None:
        n, warm_up = len(ids), max(min(WARM_UP_SYMBOLS, len(ids) - T - 1), 0)
        starts, text = np.arange(n - T - warm_up), ids
        problem = f"{n:,} symbols are too few for {lags} lags; use --lags {n - 2} or fewer"
    else:
        lengths, warm_up = np.diff(ends, prepend=0), 0
        starts = (ends - lengths)[lengths >= T]
        text = np.concatenate([start, ids])  # so that the symbol before a document can be set
        n = lengths.max()
        problem = f"the longest document has only {n:,} symbols; use --lags {n - 1} or fewer"
    if not len(starts):
        raise TextError(problem)
    num_positions = min(NUM_POSITIONS, len(starts))
    starts = starts[np.linspace(0, len(starts) - 1, num_positions).astype(int)]

    # some positions at a time, in parallel
    log_norms = np.zeros((T, network.num_layers, len(network.cell.STATE_NAMES)))
    for at in np.array_split(starts, -(-num_positions // LANES)):
        chunk = text[at + np.arange(warm_up + T + 1)[:, None]]
        if ends is not None:
            chunk[0] = start
        state, tape = network.zero_state(len(at)), network.new_tape(T, len(at))
        for t in range(0, warm_up, T):
            xs = chunk[t : min(t + T, warm_up)]
            state = network.forward(xs, state, tape.slice(0, len(xs)))
        norms = state_gradient_norms(network, chunk[warm_up:-1], chunk[-1], state, tape)
        with np.errstate(divide="ignore"):  # log 0 is -inf, and exp of that 0 again
            log_norms += np.log(norms).sum(-1)
    mean: Array = np.exp(log_norms / num_positions)
    return mean


def state_gradient_norms(
    network: Network, xs: Ids, ys: Ids, state: State, tape: NetworkTape
) -> Array:
    """Return the norm of dL/ds for the states s after step T - 1 - k, (T, L, S, B), k = 0 first.

    L is the loss of the targets ``ys`` (B,) at the last step of ``xs`` (T, B) alone, in nats. The
    states are h of each layer and for an LSTM c, each with the other held constant: the
    effect of c on h in the same step counts for h.
    """
    T, L, p = len(xs), network.num_layers, network.params
    network.forward(xs, state, tape)
    logits = tape.logits[-1]
    _, sum_exp = loss.forward(logits, ys)
    dout = loss.backward(logits, sum_exp, ys, 1)

    dstates = network.zero_state(len(ys))
    zero = np.zeros_like(dstates[:1, 0])  # dhs: all that arrives is in dstates already
    norms = np.empty((T, L, *dstates.shape[1::2]), dstates.dtype)
    for k in range(T):
        t = T - 1 - k
        dh = p["Why"].T @ dout if k == 0 else zero[0]
        for l in reversed(range(L)):
            dstates[l, 0] += dh  # from the layer above, at this step
            norms[k, l] = np.linalg.norm(dstates[l], axis=1)
            layer, dWhh = tape.layers[l].slice(t, t + 1), network.grads[f"{l}.Whh"]
            dax, dstates[l] = network.cell.backward(p[f"{l}.Whh"], dWhh, zero, dstates[l], layer)
            if l:
                dh = p[f"{l}.Wxh"].T @ dax[0]
    return norms


def check_gradients(
    network: Network, xs: Ids, ys: Ids, state: State, rng: np.random.Generator, entries: int = 50
) -> Iterator[tuple[str, int, float]]:
    """Yield each parameter's name, the number of entries compared, and the largest relative error.

    A float64 copy of the network reads ``xs`` (T, B) from ``state``; if that is not zero, every
    term counts. The gradient a of the summed loss, in nats, is compared with central differences
    n = (L(w + e) - L(w - e)) / 2 e, e = 1e-5. The error is |a - n| / max(|a| + |n|, 1e-4): rounding
    alone makes n uncertain by about 1e-9. Half of the entries are drawn from those with a non-zero
    gradient (the weights of most characters have none in a short batch), half from the rest.
    """
    network = network.copy(np.float64)
    tape, state = network.new_tape(*xs.shape), state.astype(np.float64)
    network.loss_and_grad(xs, ys, state, tape, scale=1)

    def total_loss() -> float:
        network.forward(xs, state, tape)
        nll, _ = loss.forward(merge_time_batch(tape.logits), ys.ravel())
        return float(nll.sum())

    for name in network.params:
        w, a = network.params[name].reshape(-1), network.grads[name].reshape(-1)

        # choose the entries
        nonzero = np.flatnonzero(a)
        nonzero = rng.choice(nonzero, min((entries + 1) // 2, len(nonzero)), replace=False)
        rest = np.delete(np.arange(len(w)), nonzero)
        rest = rng.choice(rest, min(entries - len(nonzero), len(rest)), replace=False)
        chosen = np.concatenate([nonzero, rest])

        # central differences
        n = np.empty(len(chosen))
        for j, i in enumerate(chosen):
            old = w[i]
            w[i] = old + EPSILON
            up = total_loss()
            w[i] = old - EPSILON
            n[j] = (up - total_loss()) / (2 * EPSILON)
            w[i] = old
        denominator = np.maximum(np.abs(a[chosen]) + np.abs(n), MIN_DENOMINATOR)
        yield name, len(chosen), float((np.abs(a[chosen] - n) / denominator).max())
