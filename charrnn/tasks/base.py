"""The interface of a task: how a text is read, what the targets are, and what is measured."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import GENERATIVE_TASKS, TASKS, Config
from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.storage.state import FeaturesRecord, TaskRecord
from charrnn.tasks.split import Split, Splits
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary

Measures = dict[str, float]


class Predictor(NamedTuple):
    """What predicts: a network, its symbols, and the names of its outputs."""

    network: Network
    vocabulary: Vocabulary
    record: TaskRecord
    counts: NDArray[np.uint8]  # packed: what the network is mixed with, if there is anything


class Task(ABC):
    """What a network is to predict."""

    is_language_model = False

    @abstractmethod
    def read(self, name: str, config: Config, *texts: str | bytes, **files: Any) -> Corpus:
        """Read a text; ``files`` are the other arguments of ``Corpus``. Raises TextError."""

    @abstractmethod
    def make_splits(
        self, corpus: Corpus, val: Corpus | None, config: Config, vocabulary: Vocabulary
    ) -> Splits:
        """Divide a text; ``val`` is a separate validation text. Raises TextError."""

    def record_of(self, corpus: Corpus) -> TaskRecord | None:
        """Return the names of the outputs, or None for a language model."""
        return None

    def record_features(self, corpus: Corpus) -> FeaturesRecord | None:
        """Return the vectors that a text is about, as a checkpoint records them, or None."""
        return None

    def measure_corpus_baselines(self, corpus: Corpus) -> dict[str, Measures]:
        """Return what simple methods reach on the test split, by their names."""
        return {}

    def count(self, corpus: Corpus) -> NDArray[np.uint8]:
        """Return what is counted in the training split, to be mixed with the network, packed."""
        return np.empty(0, np.uint8)

    def fit_weights(self, predictor: Predictor, split: Split) -> list[float]:
        """Return the weights of the network and of the counts that fit the validation split."""
        return []

    def measure_split(self, predictor: Predictor, split: Split) -> dict[str, Measures]:
        """Return what the model, and the network alone if it is mixed, reach on a split."""
        return {}


def load_task(config: Config) -> Task:
    """Return the task of a run with these options."""
    return _load_task((GENERATIVE_TASKS if config.generative else TASKS)[config.predict])


@functools.cache
def _load_task(path: str) -> Task:
    module, _, attribute = path.partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task


def require_language_model(config: Config, name: str = "the model") -> None:
    """Raise UsageError for a model with another task than to predict the next symbol."""
    if not load_task(config).is_language_model:
        raise UsageError(
            f"{name}: predicts {config.predict}, and this needs a language model; "
            f"use charrnn predict, or charrnn eval"
        )
