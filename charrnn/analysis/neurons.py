"""Hidden units: their activations, gate saturation and linear probes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array, Ids
from charrnn.cells.base import Tape
from charrnn.errors import TextError
from charrnn.network import Network
from charrnn.text import units
from charrnn.text.batches import document_ends, single_lane_batches
from charrnn.text.vocabulary import Vocabulary

CHUNK_STEPS = 64  # read at a time
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def _read(network: Network, ids: Ids, context: Ids, ends: Ids | None) -> Iterator[list[Tape[Any]]]:
    """Yield the layers' tapes, (t, ..., 1), for some steps at a time that read new symbols."""
    ends = np.array([len(ids)]) if ends is None else ends
    batches = single_lane_batches(ids, context, ends, CHUNK_STEPS)
    symbols_read = 0
    for batch, tape in network.read(batches, CHUNK_STEPS, 1):
        in_context = int((batch.at <= symbols_read).sum())  # these steps read no new symbol
        if in_context < len(batch.xs):
            symbols_read = int(batch.at[-1, 0])
            yield tape.slice(in_context, len(batch.xs)).layers


def activations(
    network: Network, ids: Ids, context: Ids, ends: Ids | None = None
) -> Iterator[Array]:
    """Yield the states after each symbol, in the order of the text, (t, L, H) at a time.

    The state is c for an LSTM, otherwise h. ``context`` is read before every document; documents
    end at ``ends``, by default at the end of the text. A single lane reads, so that no state is
    approximate, in constant memory.
    """
    for layers in _read(network, ids, context, ends):
        yield np.stack([layer.states[-1, 1:, :, 0] for layer in layers], axis=1)


def gate_saturation(
    network: Network, ids: Ids, context: Ids, ends: Ids | None = None
) -> dict[str, Array]:
    """Return for each gate how often it is below 0.1 and above 0.9, (L, 2), averaged over units.

    Karpathy, Johnson and Li, "Visualizing and understanding recurrent networks", 2015, section 4.2,
    call these gates left- and right-saturated. The arguments are as in ``activations``.
    """
    fractions: dict[str, Array] = {}
    for layers in _read(network, ids, context, ends):
        for l, layer in enumerate(layers):
            for name, gate in network.cell.gate_activations(layer.views).items():
                fraction = fractions.setdefault(name, np.zeros((len(layers), 2)))
                closed_and_open = np.array([(gate < 0.1).mean(), (gate > 0.9).mean()])
                fraction[l] += len(gate) / len(ids) * closed_and_open
    return fractions


def probe_neurons(chunks: Iterable[Array], y: NDArray[Any], num_neurons: int) -> Array:
    """Return the score of a linear probe of each hidden unit on its own for ``y`` (n,), (neurons,).

    ``chunks`` are the states (t, neurons), in the order of the text. The probes are fitted on its
    first half and scored on the second: balanced accuracy of a yes or no, R² of a number.
    """
    is_boolean, half, y = y.dtype == bool, len(y) // 2, y.astype(np.float64)
    sum_y, y_test = y[:half].sum(), y[half:]
    sum_x, sum_xx, sum_xy, total = np.zeros((4, num_neurons))
    position = 0
    for x in chunks:
        # fit on the symbols in the first half
        y_here = y[position : position + len(x), None]
        k = min(max(half - position, 0), len(x))
        position += len(x)
        sum_x += x[:k].sum(0)
        sum_xx += (x[:k] * x[:k]).sum(0)
        sum_xy += (x[:k] * y_here[:k]).sum(0)
        if k == len(x):
            continue

        # score the rest
        x, y_here = x[k:], y_here[k:]
        covariance = sum_xy - sum_x * sum_y / half
        variance = sum_xx - sum_x * sum_x / half
        slope = covariance / np.where(variance > 1e-12 * sum_xx, variance, np.inf)  # dead: 0
        if is_boolean:  # the state is compared with the midpoint of the two class means
            midpoint = (sum_xy / sum_y + (sum_x - sum_xy) / (half - sum_y)) / 2
            yes = (x - midpoint) * slope > 0
            hits, rejects = y_here * yes / y_test.sum(), (1 - y_here) * ~yes / (1 - y_test).sum()
            total += (hits + rejects).sum(0) / 2
        else:
            error = y_here - sum_y / half - (x - sum_x / half) * slope
            total -= (error**2).sum(0)
    return total if is_boolean else 1 + total / ((y_test - y_test.mean()) ** 2).sum()


def rank_neurons(
    network: Network,
    vocabulary: Vocabulary,
    text: str | bytes,
    name: str,
    documents: str | None = None,
) -> list[tuple[int, int, float]]:
    """Return layer, index and score of each hidden unit, best first: how well it predicts ``name``.

    That is one of ``character_properties``. Each unit's state (see ``activations``) is the input of
    a linear probe, fitted on the first half of the text and measured on the second. For a number
    the score is R²: 1 is perfect, 0 no better than the mean, and it may be negative. For a yes or
    no it is the balanced accuracy: 0.5 is chance, however rare the yes is. Unknown characters are
    skipped. Raises TextError if the property is constant in one half of the text.
    """
    # the property of the character that each symbol belongs to; of a word, of its last one
    encoded = vocabulary.read(text)
    ids = encoded.ids
    if vocabulary.unit == "byte" or isinstance(text, bytes):
        text = encoded.codes.astype(np.uint8).tobytes().decode("latin-1")
    y = character_properties(text)[name][encoded.last_character]
    ids, y = ids[ids >= 0], y[ids >= 0]
    for half in (y[: len(y) // 2], y[len(y) // 2 :]):
        if not len(half) or (half == half[0]).all():
            raise TextError(f"{name!r} is constant in one half of the text, so it cannot be probed")

    # the states, probed
    H = network.hidden_size
    ends = document_ends(ids, vocabulary.separator_id(documents))
    states = (
        chunk.reshape(len(chunk), -1).astype(np.float64)
        for chunk in activations(network, ids, vocabulary.start_id, ends)
    )
    scores = probe_neurons(states, y, network.num_layers * H)
    order = np.argsort(-scores, kind="stable").tolist()
    return [(i // H, i % H, float(scores[i])) for i in order]


LINE_COMMENT = re.compile(r"(?<![^ \t\n])(#)[^\n]*|^[ \t]*(%)[^\n]*", re.M)
# strings are matched first, so that nothing in them looks like a comment
C_COMMENT = re.compile(
    r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|/(\*).*?(?:\*/|\Z)|/(/)[^\n]*', re.S
)


def character_properties(text: str) -> dict[str, Bools | Ints]:
    """Return the properties of each character of a text once it has been read, (n,) each.

    ``line-position``: characters since the last newline, 0 for the newline itself. ``indent``:
    spaces and tabs at the start of the line so far. ``depth``: open brackets of any kind; unmatched
    closing ones are ignored. ``quote``: inside double quotes, straight or curly; an empty line
    closes them, and straight ones after a backslash or an apostrophe do not count. ``comment``:
    inside a C comment if the text has ``/*`` anywhere; otherwise from # to the end of the line, if
    # begins the line or follows a blank, or from a % that begins the line.
    """
    codes = units.code_points(text)

    def among(characters: str) -> Bools:
        return np.isin(codes, units.code_points(characters))

    def last(where: Bools) -> Ints:
        """Return the index of the last True up to each character, -1 for none."""
        return np.maximum.accumulate(np.where(where, np.arange(len(codes)), -1))

    def gain_since(total: Ints, at: Ints) -> Ints:
        """Return the gain of a running total since those indices."""
        gained: Ints = total - np.append(0, total)[at + 1]
        return gained

    # lines and brackets
    newline = among("\n")
    line = last(newline)
    leading = gain_since(np.cumsum(~among(" \t")), line) == 0
    brackets = np.cumsum(among("([{").astype(int) - among(")]}"))

    # quotes
    before = np.append(0, codes[:-1])[: len(codes)]
    paragraph = last(newline & (before == ord("\n")))
    straight = among('"') & (before != ord("\\")) & (before != ord("'"))
    opened, closed = last(among("“")), last(among("”"))
    in_straight = gain_since(np.cumsum(straight), paragraph) % 2 == 1

    # comments
    comment = np.zeros(len(codes), bool)
    for m in (C_COMMENT if "/*" in text else LINE_COMMENT).finditer(text):
        if m.lastindex:  # a comment starts after its last sign, and a block ends with its own
            comment[m.start(m.lastindex) : m.end() - (m[1] == "*" and m[0].endswith("*/"))] = True
    return {
        "line-position": np.arange(len(codes)) - line,
        "indent": gain_since(np.cumsum(leading), line),
        "depth": brackets - np.minimum(np.minimum.accumulate(brackets), 0),
        "quote": in_straight | (opened > np.maximum(closed, paragraph)),
        "comment": comment,
    }
