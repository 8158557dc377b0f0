"""The surprisal of each character of a text, and the most likely characters in its position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from charrnn.adaptive import AdaptiveNetwork
from charrnn.analysis.neurons import activations
from charrnn.arrays import Array, Ids
from charrnn.errors import TextError, UsageError
from charrnn.loss import log_softmax
from charrnn.mixture import MixedLanes, Mixture
from charrnn.network import Network
from charrnn.scoring import UNKNOWN_COST
from charrnn.storage.state import ModelState
from charrnn.text.batches import document_ends, single_lane_batches
from charrnn.text.vocabulary import EncodedText, Vocabulary

CHUNK_STEPS = 64  # read at a time
TOP_K = 5
MAX_NATS = 1000  # bounds the loss of a model whose weights have diverged
MIN_P = 1e-300  # so that it has a logarithm


class ModelLike(Protocol):
    network: Network
    vocabulary: Vocabulary
    documents: str | None


class SavedModel(ModelLike, Protocol):
    """What the pages need to know of a ``charrnn.Model``."""

    unit: str
    state: ModelState

    @property
    def sample_batch(self) -> Callable[..., Iterator[tuple[str, ...]]]: ...


class Learned(NamedTuple):
    """What predicts a text in place of the network alone: at most one of them is given."""

    mixture: Mixture | None = None  # of the network with its counts
    adaptive: AdaptiveNetwork | None = None


ALONE = Learned()


class ScoredText(NamedTuple):
    """A text with its surprisal: n characters (of a byte model: bytes), which are m symbols."""

    characters: list[str]  # (n,); bytes beyond ASCII as \\xNN
    bits: Array  # (n,): -log2 p of each, given those before it
    first_symbol: Ids  # (n,): the index of its first symbol, or of that of its word
    ids: Ids  # (m,): below 0 if unknown
    top_ids: Ids  # (m, k): the most likely in each position
    p: Array  # (m, k): their probabilities


def ids_or_unknown(encoded: EncodedText) -> Ids:
    """Return the ids of symbols, or -1 for each symbol of a character with an unknown one."""
    return np.where(encoded.is_known, encoded.ids, -1)


def top_predictions(
    model: ModelLike, text: str | bytes, learned: Learned = ALONE
) -> tuple[Array, Ids, Array]:
    """Return -log p of each symbol in nats, (m,), and the 5 most likely ids and their p, (m, 5).

    A single lane reads the text, so that each symbol is predicted from all symbols before it in its
    document. An unknown character is not read; its first symbol costs ``scoring.UNKNOWN_COST``. A
    vocabulary of fewer than 5 symbols is returned as a whole.
    """
    v = model.vocabulary
    encoded = v.read(text)
    ids = ids_or_unknown(encoded)
    known = ids[ids >= 0]
    n, top = len(known), min(TOP_K, len(v))
    nll = np.zeros(n)
    top_ids, p = np.zeros((n + 1, top), np.intp), np.zeros((n + 1, top))

    # symbols after a separator are predicted from a reset state, also if all of them are unknown
    separator_id = v.separator_id(model.documents)
    ends = document_ends(known, separator_id)
    if not n or known[-1] == separator_id:
        ends = np.append(ends, n)
    for at, ys, logp in _read(model, known, ends, learned):
        candidates = np.argpartition(-logp, top - 1, axis=1)[:, :top]  # sorting all is slower
        candidates.sort(axis=1)
        order = np.argsort(-np.take_along_axis(logp, candidates, 1), axis=1, kind="stable")
        top_ids[at] = np.take_along_axis(candidates, order, 1)
        p[at] = np.exp(np.take_along_axis(logp, top_ids[at], 1))
        steps = np.flatnonzero(ys >= 0)
        nll[at[steps]] = -logp[steps, ys[steps]]

    # an unknown character has the predictions that follow the last known symbol
    read_index: Ids = np.cumsum(ids >= 0) - (ids >= 0)
    unknown_nll = np.where(encoded.starts_piece, UNKNOWN_COST[v.unit], 0)
    symbol_nll = np.append(nll, 0)[read_index]
    return np.where(ids >= 0, symbol_nll, unknown_nll), top_ids[read_index], p[read_index]


def _read(
    model: ModelLike, ids: Ids, ends: Ids, learned: Learned
) -> Iterator[tuple[Ids, Ids, Array]]:
    """Yield positions (t,), the symbols there, and log p of all symbols, (t, V).

    After the last document there is no symbol: -1.
    """
    start = model.vocabulary.start_id
    if learned.adaptive:
        ids_and_none = np.append(ids, -1)
        for begin, end in pairwise([0, *ends.tolist()]):
            # what stands for the symbol after the text is predicted, but does not matter
            after = start if end == len(ids) else start[:0]
            at = begin
            for _, p in learned.adaptive.read(np.concatenate([start, ids[begin:end], after])):
                positions = np.arange(at, at + len(p))
                yield positions, ids_and_none[positions], np.log(np.fmax(p, MIN_P))
                at += len(p)
        return
    lanes = learned.mixture and MixedLanes(learned.mixture, ids[:0], 1)
    batches = single_lane_batches(ids, start, ends, CHUNK_STEPS)
    for batch, tape in model.network.read(batches, CHUNK_STEPS, 1):
        logits = tape.logits
        if lanes:
            logits = np.stack([lanes(*step) for step in zip(batch.xs, logits, strict=True)])
        yield batch.at[:, 0], batch.ys[:, 0], _bounded_log_softmax(logits[..., 0])


def _bounded_log_softmax(logits: Array) -> Array:
    """Return log p of logits (t, V) in float64, bounded: a number for any logits."""
    with np.errstate(all="ignore"):  # weights that diverged
        return np.fmax(log_softmax(logits), -MAX_NATS)


def score_text(model: ModelLike, text: str | bytes, learned: Learned = ALONE) -> ScoredText:
    """Return a text with its surprisal. Raises TextError if it is empty."""
    text = to_model_input(model, text)
    encoded = model.vocabulary.read(text)
    if not len(encoded.ids):
        raise TextError("the text is empty")
    nll, top_ids, p = top_predictions(model, text, learned)
    first = np.flatnonzero(encoded.starts_piece)
    bits = encoded.divide(np.add.reduceat(nll, first) / math.log(2))
    first = encoded.for_characters(first)
    if isinstance(text, str):
        characters = list(text)
    else:
        characters = [f"\\x{byte:02x}" if byte > 0x7F else chr(byte) for byte in text]
    return ScoredText(characters, bits, first, ids_or_unknown(encoded), top_ids, p)


def to_model_input(model: ModelLike, text: str | bytes) -> str | bytes:
    """Return the text as bytes if the model reads bytes."""
    is_byte = model.vocabulary.unit == "byte"
    return text.encode("utf-8", "surrogatepass") if is_byte and isinstance(text, str) else text


def activation(model: ModelLike, text: str | bytes, layer: int, index: int) -> Array:
    """Return the activation of a hidden unit after each character, (n,) in [-1, 1].

    It is h, or tanh(c) for an LSTM: Karpathy, Johnson and Li, "Visualizing and understanding
    recurrent networks", 2015, section 4.2. An unknown character is not read and leaves it
    unchanged. Raises UsageError for a hidden unit that the model does not have.
    """
    v, network = model.vocabulary, model.network
    H, L = network.hidden_size, network.num_layers
    if not (0 <= layer < L and 0 <= index < H):
        raise UsageError(f"no hidden unit {layer}:{index}; the model has 0:0 to {L - 1}:{H - 1}")
    encoded = v.read(text)
    ids = ids_or_unknown(encoded)
    known = ids[ids >= 0]
    values = np.zeros(len(known) + 1)  # the first is before the text
    if len(known):
        ends = document_ends(known, v.separator_id(model.documents))
        states = activations(network, known, v.start_id, ends)
        values[1:] = np.concatenate([chunk[:, layer, index] for chunk in states])
    if network.cell.STATE_NAMES[-1] == "c":
        np.tanh(values, out=values)
    last_symbol = np.append(np.flatnonzero(encoded.starts_piece)[1:], len(ids)) - 1
    return encoded.for_characters(values[np.cumsum(ids >= 0)[last_symbol]])
