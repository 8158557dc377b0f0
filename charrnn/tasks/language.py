"""The language model: the target of every symbol is the next one."""

from __future__ import annotations

from typing import Any

from charrnn.config import Config
from charrnn.tasks.base import Task
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
from charrnn.training import splits
from charrnn.training.split import Splits


class Language(Task):
    is_language_model = True

    def read(self, name: str, config: Config, *texts: str | bytes, **files: Any) -> Corpus:
        files["encoding"], files["mask"] = files.get("encoding", config.encoding), config.mask
        return Corpus(name, *texts, unit=config.unit, documents=config.documents, **files)

    def make_splits(
        self, corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
    ) -> Splits:
        return splits.make_splits(corpus, val, config, vocabulary)
