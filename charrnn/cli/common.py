"""Shared by the commands: the model they read, arguments, standard output, threads."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.blas import BLAS_VARIABLES
from charrnn.cli.streams import print_message
from charrnn.errors import UsageError
from charrnn.formatting import format_count
from charrnn.storage.checkpoint import find_file
from charrnn.storage.output import replace_file
from charrnn.storage.state import ModelState, State
from charrnn.text.files import display_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charrnn.arrays import Ids
    from charrnn.model import Model
    from charrnn.tasks.split import Splits

CHECKPOINT_DIR = Path("checkpoints")
SHOWN_FILES = 10
WRONG_CHECKPOINT_SHARE = 0.2  # of unknown characters


class Count(click.IntRange):
    """A whole number, called N in help."""

    name = "whole number"

    def get_metavar(self, *_: object, **__: object) -> str:
        return "N"


class Number(click.FloatRange):
    """A finite number, called X in help."""

    name = "number"

    def get_metavar(self, *_: object, **__: object) -> str:
        return "X"

    def convert(self, value: Any, *context: Any) -> Any:
        number = super().convert(value, *context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", *context)
        return number


class Duration(click.ParamType):  # type: ignore[type-arg]  # not generic in older versions
    """A duration such as 90s, 10m or 1h, in seconds."""

    name = "duration"

    def convert(self, value: Any, *context: Any) -> float:
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh]?)", str(value))
        seconds = float(match[1]) * {"m": 60, "h": 3600}.get(match[2], 1) if match else 0.0
        if not seconds:
            self.fail(f"{value!r} is not a duration; give one such as 90s, 10m or 1h", *context)
        return seconds


# kinds of options, and options of several commands
flag = functools.partial(click.option, is_flag=True)
file_option = functools.partial(click.option, type=click.Path(path_type=Path), metavar="FILE")
json_option = functools.partial(flag, "--json", "as_json")
temp_option = functools.partial(
    click.option,
    *("-t", "--temp", "--temperature"),
    type=Number(0),
    default=1.0,
    help="Sampling temperature; 0 always picks the most likely character.",
)
length_option = functools.partial(click.option, "-n", "--length")
seed_option = functools.partial(click.option, "--seed", type=Count(0, 2**64 - 1))
sample_seed_option = seed_option(help="Random seed; the same seed gives the same text [random].")
force_option = flag("--force", help="Overwrite an existing file.")
mix_option = functools.partial(click.option, "--mix/--no-mix")
adapt_option = flag(
    "--adapt",
    help="Dynamic evaluation: a copy of the network keeps training on the text while it reads.",
)
last_option = flag(
    "--last",
    help="Use the latest weights, late in a run their average, instead of those with the lowest "
    "validation loss.",
)


def set_threads(threads: int) -> None:
    """Set the number of threads per matrix product. NumPy reads it once, when it is imported.

    More than one gain little on products of this size, and slow each other down when other programs
    use the same cores. Training splits its batch between workers instead.
    """
    for variable in BLAS_VARIABLES:
        os.environ[variable] = str(threads)


def write_output(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all, and report it on stderr. Raises SaveError."""
    with replace_file(path) as f:
        f.write(data)
    print_message(f"saved {path}, {format_count(len(data), 'byte')}")


def format_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that every program can read, in ASCII.

    Infinity and NaN become null, and bytes that are no text (lone surrogates) U+FFFD.
    """
    text = re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(value, default=vars, ensure_ascii=False))
    return json.dumps(json.loads(text, parse_constant=lambda _: None), indent=indent)


def check_stdin_once(paths: Sequence[str | None]) -> None:
    """Raise UsageError if ``-``, standard input, is among the paths more than once.

    If it is a terminal, print on stderr how the text ends.
    """
    if paths.count("-") > 1:
        raise UsageError("- (standard input) can be given only once")
    if "-" in paths and sys.stdin is not None and sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
        print_message(f"charrnn: reading standard input from the terminal; {end} ends it")


def default_run_name(corpus: Sequence[str]) -> str:
    """Return the first file's stem, the folder's name, or ``stdin``."""
    if corpus[0] == "-":
        return "stdin"
    path = Path(corpus[0])
    try:
        return (path.resolve().name if path.is_dir() else path.stem) or "root"
    except OSError:  # a name that no file can have
        return path.stem


def read_ids(paths: Sequence[str], model: Model) -> Ids:
    """Read a text as ids of a model; print on stderr how many unknown symbols were skipped."""
    from charrnn.analysis.gradients import encode_corpus
    from charrnn.text.corpus import Corpus

    text = Corpus(
        "text",
        paths=paths,
        unit=model.unit,
        documents=model.documents,
        encoding=model.encoding,
        mask=model.mask,
    )
    ids, unknown = encode_corpus(text, model.vocabulary)
    if unknown:
        print_message(f"charrnn: skipped {format_count(unknown, 'unknown symbol')}")
    return ids


def expand_folders(paths: Sequence[str], model: Model) -> list[str]:
    """Return the files, with the text files of each folder in its place. Raises TextError."""
    from charrnn.text.files import list_files

    files, skipped = list_files(paths, None if model.unit == "byte" else model.encoding)
    if skipped:
        print_message(f"charrnn: skipped in folders: {', '.join(skipped[:SHOWN_FILES])}")
    return ["./-" if file == Path("-") else str(file) for file in files]


def is_unknown(model: Model, text: str | bytes) -> NDArray[np.bool_]:
    """Return which characters of a text, once masked, the model does not know, (n,)."""
    from charrnn.text.masks import mask_text

    encoded = model.vocabulary.read(mask_text(text, model.mask))
    return encoded.for_characters(encoded.is_unknown)


def warn_of_unknown(name: str, share: float, path: Path) -> None:
    """Ask on stderr whether the checkpoint is the wrong one if many characters are unknown."""
    if share > WRONG_CHECKPOINT_SHARE:
        print_message(
            f"charrnn: {share:.0%} of the characters of {display_name(name)} are unknown to "
            f"{path}: wrong checkpoint?"
        )


def read_splits(state: ModelState, path: Path) -> Splits:
    """Read the text of the run in ``path`` again; print which files these are, on stderr.

    Raises CheckpointError, TextError.
    """
    from charrnn.training.splits import splits_of

    if isinstance(state, State):
        print_message(f"charrnn: the run's text is {format_files(state, path)}")
    return splits_of(state, path)


def format_files(state: State, path: Path) -> str:
    """Return the names of the first files of a run's text and of its validation text."""
    records = [state.corpus, *([state.val_corpus] if state.val_corpus else [])]
    names = [name for record in records for name, _, _ in record["files"]]
    shown = [display_name(find_file(path, name)) for name in names[:SHOWN_FILES]]
    return ", ".join(shown) + ", ..." * (len(names) > SHOWN_FILES)
