"""The samples of a run, and whether they are copies."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from charrnn.analysis.overlap import code_view, longest_matches, match_lengths
from charrnn.sampling import decode_stream, generate_ids
from charrnn.storage.state import Evaluation, LoggedSample
from charrnn.text import units
from charrnn.text.units import FIRST_SPECIAL, FIRST_TAIL
from charrnn.training.run import RngStream, Run

SAMPLE_CHARACTERS = 200
SAMPLE_LINES = 8  # whichever limit comes first
SAMPLE_TEMP = 0.8
MAX_SAMPLES = 1000
COPY_SEARCH_SYMBOLS = 5_000_000  # of the training split

Row = TypeVar("Row", Evaluation, LoggedSample)


def log_sample(run: Run) -> str:
    """Sample a text, or with a document per line several lines, and keep it."""
    state = run.state
    rng = np.random.default_rng([run.config.seed, RngStream.SAMPLE, state.step])
    v, n = run.vocabulary, SAMPLE_LINES if run.config.documents == "line" else 1
    id_stream = generate_ids(run.network, v, rng, temp=SAMPLE_TEMP, num_samples=n)
    separator_id = v.separator_id(run.config.documents)
    stream = decode_stream(id_stream, v, n, SAMPLE_CHARACTERS, separator_id=separator_id)
    texts = [""] * n
    for pieces in stream:
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        if n == 1 and texts[0].count("\n") == SAMPLE_LINES:
            break
    sample = "".join(text if n == 1 or text.endswith("\n") else f"{text}\n" for text in texts)
    state.samples = thin(state.samples, MAX_SAMPLES)
    state.samples.append({"step": state.step, "text": sample})
    return sample


def longest_copy(run: Run) -> int:
    """Return the length in characters of the last sample's longest copy from the training split.

    Only the first 5 million symbols of the split are searched.
    """
    if not run.state.samples:
        return 0
    text, unit = run.state.samples[-1]["text"], run.config.unit
    codes = units.to_codes(text.encode("latin-1") if unit == "byte" else text, unit)
    if unit == "word":
        codes = run.vocabulary.encode(text).astype(np.uint32)  # the store has ids
    train = run.splits.train
    searched = code_view(train.store, min(train.stop, COPY_SEARCH_SYMBOLS))
    for start, length in longest_matches(match_lengths(codes, searched), 1):
        piece = codes[start : start + length]
        if unit == "word":
            return len(run.vocabulary.decode(piece))
        # in the training split the last syllable may continue with one more jamo
        is_cut = FIRST_SPECIAL <= piece[-1] < FIRST_TAIL
        return int(units.starts_character(piece).sum()) - int(is_cut)
    return 0


def thin(rows: list[Row], limit: int, best_step: int = -1) -> list[Row]:
    """Return the rows if there are fewer than ``limit``, or else every second one and the best."""
    if len(rows) < limit:
        return rows
    return [row for i, row in enumerate(rows) if i % 2 == 0 or row["step"] == best_step]
