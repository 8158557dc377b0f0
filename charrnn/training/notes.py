"""Notes for the user at the start of a run: what its text and its sizes lead to."""

from __future__ import annotations

from collections.abc import Iterator

from charrnn.cells import load_cell
from charrnn.formatting import format_count
from charrnn.storage.state import State
from charrnn.tasks.split import COUNTED_SYMBOLS, Splits
from charrnn.text.corpus import MAX_EVAL_CHARACTERS, Corpus

LARGE_VOCABULARY = 2000
SHOWN_SKIPPED_FILES = 10


def start_notes(state: State, splits: Splits, corpus: Corpus, val: Corpus | None) -> Iterator[str]:
    """Yield notes for the user on the text and the sizes of a new run."""
    config, batches = state.config, state.batches

    # the texts
    yield from corpus.notes
    if corpus.skipped:
        names = ", ".join(corpus.skipped[:SHOWN_SKIPPED_FILES])
        more = ", ..." * (len(corpus.skipped) > SHOWN_SKIPPED_FILES)
        yield f"skipped in folders: {names}{more}"
    if val:
        yield from val.notes
        if val.characters > MAX_EVAL_CHARACTERS:
            yield f"validating on the first {MAX_EVAL_CHARACTERS:,} characters of {val.name}"
    if not len(splits.val.ids):
        yield "no validation split: the latest weights are used as the best"
    if len(splits.train) > COUNTED_SYMBOLS and (len(splits.val.ids) or len(splits.test.ids)):
        yield f"the n-gram baselines use only the first {COUNTED_SYMBOLS:,} symbols"

    # documents that are none
    if config.documents == "line" and splits.document_ends is None:
        has_returns = state.vocabulary["symbols"].find("\r") >= 0
        hint = "; its lines end with carriage returns: convert it with: tr '\\r' '\\n'"
        yield f"--documents line has no effect: no line feeds{hint if has_returns else ''}"
    if config.documents == "file" and len(corpus.files) == 1:
        yield "--documents file has no effect: there is only one file"

    # the batches
    B, T, steps = batches["batch_size"], batches["seq_length"], batches["steps_per_epoch"]
    if splits.document_ends is not None:
        documents = format_count(len(splits.document_ends), "training document")
        per_epoch = f"{format_count(steps, 'step')} per epoch"
        yield f"{documents} (one per {config.documents or 'line'}); {per_epoch}"
    elif (config.batch_size, config.seq_length) != (B, T):
        reduced = [("batch size", config.batch_size, B), ("sequence length", config.seq_length, T)]
        changes = (f"{name} reduced from {old} to {new}" for name, old, new in reduced if old > new)
        yield f"small text: {', '.join(changes)}"

    # the network
    V, H = state.vocabulary["size"], config.hidden_size
    if V > LARGE_VOCABULARY:
        hint = "--max-vocab N, --min-count N or --unit byte (for Hangul: jamo)"
        if config.unit == "word":
            hint = "--max-vocab N or --min-count N"
        size = V * (load_cell(config.cell).NUM_BLOCKS * H + H + 1)  # of Wxh, Why and by
        yield (
            f"a vocabulary of {V:,} symbols accounts for {size / state.parameters:.0%} of the "
            f"parameters and most of the training time; reduce it with {hint}"
        )
