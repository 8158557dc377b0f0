"""Sampling text from a model, one character at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from charrnn.arrays import Array, Ids
from charrnn.errors import UsageError
from charrnn.mixture import MixedLanes, Mixture
from charrnn.network import Network, Stepper
from charrnn.text.batches import single_lane_batches
from charrnn.text.tokens import join_digits
from charrnn.text.units import END_SPELL, FIRST_SPECIAL, FIRST_WORD, SPELL, UNKNOWN, Composer
from charrnn.text.vocabulary import NEWLINE, Vocabulary
from charrnn.workers import Workers

CHUNK_STEPS = 64  # of a prime that are read at a time
MIN_SAMPLES = 16  # of a worker
WORKERS_BLOCK = 32  # steps between two meetings
UNIFORM_BLOCK = 256  # random numbers drawn at a time, for every stream


def generate_ids(
    network: Network,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    prime: Ids | None = None,
    temp: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_samples: int = 1,
    workers: int = 1,
    mixture: Mixture | None = None,
) -> Iterator[Ids]:
    """Return an iterator of sampled ids, (num_samples,) at a time, without end.

    ``prime`` is read first, from the zero state; if it is empty, the vocabulary's start symbol is.
    With ``mixture`` the ids are drawn from the network mixed with its counts.
    ``workers`` processes share the samples, if each has at least 16. Raises UsageError for an
    option outside its range, before anything is sampled.
    """
    if not 0 <= temp < np.inf:
        raise UsageError(f"the temperature must be at least 0, not {temp}")
    if top_k is not None and top_k < 1:
        raise UsageError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p must be above 0 and at most 1, not {top_p}")
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, not {num_samples}")
    ids = vocabulary.start_id if prime is None or not len(prime) else prime

    def generate(ids: Ids) -> Iterator[Ids]:
        # read all but the last id, whose successor is the first to be sampled
        state, ends = network.zero_state(1), np.array([len(ids) - 1])
        batches = single_lane_batches(ids[:-1], ids[:0], ends, CHUNK_STEPS)
        for _, tape in network.read(batches, CHUNK_STEPS, 1):
            state = tape.state

        # each worker samples some of the texts, a block at a time
        N, options = num_processes(num_samples, workers), (vocabulary, temp, top_k, top_p)
        if N == 1:
            sampler = Sampler(network, state, ids, num_samples, mixture, *options)
            while True:
                yield from sampler.steps(rng.random((UNIFORM_BLOCK, num_samples)))
        with Workers(N) as pool:
            parts = np.array_split(np.arange(num_samples), N)
            starts = [(network, state, ids, len(part), mixture, *options) for part in parts]
            pool.call(Sampler, starts)
            while True:
                uniform = rng.random((WORKERS_BLOCK, num_samples))
                blocks = pool.call("block", [(uniform[:, part],) for part in parts])
                yield from np.concatenate(blocks, axis=1)

    return generate(ids)


def num_processes(num_samples: int, workers: int) -> int:
    """Return the number of processes that share the samples: each has at least 16."""
    return max(1, min(workers, num_samples // MIN_SAMPLES))


class Sampler:
    """Samples one symbol after the other for several texts."""

    def __init__(
        self,
        network: Network,
        state: Array,
        prime: Ids,
        num_samples: int,
        mixture: Mixture | None,
        vocabulary: Vocabulary,
        temp: float,
        top_k: int | None,
        top_p: float | None,
    ) -> None:
        """Start after the prime, with the state (L, S, H, 1) before its last id."""
        self.step = Stepper(network, np.repeat(state, num_samples, axis=-1))
        self.ids, self.unknown_id = np.repeat(prime[-1], num_samples), vocabulary.id(UNKNOWN)
        self.speller = Speller(vocabulary, num_samples) if vocabulary.unit == "word" else None
        self.lanes = mixture and MixedLanes(mixture, prime[:-1], num_samples)
        self.options = temp, top_k, top_p

    def steps(self, uniforms: Array) -> Iterator[Ids]:
        """Yield ids (B,) for each of the steps' uniform numbers (n, B)."""
        for uniform in uniforms:
            with np.errstate(all="ignore"):  # the weights may have diverged
                logits = self.step(self.ids)
                if self.lanes:
                    logits = self.lanes(self.ids, logits)
                if self.unknown_id is not None:
                    logits[self.unknown_id] = -np.inf
                if self.speller:
                    self.speller.restrict(self.ids, logits)
                self.ids = sample_logits(logits.T, uniform, *self.options)
            yield self.ids

    def block(self, uniforms: Array) -> Ids:
        """Return ids (n, B) for uniform numbers (n, B)."""
        return np.array([*self.steps(uniforms)])


class Speller:
    """Keeps sampled words whole: a spelled one consists of characters, and no other has an end.

    The digits of a character that has no symbol are never sampled.
    """

    def __init__(self, vocabulary: Vocabulary, num_lanes: int) -> None:
        codes = vocabulary.codes
        spells = ((codes < FIRST_SPECIAL) & (codes != NEWLINE)) | (codes == END_SPELL)
        writes = (codes <= SPELL) | (codes >= FIRST_WORD)
        self.forbidden = np.where([writes, spells], 0, -np.inf)  # outside and inside, (2, V)
        self.spell_id, self.end_id = vocabulary.id(SPELL), vocabulary.id(END_SPELL)
        self.is_inside = np.zeros(num_lanes, np.intp)  # a spelled word; 0 or 1

    def restrict(self, ids: Ids, logits: Array) -> None:
        """Leave the logits (V, B) of what may follow the last ids, (B,)."""
        self.is_inside[ids == self.spell_id] = 1
        self.is_inside[ids == self.end_id] = 0
        logits += self.forbidden[self.is_inside].T


class WordComposer:
    """Turns the symbols of a vocabulary of words into text; a spelled word waits for its end."""

    def __init__(self, texts: dict[int, str]) -> None:
        """Use the text of each code."""
        self.texts, self.pending, self.is_inside = texts, "", False

    def feed(self, code: int) -> str:
        """Add a symbol; return the text that is complete, which may be empty."""
        self.is_inside = code != END_SPELL and (self.is_inside or code == SPELL)
        self.pending += self.texts[code]
        if self.is_inside:
            return ""
        text, self.pending = join_digits(self.pending), ""
        return text


def decode_stream(
    id_stream: Iterator[Ids],
    vocabulary: Vocabulary,
    num_samples: int,
    length: int,
    until: str | None = None,
    separator_id: int | None = None,
) -> Iterator[tuple[str, ...]]:
    """Turn sampled ids into text: yield the characters that are complete, a string per sample.

    A text ends after ``length`` characters, after ``until``, or with the separator. A word is
    written as a whole: a text ends before one that does not fit.
    """
    composer = Composer()
    waits = vocabulary.unit in ("jamo", "word")
    text_of_id = ["" if waits else composer.feed(code) for code in vocabulary.codes.tolist()]

    # nothing to look for: only the length ends a text
    if until is None and separator_id is None and not waits:
        for ids in islice(id_stream, length):
            yield tuple([text_of_id[i] for i in ids.tolist()])
        return

    # jamo wait for the end of their syllable, and ``until`` may span several steps
    composers: list[Composer] | list[WordComposer] = [Composer() for _ in range(num_samples)]
    if vocabulary.unit == "word":
        texts = dict(zip(vocabulary.codes.tolist(), vocabulary.texts, strict=True))
        composers = [WordComposer(texts) for _ in range(num_samples)]
    tails, remaining = [""] * num_samples, [length] * num_samples
    for ids in id_stream if length else ():
        pieces = [""] * num_samples
        for k, i in enumerate(ids.tolist()):
            if not remaining[k]:
                continue
            text = composers[k].feed(int(vocabulary.codes[i])) if waits else text_of_id[i]
            if vocabulary.unit == "word" and len(composers[k].pending + text) > remaining[k]:
                remaining[k] = 0
                continue
            for character in text:
                pieces[k] += character
                tails[k] = (tails[k] + character)[-len(until) :] if until else ""
                remaining[k] = 0 if until and tails[k] == until else remaining[k] - 1
                if not remaining[k]:
                    break
            if i == separator_id:
                remaining[k] = 0
        yield tuple(pieces)
        if not any(remaining):
            return


@np.errstate(all="ignore")  # a tiny temperature sends all but the largest to -inf, as it should
def sample_logits(
    logits: Array, uniform: Array, temp: float, top_k: int | None = None, top_p: float | None = None
) -> Ids:
    """Return an id for each row of logits (B, V), given a uniform number in [0, 1) for each, (B,).

    Temperature divides the logits; 0 takes the largest, the lowest id if there are several.
    ``top_k`` keeps the K most likely symbols (Fan et al., 2018), ``top_p`` the fewest whose
    probabilities add up to P (Holtzman et al., 2020).
    """
    p = (logits[0] if len(logits) == 1 else logits).astype(np.float64)
    p -= np.maximum.reduce(p, axis=-1, keepdims=True)
    if temp == 0:
        most_likely: Ids = np.atleast_1d(p.argmax(-1))
        return most_likely
    is_truncated = top_k is not None or top_p is not None
    if is_truncated:  # ranked by the logits: a high temperature makes all probabilities equal
        order = np.argsort(-p, axis=-1, kind="stable")
    p /= temp
    np.exp(p, out=p)
    if is_truncated:
        ranked = np.take_along_axis(p, order, -1)
        if top_k is not None:
            ranked[..., top_k:] = 0
        if top_p is not None:
            before = np.cumsum(ranked, axis=-1) - ranked
            ranked[before >= top_p * ranked.sum(-1, keepdims=True)] = 0
        np.put_along_axis(p, order, ranked, -1)

    # the sum ends in exactly 1, above every uniform number: probability 0 is never sampled
    np.add.accumulate(p, axis=-1, out=p)
    p /= p[..., -1:]
    if p.ndim == 1:
        return p.searchsorted(uniform, side="right")
    ids: Ids = (p > uniform[:, None]).argmax(1)
    return ids
