"""The vocabulary of a run: the symbols or words of its text, and those of an initial model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Ids
from charrnn.config import Config
from charrnn.formatting import format_count
from charrnn.network import Network
from charrnn.storage.checkpoint import output_names
from charrnn.storage.state import InitFrom, TaskRecord
from charrnn.text.corpus import Corpus
from charrnn.text.units import UNKNOWN, Codes
from charrnn.text.vocabulary import Vocabulary
from charrnn.text.words import count_words

SHOWN_SYMBOLS = 40


class InitialModel(NamedTuple):
    """A model that supplies the initial weights of a run, and its file."""

    network: Network
    vocabulary: Vocabulary
    file: str
    sha256: str | None
    task: TaskRecord | None = None


def match_inputs(new: TaskRecord | None, vocabulary: Vocabulary, old: InitialModel) -> Ids:
    """Return where the inputs of the initial model are here, below 0 for those that are not.

    They are its symbols, and with --generative its labels.
    """
    ids = vocabulary.ids_of(old.vocabulary.codes)
    labels, old_labels = (t["outputs"] if t and "shares" in t else [] for t in (new, old.task))
    index = {label: len(vocabulary) + i for i, label in enumerate(labels)}
    return np.append(ids, np.array([index.get(label, -1) for label in old_labels], np.intp))


def match_outputs(new: TaskRecord | None, old: TaskRecord | None, ids: Ids) -> Ids | None:
    """Return where the outputs of the initial model are here; None if they mean something else."""
    new_names, old_names = output_names(new), output_names(old)
    if not new_names and not old_names:
        return ids
    return np.arange(len(new_names)) if new_names == old_names else None


def build_vocabulary(
    corpus: Corpus, val: Corpus | None, config: Config, initial_model: InitialModel | None
) -> tuple[Vocabulary, InitFrom | None, list[str]]:
    """Return the vocabulary of the texts and of the initial model, how they match, and notes."""
    # count the symbols of both texts
    stores = [text.store for text in (corpus, val) if text]
    codes, index = np.unique(np.concatenate([s.codes for s in stores]), return_inverse=True)
    counts = np.bincount(index, np.concatenate([s.counts for s in stores])).astype(np.int64)
    limits = config.min_count, config.max_vocab
    if config.unit == "word":
        return _build_words(corpus, val, config, initial_model, codes, counts)
    vocabulary, notes = Vocabulary.from_counts(codes, counts, config.unit, *limits), []
    if (unknown_id := vocabulary.id(UNKNOWN)) is not None:
        is_rare = vocabulary.ids_of(codes) == unknown_id
        share = f"{counts[is_rare].sum() / counts.sum():.2%} of the text"
        notes.append(
            f"{format_count(int(is_rare.sum()), 'rare symbol')} ({share}) were mapped to the "
            f"unknown symbol, which is never sampled"
        )
    if initial_model is None:
        return vocabulary, None, notes

    vocabulary, init_from, note = _add_symbols(vocabulary, initial_model)
    return vocabulary, init_from, [*notes, note]


def _build_words(
    corpus: Corpus,
    val: Corpus | None,
    config: Config,
    initial_model: InitialModel | None,
    codes: Codes,
    counts: NDArray[np.int64],
) -> tuple[Vocabulary, InitFrom | None, list[str]]:
    """Return the same for the unit word, given the characters of the texts and their counts.

    Only the words of the training split count; an initial model keeps its words.
    """
    fractions = 0 if val else config.val_fraction, config.test_fraction
    word_counts, total = count_words(corpus.store, corpus.training_end(*fractions))
    assert config.max_vocab is not None
    limits = config.min_count, config.max_vocab
    words = initial_model.vocabulary.words if initial_model else None
    vocabulary = Vocabulary.from_words(codes, counts, word_counts, *limits, words=words)

    whole = sum(word_counts[token] for token in (*vocabulary.words, *vocabulary.symbols, ""))
    share = f"{1 - whole / max(total, 1):.2%}"
    notes = [f"rare words are spelled: {share} of the words, numbers, blanks and marks"]
    if initial_model is None:
        return vocabulary, None, notes
    vocabulary, init_from, note = _add_symbols(vocabulary, initial_model)
    return vocabulary, init_from, [*notes, note]


def _add_symbols(
    vocabulary: Vocabulary, initial_model: InitialModel
) -> tuple[Vocabulary, InitFrom, str]:
    """Add the symbols of the initial model; return how they match, and a note."""
    new, old, unit = vocabulary.codes, initial_model.vocabulary.codes, vocabulary.unit
    added, unused = new[~np.isin(new, old)], old[~np.isin(old, new)]
    file, sha256, matched = initial_model.file, initial_model.sha256, len(new) - len(added)
    init_from = InitFrom(
        file=file, sha256=sha256, matched=matched, added=len(added), unused=len(unused)
    )
    note = (
        f"initialized from {file}: {matched:,} symbols matched, "
        f"{_format_symbols(added, 'new', unit)}, "
        f"{_format_symbols(unused, 'not in this text', unit)}"
    )
    start, words = vocabulary.start_symbol, vocabulary.words
    return Vocabulary([*new, *old], start, unit, words), init_from, note


def _format_symbols(codes: Codes, label: str, unit: str) -> str:
    """Return the number of symbols and the first of them: ``2 new ('ab')``."""
    shown = Vocabulary(codes[:SHOWN_SYMBOLS], 0, unit).symbols
    more = "..." * (len(codes) > SHOWN_SYMBOLS)
    return f"{len(codes):,} {label}" + (f" ({shown!r}{more})" if shown else "")
