"""How much each character of a text surprises a model, and what it had expected there."""

from __future__ import annotations

import math
import unicodedata
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from charrnn import shades, units
from charrnn.arrays import Array, Ids
from charrnn.errors import TextError, UsageError
from charrnn.probing import activations, documents
from charrnn.sampling import border
from charrnn.scoring import UNKNOWN_COST
from charrnn.stack import Stack
from charrnn.units import END, OWN, UNKNOWN
from charrnn.vocabulary import Vocabulary

CHUNK = 64  # steps that are read at a time
LENGTH = 5000  # characters that are shown
TOP = 5
LARGEST = 1000  # nats: of a model that is past saving the loss need not be a number


class Model(Protocol):
    """What is needed of a model."""

    stack: Stack
    vocabulary: Vocabulary
    by: str | None


class Reading(NamedTuple):
    """A text as a model reads it: n characters (of bytes: bytes), which are m symbols."""

    characters: list[str]  # as they are; of bytes those beyond ASCII as \xNN
    bits: Array  # (n,) -log2 p of each, given those before it
    first: Ids  # (n,) its first symbol
    ids: Ids  # (m,) below 0 where the model does not know it
    likeliest: Ids  # (m, top) at each symbol's place
    p: Array  # (m, top)


def known(codes: units.Codes, vocabulary: Vocabulary) -> Ids:
    """Return the id of each symbol, -1 for all the letters of a syllable of which one is not known."""
    ids, character, bad = vocabulary.known(codes)
    return np.where(bad[character], -1, ids)


def predictions(model: Model, text: str | bytes, top: int = TOP) -> tuple[Array, Ids, Array]:
    """Return -log p of each symbol of a text in nats, (m,); the ``top`` likeliest in its place, and their p, (m, top).

    One lane reads the text, so that each is given all those before it; of a model by line every line begins afresh.
    A character that the model does not know is not read. It costs ``scoring.UNKNOWN_COST``, at its first symbol; the
    likeliest are those that were expected there. Where there are fewer symbols than ``top``, all are returned.
    """
    v, stack = model.vocabulary, model.stack
    ids = known(units.encode(text, v.unit), v)
    read = ids[ids >= 0]
    xs = np.concatenate([v.start_id, read])  # one more than is read: what follows the last may be unknown
    end = border(v, model.by)
    # a line's beginning follows its newline, and that is what starts a text too
    fresh = np.flatnonzero(read == end) + 1 if end is not None else read[:0]
    top = min(top, len(v))
    nats, likeliest, p = np.zeros(len(xs)), np.zeros((len(xs), top), np.intp), np.zeros((len(xs), top))
    tape = stack.tape(CHUNK, 1)
    for begin, stop in pairwise([0, *fresh.tolist(), len(xs)]):
        state = stack.zero_state(1)
        for t in range(begin, stop, CHUNK):
            rows = slice(t, min(t + CHUNK, stop))
            cut = [part.cut(0, len(xs[rows])) for part in tape]
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # of a model that is past saving
                state = stack.forward(xs[rows, None], state, cut)
                logp = cut[-1]["logits"][..., 0].astype(np.float64)
                logp -= logp.max(1, keepdims=True)
                logp -= np.log(np.exp(logp).sum(1, keepdims=True))
                logp = np.fmax(logp, -LARGEST)
            few = np.sort(np.argpartition(-logp, top - 1, axis=1)[:, :top], axis=1)  # sorting all takes far longer
            order = np.argsort(-np.take_along_axis(logp, few, 1), axis=1, kind="stable")
            likeliest[rows] = np.take_along_axis(few, order, 1)
            p[rows] = np.exp(np.take_along_axis(logp, likeliest[rows], 1))
            ys = read[rows]
            nats[rows][: len(ys)] = -logp[np.arange(len(ys)), ys]
    place: Ids = np.cumsum(ids >= 0) - (ids >= 0)
    cost = np.where(units.begins(units.encode(text, v.unit)), UNKNOWN_COST[v.unit], 0)
    return np.where(ids >= 0, nats[place], cost), likeliest[place], p[place]


def reading(model: Model, text: str | bytes) -> Reading:
    """Read a text. Raises TextError if it is empty."""
    v, text = model.vocabulary, as_read(model, text)
    codes = units.encode(text, v.unit)
    if not len(codes):
        raise TextError("the text is empty: there is nothing to show")
    nats, likeliest, p = predictions(model, text)
    first = np.flatnonzero(units.begins(codes))
    bits = np.add.reduceat(nats, first) / math.log(2)
    characters = [label(code, "byte") for code in codes.tolist()] if isinstance(text, bytes) else list(text)
    return Reading(characters, bits, first, known(codes, v), likeliest, p)


def as_read(model: Model, text: str | bytes) -> str | bytes:
    """Return a text as a model reads it: of bytes, if it does."""
    return text.encode("utf-8", "surrogatepass") if model.vocabulary.unit == "byte" and isinstance(text, str) else text


def activation(model: Model, text: str | bytes, layer: int, index: int) -> Array:
    """Return the activation of a hidden unit after each character, (n,) in [-1, 1]: h, or with an LSTM tanh(c).

    Karpathy, Johnson and Li, "Visualizing and understanding recurrent networks", 2015, section 4.2. A character that
    is not read leaves it as it was. Raises UsageError for a unit that the model does not have.
    """
    v, stack = model.vocabulary, model.stack
    _, _, H, L = stack.shape
    if not (0 <= layer < L and 0 <= index < H):
        raise UsageError(f"the units of the model are 0:0 to {L - 1}:{H - 1}, and {layer}:{index} is none of them")
    codes = units.encode(text, v.unit)
    ids = known(codes, v)
    read = ids[ids >= 0]
    values = np.zeros(len(read) + 1)  # the first is that of the state before the text
    if len(read):
        states = activations(stack, read, v.start_id, documents(read, v, model.by))
        values[1:] = np.concatenate([chunk[:, layer, index] for chunk in states])
    if stack.cell.STATES[-1] == "c":
        np.tanh(values, out=values)
    last = np.append(np.flatnonzero(units.begins(codes))[1:], len(codes)) - 1
    each: Array = values[np.cumsum(ids >= 0)[last]]
    return each


def told(text: str | bytes, length: int, bits: Array) -> str:
    """Tell what of a text is shown, and the mean of its bits."""
    of, each = (f"{len(text):,}", "byte" if isinstance(text, bytes) else "character")
    part = f"{of} {each}s" if len(text) <= length else f"the first {length:,} of {of} {each}s"
    return f"{part}, {bits.mean():.3f} bits per {each}"


def fragment(model: Model, text: str | bytes, length: int = LENGTH, unit: tuple[int, int] | None = None) -> str:
    """Return the first ``length`` characters of a text as HTML, shaded by their bits, to stand in any page.

    With ``unit``, the layer and the index of a hidden unit, they are shaded by its activation. A panel tells of each
    character its bits and the five likeliest in its place. Raises TextError if the text is empty, UsageError for a
    unit that the model does not have.
    """
    text = as_read(model, text)
    r = reading(model, text[:length])
    values, scale = r.bits, shades.SURPRISE
    if unit:
        values, scale = activation(model, text[:length], *unit), shades.UNIT
    data = {
        "bits": r.bits.round(2).tolist(),
        "unit": values.round(2).tolist() if unit else None,
        "first": r.first.tolist(),
        "ids": r.ids.tolist(),
        "top": r.p.shape[1],
        "likeliest": r.likeliest.ravel().tolist(),
        "p": r.p.ravel().round(4).tolist(),
        "labels": [shades.written(label(code, model.vocabulary.unit)) for code in model.vocabulary.codes.tolist()],
    }
    return shades.fragment(r.characters, values.tolist(), scale, data, told(text, length, r.bits))


def label(code: int, unit: str) -> str:
    """Return how a symbol is written: a byte beyond ASCII as its escape, a letter of Hangul as it stands alone."""
    if code >= OWN:
        if code in (END, UNKNOWN):
            return "end" if code == END else "unknown"
        name = unicodedata.name(chr(units.ALONE[code - OWN]))
        return unicodedata.lookup(f"HANGUL LETTER {name.split()[-1]}")
    return f"\\x{code:02x}" if unit == "byte" and code > 0x7F else chr(code)
