"""The text of a run: how it is divided, recorded in a checkpoint, and read again."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from charrnn.arrays import Ids
from charrnn.config import Config
from charrnn.errors import CheckpointError, TextError, os_reason
from charrnn.formatting import escape_control
from charrnn.scoring import WARM_UP_SYMBOLS
from charrnn.storage.checkpoint import find_file
from charrnn.storage.state import CorpusRecord, ModelState, State, TextRecord
from charrnn.tasks.base import load_task
from charrnn.text import batches
from charrnn.text.corpus import (
    MAX_EVAL_CHARACTERS,
    MIN_EVAL_CHARACTERS,
    Corpus,
    EncodedSlice,
    split_offsets,
)
from charrnn.text.files import STDIN, Source
from charrnn.text.vocabulary import Vocabulary
from charrnn.text.words import encode_store, next_word
from charrnn.training.split import Split, Splits

MAX_LISTED_BYTES = 2**21  # of a header, for the files of a text: some 20,000 of them
FILE_BYTES = 60  # of a header, for each file, its path not counted


def make_splits(
    corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
) -> Splits:
    """Divide a text by position; ``val`` is a separate validation text. Raises TextError.

    Where documents end nearby, the validation and test splits are whole documents.
    """
    N = len(corpus.store)
    stored_ids = EncodedSlice(corpus.store, vocabulary.ids_of(corpus.store.codes), 0, N)
    separator_id, start_id = vocabulary.separator_id(config.documents), vocabulary.start_id

    # the starts of validation and test, at the end of a document or a word if one is nearby
    def align(offset: int) -> int:
        if separator_id is None or not 0 < offset < N:
            is_cut = vocabulary.unit == "word" and 0 < offset < N
            return next_word(corpus.store, offset) if is_cut else offset
        is_end = stored_ids[offset - 1 : offset + MAX_EVAL_CHARACTERS // 10] == separator_id
        return offset + int(is_end.argmax())  # 0 if there is none

    val_fraction = 0 if val else config.val_fraction
    starts = split_offsets(corpus.characters, val_fraction, config.test_fraction)
    a, b = (align(corpus.symbol_offset(n)) for n in starts)

    # a split that is too short is left out
    b = N if N - b < MIN_EVAL_CHARACTERS else b
    a = b if b - a < MIN_EVAL_CHARACTERS else a

    # the training split
    bounds = (0, a, b, N)
    store, id_table, offsets = encode_store(corpus.store, vocabulary, bounds)
    train, all_ids = (EncodedSlice(store, id_table, 0, offsets[i]) for i in (1, 3))
    if len(train) < 2:
        hint = "lower --val-fraction or --test-fraction"
        raise TextError(f"{corpus.name}: no characters left for training; {hint}")
    ends = None if separator_id is None else batches.document_ends(train, separator_id)

    # the others
    def make_split(i: int) -> Split:
        start, stop = offsets[i : i + 2]
        context = all_ids[max(start - WARM_UP_SYMBOLS, 0) : start]
        characters = corpus.count_characters(bounds[i], bounds[i + 1])
        return Split(all_ids[start:stop], context, characters, separator_id, int(start_id[0]))

    val_split = make_split(1)
    if val:
        is_long = val.characters > MAX_EVAL_CHARACTERS
        end = val.symbol_offset(MAX_EVAL_CHARACTERS) if is_long else len(val.store)
        store, id_table, (_, stop) = encode_store(val.store, vocabulary, (0, end))
        ids: Ids = np.take(id_table, store[:stop])
        characters = val.count_characters(0, end)
        val_split = val_split._replace(ids=ids, context=start_id, characters=characters)
    return Splits(train, corpus.count_characters(0, a), ends, val_split, make_split(2))


# --- the text of a saved run ---


def text_of(
    state: ModelState,
    path: Path,
    corpus: Corpus | None = None,
    val: Corpus | None = None,
    hint: str = "",
) -> tuple[Corpus, Corpus | None]:
    """Return the text of a saved run, and its separate validation text if it has one.

    Texts that are not given are read again. ``path`` is the checkpoint, ``hint`` follows the
    message on a text that has changed. Raises CheckpointError for such a text, or if the checkpoint
    does not name the files, and TextError if they cannot be read.
    """
    if not isinstance(state, State):
        reason = "an exported model, which does not record its training text"
        raise CheckpointError(f"{path}: {reason}")
    corpus = corpus or _read_again(state.corpus, state.config, path, "trained")
    change = corpus.describe_change(state.corpus)
    if state.val_corpus:
        val = val or _read_again(state.val_corpus, state.config, path, "validated")
        change = change or val.describe_change(state.val_corpus)
    elif val:
        change = change or "the validation text has changed"
    if change:
        raise CheckpointError(f"{path}: was trained on a different text ({change}){hint}")
    return corpus, val


def splits_of(state: ModelState, path: Path) -> Splits:
    """Return the splits of the text of a saved run. Raises as ``text_of`` does."""
    vocabulary = Vocabulary.from_header(state.vocabulary, state.config.unit)
    task = load_task(state.config.predict)
    return task.make_splits(*text_of(state, path), state.config, vocabulary)


def _read_again(record: TextRecord, config: Config, path: Path, used: str) -> Corpus:
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
            gone = "standard input or another pipe, which is gone"
            origin = "a text in memory, which is in no file" if source is None else gone
            raise CheckpointError(f"{path}: was {used} on {origin}")
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
    return load_task(config.predict).read(record["name"], config, paths=files)


def records_of(
    corpus: Corpus, val: Corpus | None, splits: Splits
) -> tuple[CorpusRecord, TextRecord | None]:
    """Return the records of a run's texts for its checkpoint."""
    record = cast(CorpusRecord, corpus.describe())
    train, val_split, test = splits.train_characters, splits.val.characters, splits.test.characters
    record["split_characters"] = {"train": train, "val": val_split, "test": test}
    return record, cast(TextRecord, val.describe()) if val else None


Record = TypeVar("Record", bound=TextRecord)


def with_relative_files(record: Record, path: Path) -> Record:
    """Return a record with files relative to the checkpoint ``path``, as many as it can list."""
    folder, length = Path(os.path.realpath(path)).parent, 0
    record, files = record.copy(), record["files"]
    record["files"] = []
    for name, size, crc in files:
        if name is not None and name != STDIN:
            file = Path(name).parent.resolve() / Path(name).name
            with contextlib.suppress(ValueError):  # from another drive there is no relative path
                file = Path(os.path.relpath(file, folder))
            name = "./-" if file == Path(STDIN) else file.as_posix()
        length += len(json.dumps(name)) + FILE_BYTES
        if length > MAX_LISTED_BYTES:
            break
        record["files"].append((name, size, crc))
    return record
