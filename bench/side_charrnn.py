"""charrnn's side: ``prepare(job)`` returns a function that works and returns its characters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from charrnn.config import Config
from charrnn.network import Network
from charrnn.sampling import generate_ids
from charrnn.scoring import contiguous_scores
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.loop import train_steps
from charrnn.training.run import begin
from charrnn.workers import Workers

NEVER = 10**9


def text(vocab_size: int, n: int = 1_000_000) -> str:
    """Return ``n`` characters; the k-th most common is 1/k as frequent as the first (Zipf)."""
    weights = 1 / np.arange(1, vocab_size + 1)
    ids = np.random.default_rng(0).choice(vocab_size, n, p=weights / weights.sum())
    ids[:vocab_size] = np.arange(vocab_size)
    return "".join(map(chr, ids + 0x4E00))


def prepare(job: dict[str, Any]) -> Callable[[], int]:
    """Prepare the job."""
    return {"train": train, "sample": sample, "score": score}[job["work"]](job)


def train(job: dict[str, Any]) -> Callable[[], int]:
    """One step of the training loop: a batch, forward, backward, clipping, the update."""
    config = Config(
        cell=job["cell"],
        num_layers=job["L"],
        hidden_size=job["H"],
        batch_size=job["B"],
        seq_length=job["T"],
        max_steps=NEVER,
        eval_every=NEVER,
        sample_every=0,
        val_fraction=0,
        test_fraction=0,
        **job.get("options", {}),
    )
    run = begin(Corpus("text", text(job["V"])), config, workers=job["workers"])
    stepping = train_steps(run)
    return lambda: next(stepping).characters


def network(job: dict[str, Any]) -> tuple[Network, Vocabulary]:
    """Return an untrained network and its vocabulary."""
    vocabulary = Vocabulary.from_text(text(job["V"], 10_000))
    return Network(
        job["cell"], job["V"], job["H"], job["L"], rng=np.random.default_rng(0)
    ), vocabulary


def sample(job: dict[str, Any]) -> Callable[[], int]:
    """Sample a hundred characters of B texts."""
    options = {"num_samples": job["B"], "workers": job["workers"]}
    id_stream = generate_ids(*network(job), np.random.default_rng(0), **options)
    return lambda: sum(len(ids) for ids in itertools.islice(id_stream, 100))


def score(job: dict[str, Any]) -> Callable[[], int]:
    """Score a text of half a million characters."""
    model, vocabulary = network(job)
    ids = vocabulary.encode(text(job["V"], 500_000))
    workers = Workers(job["workers"])
    return lambda: contiguous_scores(model, ids, ids[:1], workers).shape[1]
