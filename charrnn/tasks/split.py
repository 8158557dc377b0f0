"""The parts of a text: the training split, and those for validation and testing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.adaptive import AdaptiveRule
from charrnn.analysis.ngram import ngram_losses
from charrnn.arrays import Array, Ids
from charrnn.config import Config
from charrnn.counts import Stored, number_ngrams, prune
from charrnn.network import Network
from charrnn.scoring import symbol_scores, target_log_probs
from charrnn.storage.state import Baselines, Batches
from charrnn.text import batches
from charrnn.text.corpus import EncodedSlice
from charrnn.text.vocabulary import Vocabulary
from charrnn.workers import ALONE, Workers

COUNTED_SYMBOLS = 6_000_000  # to count n-grams in: memory must not grow with the text
MAX_BATCH_SYMBOLS = 2**16  # if the sequences are as long as the longest line
MAX_BATCH_PAIRS = 2**24  # of a step and one that it looks at, with attention


class Split(NamedTuple):
    """A validation or test split of a text."""

    ids: Ids  # (n,)
    context: Ids  # before them in the text
    characters: int
    separator_id: int | None  # ends a document
    start_id: int  # is fed before the first symbol of a document
    targets: Ids | None = None  # (n,), below 0 for none; otherwise those are the next symbols
    document_ends: Ids | None = None  # if there are targets
    lines: Sequence[Any] = ()  # that the targets are from

    def scores(
        self, network: Network, workers: Workers = ALONE, rule: AdaptiveRule | None = None
    ) -> Array:
        """Return the scores of its symbols, or of its targets, (2, n); see ``scoring``."""
        ids, context, _, separator_id, start_id, targets, ends, _ = self
        if targets is not None and ends is not None:
            logp = target_log_probs(network, ids, targets, ends)
            nll = -logp[np.arange(len(logp)), targets[targets >= 0]]
            return np.stack([nll, -logp.max(1)])
        return symbol_scores(network, ids, context, separator_id, start_id, workers, rule)

    def text(self, vocabulary: Vocabulary) -> str | bytes:
        """Return the text; bytes if the unit is byte."""
        text = vocabulary.decode(self.ids)
        return text.encode("latin-1") if vocabulary.unit == "byte" else text


class Splits(NamedTuple):
    """The splits of a text; the ids of the training split are read when it is sliced."""

    train: EncodedSlice
    train_characters: int
    document_ends: NDArray[np.int64] | None  # of the training split, if it is made of documents
    val: Split
    test: Split
    targets: Ids | None = None  # of the training split; otherwise those are the next symbols

    @property
    def symbols_per_character(self) -> float:
        """More than 1 if the unit is jamo; with targets 1, since each of them counts."""
        if self.targets is not None:
            return 1.0
        return len(self.train) / self.train_characters

    def fit_batches(self, config: Config) -> Batches:
        """Return the shape of the batches, which are smaller than the options for a small text."""
        N, ends = len(self.train), self.document_ends
        if ends is None:
            B, T = batches.fit_batch_shape(N, config.batch_size, config.seq_length)
            steps = math.ceil(batches.steps_per_lane(N, B) / T)
        else:
            longest = int(np.diff(ends, prepend=0).max())
            B, T = min(config.batch_size, len(ends)), min(config.seq_length, longest)
            if self.targets is not None:  # every line is read as a whole
                most = MAX_BATCH_SYMBOLS // longest
                if config.attention:
                    most = min(most, MAX_BATCH_PAIRS // longest**2)
                B, T = max(1, min(B, most)), longest
            steps = batches.batches_per_epoch(ends, B, T)
        return {"batch_size": B, "seq_length": T, "steps_per_epoch": steps}

    def count_ngrams(self, V: int) -> tuple[Baselines, list[Stored]]:
        """Return the losses of a uniform guess and of n-gram models, and the n-grams to keep.

        The losses are in nats per character.
        """
        baselines: Baselines = {"val": {}, "test": {}}
        pairs = [(baselines["val"], self.val), (baselines["test"], self.test)]
        pairs = [(losses, split) for losses, split in pairs if len(split.ids)]
        for losses, split in pairs:
            losses["uniform"] = math.log(V) * len(split.ids) / split.characters
        texts = [(split.ids, split.context) for _, split in pairs]
        all_grams = list(number_ngrams(self.train[:COUNTED_SYMBOLS], V))
        orders = ngram_losses(all_grams, texts, V) if texts else []
        for n, nll_of_texts in enumerate(orders, 1):
            for (losses, split), nll in zip(pairs, nll_of_texts, strict=True):
                losses[f"{n}-gram"] = float(nll.sum() / split.characters)
        return baselines, prune(all_grams)
