"""The text of a run: how it is divided, recorded in a checkpoint, and read again."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import TypeVar, cast

from charrnn.config import Config
from charrnn.errors import CheckpointError, TextError, os_reason
from charrnn.formatting import escape_control
from charrnn.storage.checkpoint import find_file
from charrnn.storage.state import CorpusRecord, FeaturesRecord, ModelState, State, TextRecord
from charrnn.tasks.base import load_task
from charrnn.tasks.split import Splits
from charrnn.text.corpus import Corpus
from charrnn.text.files import STDIN, Source
from charrnn.text.vocabulary import Vocabulary

MAX_LISTED_BYTES = 2**21  # of a header, for the files of a text: some 20,000 of them
FILE_BYTES = 60  # of a header, for each file, its path not counted


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
    features = find_features(state, path)
    corpus = corpus or _read_again(state.corpus, state.config, path, "trained", features)
    change = corpus.describe_change(state.corpus)
    task = load_task(state.config)
    record, outputs = task.record_features(corpus), task.record_of(corpus)
    if record and state.features and record["file"][1:] != state.features["file"][1:]:
        change = change or f"the contents of {features} changed"
    named = [(r["outputs"], r["per"]) for r in (outputs, state.task) if r]
    if not change and len(named) == 2 and named[0] != named[1]:
        raise CheckpointError(f"{path}: damaged: the labels or tags are not those of its text")
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
    task = load_task(state.config)
    return task.make_splits(*text_of(state, path), state.config, vocabulary)


def find_features(state: State, path: Path) -> Path | None:
    """Return the file of a run's features, or None without any. Raises as ``_read_again``."""
    if state.features is None:
        return None
    name, size, _ = state.features["file"]
    return _find_again(path, name, size, "trained")


def _read_again(
    record: TextRecord, config: Config, path: Path, used: str, features: Path | None = None
) -> Corpus:
    """Read a recorded text again; the run in the checkpoint ``path`` was ``used`` on it.

    Only regular files of the recorded size are opened. Raises CheckpointError, TextError.
    """
    if len(record["files"]) < record["num_files"]:
        numbers = f"{record['num_files']:,} files, of which it lists {len(record['files']):,}"
        raise CheckpointError(f"{path}: was {used} on {numbers}; they cannot be read again")
    files: list[Source] = []
    for name, size, _ in record["files"]:
        files.append(_find_again(path, name, size, used))
    more = {"features": features} if features else {}
    return load_task(config).read(record["name"], config, paths=files, **more)


def _find_again(path: Path, name: str | None, size: int, used: str) -> Path:
    """Return a recorded file, if it is a regular one of this size."""
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
    return source


def records_of(
    corpus: Corpus, val: Corpus | None, splits: Splits
) -> tuple[CorpusRecord, TextRecord | None]:
    """Return the records of a run's texts for its checkpoint."""
    record = cast(CorpusRecord, corpus.describe())
    train, val_split, test = splits.train_characters, splits.val.characters, splits.test.characters
    record["split_characters"] = {"train": train, "val": val_split, "test": test}
    return record, cast(TextRecord, val.describe()) if val else None


def relative_features(record: FeaturesRecord | None, path: Path) -> FeaturesRecord | None:
    """Return a record with its file relative to the checkpoint ``path``."""
    if record is None:
        return None
    name, size, crc = record["file"]
    return {**record, "file": (name and _relative_name(name, path), size, crc)}


def _relative_name(name: str, path: Path) -> str:
    file, folder = (
        Path(name).parent.resolve() / Path(name).name,
        Path(os.path.realpath(path)).parent,
    )
    with contextlib.suppress(ValueError):  # from another drive there is no relative path
        file = Path(os.path.relpath(file, folder))
    return "./-" if file == Path(STDIN) else file.as_posix()


Record = TypeVar("Record", bound=TextRecord)


def with_relative_files(record: Record, path: Path) -> Record:
    """Return a record with files relative to the checkpoint ``path``, as many as it can list."""
    length, files, record = 0, record["files"], record.copy()
    record["files"] = []
    for name, size, crc in files:
        if name is not None and name != STDIN:
            name = _relative_name(name, path)
        length += len(json.dumps(name)) + FILE_BYTES
        if length > MAX_LISTED_BYTES:
            break
        record["files"].append((name, size, crc))
    return record
