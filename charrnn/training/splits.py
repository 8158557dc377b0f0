"""The text of a run: its splits, how it is recorded in a checkpoint, and how it is read again."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from charrnn.analysis.ngram import ngram_losses
from charrnn.arrays import Array, Ids
from charrnn.config import Config
from charrnn.errors import CheckpointError, TextError, os_reason
from charrnn.formatting import escape_control
from charrnn.network import Network
from charrnn.scoring import WARM_UP_SYMBOLS, symbol_nll
from charrnn.storage.checkpoint import find_file
from charrnn.storage.state import (
    Baselines,
    Batches,
    CorpusRecord,
    FileRecord,
    ModelState,
    State,
    TextRecord,
)
from charrnn.text.batches import batches_per_epoch, document_ends, fit_batch_shape, steps_per_lane
from charrnn.text.corpus import (
    MAX_EVAL_CHARACTERS,
    MIN_EVAL_CHARACTERS,
    Corpus,
    EncodedSlice,
    split_offsets,
)
from charrnn.text.files import STDIN, Source, display_name
from charrnn.text.vocabulary import Vocabulary

BASELINE_SYMBOLS = 2_000_000  # to count n-grams in: memory must not grow with the text
MAX_LISTED_BYTES = 2**21  # of a header, for the files of a text: some 20,000 of them
FILE_BYTES = 60  # of a header, for each file, its path not counted


class Split(NamedTuple):
    """A validation or test split of a text."""

    ids: Ids  # (n,)
    context: Ids  # before them in the text
    characters: int
    separator_id: int | None  # ends a document
    start_id: int  # is fed before the first symbol of a document


class Splits(NamedTuple):
    """The splits of a text; the ids of the training split are read when it is sliced."""

    train: EncodedSlice
    train_characters: int
    document_ends: NDArray[np.int64] | None  # of the training split, if it is made of documents
    val: Split
    test: Split

    @property
    def symbols_per_character(self) -> float:
        """More than 1 if the unit is jamo."""
        return len(self.train) / self.train_characters


def make_splits(
    corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
) -> Splits:
    """Divide a text by position; ``val`` is a separate validation text. Raises TextError.

    Where documents end nearby, the validation and test splits are whole documents.
    """
    N, id_table = len(corpus.store), vocabulary.ids_of(corpus.store.codes)
    all_ids = EncodedSlice(corpus.store, id_table, 0, N)
    separator_id, start_id = vocabulary.separator_id(config.documents), vocabulary.start_id

    # the starts of validation and test; a split that is too short is left out
    val_fraction = 0 if val else config.val_fraction
    offsets = split_offsets(corpus.characters, val_fraction, config.test_fraction)
    a, b = (_align_to_document(all_ids, corpus.symbol_offset(n), separator_id) for n in offsets)
    if b < N and N - b < MIN_EVAL_CHARACTERS:
        b = N
    if a < b and b - a < MIN_EVAL_CHARACTERS:
        a = b

    # the training split
    train, ends = EncodedSlice(corpus.store, id_table, 0, a), None
    if len(train) < 2:
        hint = "lower --val-fraction or --test-fraction"
        raise TextError(f"{corpus.name}: no characters left for training; {hint}")
    if separator_id is not None:
        ends = document_ends(train, separator_id)

    # the others
    def make_split(start: int, stop: int) -> Split:
        context = all_ids[max(start - WARM_UP_SYMBOLS, 0) : start]
        characters = corpus.count_characters(start, stop)
        return Split(all_ids[start:stop], context, characters, separator_id, int(start_id[0]))

    val_split = make_split(a, b)
    if val:
        is_long = val.characters > MAX_EVAL_CHARACTERS
        end = val.symbol_offset(MAX_EVAL_CHARACTERS) if is_long else len(val.store)
        ids = np.take(vocabulary.ids_of(val.store.codes), val.store[:end])
        characters = val.count_characters(0, end)
        val_split = val_split._replace(ids=ids, context=start_id, characters=characters)
    return Splits(train, corpus.count_characters(0, a), ends, val_split, make_split(b, N))


def _align_to_document(ids: EncodedSlice, offset: int, separator_id: int | None) -> int:
    """Return the first document end from ``offset`` on, if one is near."""
    if separator_id is None or not 0 < offset < len(ids):
        return offset
    is_end = ids[offset - 1 : offset + MAX_EVAL_CHARACTERS // 10] == separator_id
    return offset + int(is_end.argmax()) if is_end.any() else offset


def split_nll(
    network: Network, split: Split, threads: int = 1, dynamic_lr: float | None = None
) -> Array:
    """Return -log p of each symbol of a split, in nats, (n,); see ``scoring.symbol_nll``."""
    ids, context, _, separator_id, start_id = split
    return symbol_nll(network, ids, context, separator_id, start_id, threads, dynamic_lr)


def split_text(split: Split, vocabulary: Vocabulary) -> str | bytes:
    """Return the text of a split; bytes if the unit is byte."""
    text = vocabulary.decode(split.ids)
    return text.encode("latin-1") if vocabulary.unit == "byte" else text


def fit_batches(config: Config, splits: Splits) -> Batches:
    """Return the shape of the batches, which are smaller than the options for a small text."""
    ends = splits.document_ends
    if ends is None:
        N = len(splits.train)
        B, T = fit_batch_shape(N, config.batch_size, config.seq_length)
        steps = math.ceil(steps_per_lane(N, B) / T)
    else:
        longest = int(np.diff(ends, prepend=0).max())
        B, T = min(config.batch_size, len(ends)), min(config.seq_length, longest)
        steps = batches_per_epoch(ends, B, T)
    return {"batch_size": B, "seq_length": T, "steps_per_epoch": steps}


def measure_baselines(splits: Splits, V: int) -> Baselines:
    """Return the losses of a uniform guess and of n-gram models, in nats per character."""
    baselines: Baselines = {"val": {}, "test": {}}
    pairs = [(baselines["val"], splits.val), (baselines["test"], splits.test)]
    pairs = [(losses, split) for losses, split in pairs if len(split.ids)]
    for losses, split in pairs:
        losses["uniform"] = math.log(V) * len(split.ids) / split.characters
    if pairs:
        texts = [(split.ids, split.context) for _, split in pairs]
        orders = ngram_losses(splits.train[:BASELINE_SYMBOLS], texts, V)
        for n, nll_of_texts in enumerate(orders, 1):
            for (losses, split), nll in zip(pairs, nll_of_texts, strict=True):
                losses[f"{n}-gram"] = float(nll.sum() / split.characters)
    return baselines


# --- the text of a saved run ---


def text_of(state: ModelState, path: Path) -> tuple[Corpus, Corpus | None]:
    """Read the text of a saved run again, and its separate validation text if it has one.

    ``path`` is the checkpoint. Raises CheckpointError if it does not name the files, or if they
    have changed, and TextError if they cannot be read.
    """
    if not isinstance(state, State):
        reason = "an exported model, which does not record its training text"
        raise CheckpointError(f"{path}: {reason}")
    corpus = read_again(state.corpus, state.config, path, "trained")
    val = None
    if state.val_corpus:
        val = read_again(state.val_corpus, state.config, path, "validated")
    if change := describe_text_change(state, corpus, val):
        raise CheckpointError(f"{path}: was trained on a different text ({change})")
    return corpus, val


def splits_of(state: ModelState, path: Path) -> Splits:
    """Return the splits of the text of a saved run. Raises as ``text_of`` does."""
    corpus, val = text_of(state, path)
    vocabulary = Vocabulary.from_header(state.vocabulary, state.config.unit)
    return make_splits(corpus, val, state.config, vocabulary)


def describe_text_change(state: State, corpus: Corpus, val: Corpus | None) -> str | None:
    """Return a description of a change in the texts of a saved run, or None."""
    if change := corpus.describe_change(state.corpus):
        return change
    if state.val_corpus and val:
        return val.describe_change(state.val_corpus)
    return "the validation text has changed" if state.val_corpus or val else None


def read_again(record: TextRecord, config: Config, path: Path, used: str) -> Corpus:
    """Read a recorded text again; the run in the checkpoint ``path`` was ``used`` on it.

    Only regular files of the recorded size are opened. Raises CheckpointError, TextError.
    """
    if len(record["files"]) < record["num_files"]:
        numbers = f"{record['num_files']:,} files, of which it lists {len(record['files']):,}"
        raise CheckpointError(f"{path}: was {used} on {numbers}; they cannot be read again")
    files: list[Source] = []
    for name, size, _ in record["files"]:
        source = find_file(path, name)
        if not isinstance(source, Path):
            reason = f"was {used} on {display_name(source)}, which cannot be read again"
            raise CheckpointError(f"{path}: {reason}")
        try:
            info = source.stat()
        except (OSError, ValueError) as e:
            reason = os_reason(e) if isinstance(e, OSError) else str(e)
            raise TextError(escape_control(f"{source}: {reason}")) from None
        if not stat.S_ISREG(info.st_mode):
            raise TextError(escape_control(f"{source}: not a regular file"))
        if info.st_size != size:
            change = escape_control(f"{source} changed from {size:,} to {info.st_size:,} bytes")
            raise CheckpointError(f"{path}: was {used} on a different text ({change})")
        files.append(source)
    unit, documents, encoding = config.unit, config.documents, config.encoding
    return Corpus(record["name"], paths=files, unit=unit, documents=documents, encoding=encoding)


def corpus_record(corpus: Corpus, splits: Splits) -> CorpusRecord:
    """Return the record of a run's text for its checkpoint."""
    val, test = splits.val.characters, splits.test.characters
    return {
        **text_record(corpus),
        "split_characters": {"train": splits.train_characters, "val": val, "test": test},
    }


def text_record(corpus: Corpus) -> TextRecord:
    """Return the record of a text for a checkpoint."""
    return cast(TextRecord, corpus.describe())


def list_relative(files: list[FileRecord], path: Path) -> list[FileRecord]:
    """Return files relative to the checkpoint ``path``, as many as a header can list."""
    folder = Path(os.path.realpath(path)).parent
    listed: list[FileRecord] = []
    length = 0
    for name, size, crc in files:
        if name is not None and name != STDIN:
            file = Path(name).parent.resolve() / Path(name).name
            with contextlib.suppress(ValueError):  # from another drive there is no relative path
                file = Path(os.path.relpath(file, folder))
            name = "./-" if file == Path(STDIN) else file.as_posix()
        length += len(json.dumps(name)) + FILE_BYTES
        if length > MAX_LISTED_BYTES:
            break
        listed.append((name, size, crc))
    return listed
