"""The language model: the target of every symbol is the next one."""

from __future__ import annotations

from typing import Any

import numpy as np

from charrnn.arrays import Ids
from charrnn.config import Config
from charrnn.errors import TextError, UsageError
from charrnn.scoring import WARM_UP_SYMBOLS
from charrnn.tasks.base import Task
from charrnn.tasks.split import Split, Splits
from charrnn.text import batches
from charrnn.text.corpus import (
    MAX_EVAL_CHARACTERS,
    MIN_EVAL_CHARACTERS,
    Corpus,
    EncodedSlice,
    split_offsets,
)
from charrnn.text.vocabulary import Vocabulary
from charrnn.text.words import encode_store, next_word


class Language(Task):
    is_language_model = True

    def read(self, name: str, config: Config, *texts: str | bytes, **files: Any) -> Corpus:
        if files.pop("features", None) is not None:
            raise UsageError("--predict next does not read --features")
        files["encoding"], files["mask"] = files.get("encoding", config.encoding), config.mask
        return Corpus(name, *texts, unit=config.unit, documents=config.documents, **files)

    def make_splits(
        self, corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
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
