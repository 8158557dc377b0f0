"""What a model does inside: gradients over the lag and against differences, gates, and what units respond to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charrnn import loss, units
from charrnn.arrays import Array, Ids, Tape, columns
from charrnn.corpus import Corpus
from charrnn.errors import TextError
from charrnn.sampling import border
from charrnn.scoring import WARM_UP
from charrnn.stack import Stack, State
from charrnn.vocabulary import Vocabulary
from charrnn.windows import borders

Ends = NDArray[np.int64]

READ = 500_000  # symbols of a text that are looked at
CHUNK = 64  # steps that are read at a time
PLACES, LANES = 64, 16  # places of the text that a gradient is averaged over, and how many are read at once
H, FLOOR = 1e-5, 1e-4  # the step of the differences, and what a gradient is measured against at least
WRONG = 1e-4  # relative error from which a gradient is wrong


def encode(corpus: Corpus, vocabulary: Vocabulary) -> tuple[Ids, int]:
    """Return the ids of a text, of its first 500,000 symbols at most, and how many were unknown and are left out."""
    ids = np.take(vocabulary.table(corpus.store.codes), corpus.store[:READ])
    return ids[ids >= 0], int((ids < 0).sum())


def documents(ids: Ids, vocabulary: Vocabulary, by: str | None) -> Ends | None:
    """Return where the documents of a model by line or file end; None where the whole text is one."""
    end = border(vocabulary, by)
    return None if end is None else borders(ids, end)


def gradient_flow(stack: Stack, ids: Ids, start: Ids, lags: int, ends: Ends | None = None) -> Array:
    """Return how long a loss's gradient is by the states up to ``lags`` steps before, (lags + 1, L, STATES).

    It is the geometric mean of ``flow`` over up to 64 places of the text, in float64, each read from 200 symbols
    before (or as many as there are). Of documents that end at ``ends`` the beginnings are taken, after ``start`` (1,).
    Pascanu et al., "On the difficulty of training recurrent neural networks", 2013, section 2: over the lag the
    norms of a vanilla network fall or grow as a power, since each step multiplies by the same matrix.

    Raises TextError if the text, or each of its documents, is too short.
    """
    T, stack = lags + 1, stack.copy(np.float64)
    if ends is None:
        warm = max(min(WARM_UP, len(ids) - T - 1), 0)
        last, text = len(ids) - T - 1 - warm, ids
        if last < 0:
            raise TextError(f"{len(ids):,} symbols are too few for {lags} lags; --lags {len(ids) - 2} is the most")
        starts = np.linspace(0, last, min(PLACES, last + 1)).astype(int)
    else:
        lengths, warm = np.diff(ends, prepend=0), 0
        if lengths.max() < T:
            raise TextError(
                f"the longest document has {lengths.max():,} symbols, too few for {lags} lags; "
                f"--lags {lengths.max() - 1} is the most"
            )
        starts = (ends - lengths)[lengths >= T]
        starts = starts[np.linspace(0, len(starts) - 1, min(PLACES, len(starts))).astype(int)]
        text = np.concatenate([start, ids])  # so that what stands before a document can be set
    total = np.zeros((T, stack.num_layers, len(stack.cell.STATES)))
    for at in np.array_split(starts, -(-len(starts) // LANES)):
        read = text[at + np.arange(warm + T + 1)[:, None]]
        if ends is not None:
            read[0] = start
        state, tape = stack.zero_state(len(at)), stack.tape(T, len(at))
        for t in range(0, warm, T):
            xs = read[t : min(t + T, warm)]
            state = stack.forward(xs, state, [part.cut(0, len(xs)) for part in tape])
        with np.errstate(divide="ignore"):  # the logarithm of 0, whose mean is 0 again
            total += np.log(flow(stack, read[warm:-1], read[-1], state, tape)).sum(-1)
    mean: Array = np.exp(total / len(starts))
    return mean


def flow(stack: Stack, xs: Ids, ys: Ids, state: State, tape: list[Tape]) -> Array:
    """Return the norm of dL/ds for the states s that step T - 1 - k leaves, (T, L, STATES, B), the lag k first.

    L is the loss of the targets ``ys`` (B,) at the last step of ``xs`` (T, B) alone, in nats. The states are those of
    each layer, h and with an LSTM c, each with the others held: what c does by way of its own step's h counts for h.
    One forward; then backward over windows of one step, cut from its tape, hands the gradient on.
    """
    T, L, p = len(xs), stack.num_layers, stack.p
    stack.forward(xs, state, tape)
    logits = tape[-1]["logits"][-1]
    _, total = loss.forward(logits, ys)
    dout = loss.backward(logits, total, ys, 1)
    ds = stack.zero_state(len(ys))
    zero = np.zeros_like(ds[:1, 0])  # dhs: all that arrives is in the state's gradient already
    norms = np.empty((T, L, *ds.shape[1::2]), ds.dtype)
    for k in range(T):
        t = T - 1 - k
        dh = p["Why"].T @ dout if k == 0 else zero[0]
        for l in reversed(range(L)):
            ds[l, 0] += dh  # from the layer above, at this step
            norms[k, l] = np.linalg.norm(ds[l], axis=1)
            dWhh = stack.d[f"{l}.Whh"]
            dax, ds[l] = stack.cell.backward(p[f"{l}.Whh"], dWhh, zero, ds[l], tape[l].cut(t, t + 1))
            if l:
                dh = p[f"{l}.Wxh"].T @ dax[0]
    return norms


def check(
    stack: Stack, xs: Ids, ys: Ids, state: State, rng: np.random.Generator, entries: int = 50
) -> Iterator[tuple[str, int, float]]:
    """Yield of each parameter its name, how many entries were drawn, and the worst relative error of the gradient.

    A float64 copy of the stack reads ``xs`` (T, B) from ``state``; its gradient a of the summed loss in nats is held
    against central differences n, (L(w + h) - L(w - h)) / 2 h with h = 1e-5. The error is |a - n| / max(|a| + |n|,
    floor). The floor 1e-4 is there since the loss is rounded: n is uncertain by some 1e-9, which must not count as
    wrong where the gradient is nearly 0. Half of the entries are drawn among those that have a gradient (of most
    characters' weights in a short window there is none), the others among all that are left. Every term counts only
    from a state that is not zero.
    """
    stack = stack.copy(np.float64)
    tape, state = stack.tape(*xs.shape), state.astype(np.float64)
    stack.loss_and_grad(xs, ys, state, tape, scale=1)

    def total() -> float:
        stack.forward(xs, state, tape)
        nats, _ = loss.forward(columns(tape[-1]["logits"]), ys.ravel())
        return float(nats.sum())

    for name in stack.p:
        w, a = stack.p[name].reshape(-1), stack.d[name].reshape(-1)
        live = np.flatnonzero(a)
        live = rng.choice(live, min((entries + 1) // 2, len(live)), replace=False)
        rest = np.delete(np.arange(len(w)), live)
        at = np.concatenate([live, rng.choice(rest, min(entries - len(live), len(rest)), replace=False)])
        n = np.empty(len(at))
        for j, i in enumerate(at):
            old = w[i]
            w[i] = old + H
            up = total()
            w[i] = old - H
            n[j] = (up - total()) / (2 * H)
            w[i] = old
        error = np.abs(a[at] - n) / np.maximum(np.abs(a[at]) + np.abs(n), FLOOR)
        yield name, len(at), float(error.max())


def _read(stack: Stack, ids: Ids, context: Ids, ends: Ends | None) -> Iterator[list[Tape]]:
    """Yield the layers' tapes of some steps after the other, (t, ..., 1), until every symbol has been read."""
    tape, begin = stack.tape(CHUNK, 1), 0
    for end in [len(ids)] if ends is None else ends.tolist():
        text, state = np.concatenate([context, ids[begin:end]]), stack.zero_state(1)
        for t in range(0, len(text), CHUNK):
            xs = text[t : t + CHUNK, None]
            cut = [part.cut(0, len(xs)) for part in tape]
            state = stack.forward(xs, state, cut)
            known = len(context) - t  # steps of the context
            if known < len(xs):
                yield [part.cut(max(known, 0), len(xs)) for part in cut[:-1]]
        begin = end


def activations(stack: Stack, ids: Ids, context: Ids, ends: Ends | None = None) -> Iterator[Array]:
    """Yield the states after each symbol, in the order of the text, (t, L, H) at a time: c with an LSTM, h otherwise.

    ``context`` is read before the first, and not yielded; with ``ends`` before every document, which begins at zero.
    One lane reads, so that the states are exactly those of the text, and the memory does not grow with it.
    """
    name = f"{stack.cell.STATES[-1]}s"
    for tapes in _read(stack, ids, context, ends):
        yield np.stack([tape[name][..., 0] for tape in tapes], axis=1)


def saturation(stack: Stack, ids: Ids, context: Ids, ends: Ends | None = None) -> dict[str, Array]:
    """Return for each gate the shares of the time that it is under 0.1 and over 0.9, (L, 2), mean over the units.

    Karpathy, Johnson and Li, "Visualizing and understanding recurrent networks", 2015, section 4.2, call these left-
    and right-saturated. ``context`` and ``ends`` are those of ``activations``. A cell without gates has none.
    """
    shares: dict[str, Array] = {}
    for tapes in _read(stack, ids, context, ends):
        for l, tape in enumerate(tapes):
            for name, gate in stack.cell.gates(tape).items():
                share = shares.setdefault(name, np.zeros((len(tapes), 2)))
                share[l] += len(gate) / len(ids) * np.array([(gate < 0.1).mean(), (gate > 0.9).mean()])
    return shares


def rank(
    stack: Stack, vocabulary: Vocabulary, text: str | bytes, property: str, by: str | None = None
) -> list[tuple[int, int, float]]:
    """Return layer, index and score of every unit, best first: how well it alone foretells one of ``properties``.

    A linear probe of each unit's state (see ``activations``) is fitted on the first half of the text and measured on
    the second. Of a number it is least squares, and the score R²: 1 is perfect, 0 no better than the mean, and it may
    be below. Of a yes or no the state is held against the middle of the means of both, and the score is the balanced
    accuracy, the mean of the shares of yes and of no that are told right: 0.5 is chance, however rare the yes is.
    Characters that the model does not know are left out. With the unit ``byte`` the properties are those of bytes.

    Raises TextError if the property is the same all over one of the halves.
    """
    codes = units.encode(text, vocabulary.unit)
    ids = vocabulary.table(codes)
    if vocabulary.unit == "byte":
        text = codes.astype(np.uint8).tobytes().decode("latin-1")
    assert isinstance(text, str)
    y = properties(text)[property][np.cumsum(units.begins(codes)) - 1]
    ids, y = ids[ids >= 0], y[ids >= 0]
    half, boolean = len(ids) // 2, y.dtype == bool
    for part in (y[:half], y[half:]):
        if not len(part) or (part == part[0]).all():
            raise TextError(f"{property} is the same all over one half of the text: there is nothing to foretell")
    y = y.astype(np.float64)

    _, _, N, L = stack.shape
    x1, x2, xy, score = np.zeros((4, L * N))
    sy, n1, n0, mean = y[:half].sum(), y[half:].sum(), (1 - y[half:]).sum(), y[half:].mean()
    at = 0
    for chunk in activations(stack, ids, vocabulary.start_id, documents(ids, vocabulary, by)):
        x = chunk.reshape(len(chunk), -1).astype(np.float64)
        k = min(max(half - at, 0), len(x))
        fit, yfit, x, ys = x[:k], y[at : at + k, None], x[k:], y[at + k : at + len(x), None]
        x1, x2, xy = x1 + fit.sum(0), x2 + (fit * fit).sum(0), xy + (fit * yfit).sum(0)
        at += len(chunk)
        if not len(x):
            continue  # what follows needs the whole fit
        covariance, variance = xy - x1 * sy / half, x2 - x1 * x1 / half
        slope = covariance / np.where(variance > 1e-12 * x2, variance, np.inf)  # of a dead unit 0
        middle = (xy / sy + (x1 - xy) / (half - sy)) / 2 if boolean else x1 / half
        away = (x - middle) * slope
        if boolean:
            score += (ys * (away > 0) / n1 + (1 - ys) * (away <= 0) / n0).sum(0) / 2
        else:
            score -= ((ys - sy / half - away) ** 2).sum(0)
    if not boolean:
        score = 1 + score / ((y[half:] - mean) ** 2).sum()
    return [(int(i) // N, int(i) % N, float(score[i])) for i in np.argsort(-score, kind="stable")]


LINE_COMMENT = re.compile(r"(?<![^ \t\n])(#)[^\n]*|^[ \t]*(%)[^\n]*", re.M)
# a string is taken first, so that what looks like a comment in it is none
C_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|/(\*).*?(?:\*/|\Z)|/(/)[^\n]*', re.S)


def properties(text: str) -> dict[str, NDArray[np.int64] | NDArray[np.bool_]]:
    """Return what can be said of each character of a text once it has been read, (n,) each, int64 or bool.

    ``line-position``: characters since the last newline, 0 for the newline itself. ``indent``: spaces and tabs that
    the line begins with, as far as it has been read. ``depth``: open brackets of any kind; one that closes nothing
    counts for nothing, one that is never closed for all that follows. ``quote``: inside double quotes, straight or
    curly; an empty line ends what was left open, and straight ones after a backslash or an apostrophe do not count.
    ``comment``: inside a comment, of C where the text has ``/*`` anywhere; otherwise from # to the line's end, where
    it begins the line or follows a blank, or from a % that begins the line.
    """
    codes = units.code_points(text)
    n, place = len(codes), np.arange(len(codes))

    def among(characters: str) -> NDArray[np.bool_]:
        return np.isin(codes, units.code_points(characters))

    def last(where: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the place of the last that is true, up to each character; -1 for none."""
        return np.maximum.accumulate(np.where(where, place, -1))

    def since(total: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what a running total has gained since those places."""
        gained: NDArray[np.int64] = total - np.concatenate([[0], total])[at + 1]
        return gained

    newline, blank = among("\n"), among(" \t")
    line = last(newline)
    leading = since(np.cumsum(~blank), line) == 0
    brackets = np.cumsum(among("([{").astype(int) - among(")]}"))
    before = np.concatenate([codes[:1] * 0, codes[:-1]])
    paragraph = last(newline & (before == ord("\n")))
    straight = among('"') & (before != ord("\\")) & (before != ord("'"))
    opened, closed = last(among("“")), last(among("”"))
    comment = np.zeros(n, bool)
    for m in (C_COMMENT if "/*" in text else LINE_COMMENT).finditer(text):
        if m.lastindex:  # it is known to be one when its last sign has been read, and a block ends with its own
            comment[m.start(m.lastindex) : m.end() - (m[1] == "*" and m[0].endswith("*/"))] = True
    return {
        "line-position": place - line,
        "indent": since(np.cumsum(leading), line),
        "depth": brackets - np.minimum(np.minimum.accumulate(brackets), 0),
        "quote": (since(np.cumsum(straight), paragraph) % 2 == 1) | (opened > np.maximum(closed, paragraph)),
        "comment": comment,
    }
