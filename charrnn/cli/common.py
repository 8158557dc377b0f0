"""Shared by the commands: the model they read, arguments, standard output, threads."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from charrnn.cli.streams import print_message
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import format_count
from charrnn.storage.checkpoint import find_file, read_state
from charrnn.storage.output import replace_file
from charrnn.storage.state import ModelState, State
from charrnn.text.files import display_name

if TYPE_CHECKING:
    from charrnn.arrays import Ids
    from charrnn.model import Model
    from charrnn.training.splits import Splits

CHECKPOINT_DIR = Path("checkpoints")
SHOWN_FILES = 10
EXAMPLE = "example.npz"
# Of training: the same on every machine, so that the same seed gives the same result everywhere.
DEFAULT_THREADS = 2
BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)

CHECKPOINT_HELP = """
    Default: the newest checkpoint in ./checkpoints, or the bundled example if there is none.
    """
FILES_HELP = """
    If the first argument does not end in .npz, the newest checkpoint in ./checkpoints is used, or
    the bundled example if there is none.
    """


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
last_option = flag(
    "--last", help="Use the latest weights instead of those with the lowest validation loss."
)


def set_threads(threads: int) -> None:
    """Set the number of threads per matrix product. NumPy reads it once, when it is imported.

    More than one gain little on products of this size, and slow each other down when other programs
    use the same cores. Training splits its batch between threads instead.
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


class ModelFile(NamedTuple):
    """The checkpoint that a command reads, and which of its weights."""

    path: Path
    last: bool = False

    def load(self, *notes: str) -> Model:
        """Load the model, and print on stderr which file it is from. Raises CheckpointError."""
        from charrnn.model import load

        model = load(self.path, last=self.last)
        print_message(f"charrnn: {', '.join([str(self.path), *notes])}")
        return model


def model_argument(
    files: str = "", last: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the argument ``[CHECKPOINT]``, and with ``last`` the option ``--last``.

    The command gets a ModelFile as its first argument. With ``files``, the metavar of the texts
    after the checkpoint, it gets their names as its second; ``[FILE]`` may be missing. Its help
    then ends with the default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(paths: Any, last: bool = False, **options: Any) -> None:
            if files:
                checkpoint, texts = split_arguments(paths, required=not files.startswith("["))
                command(ModelFile(checkpoint or default_checkpoint(), last), texts, **options)
            else:
                path = Path(paths) if paths else default_checkpoint()
                command(ModelFile(path, last), **options)

        run.__doc__ = f"{command.__doc__}{FILES_HELP if files else CHECKPOINT_HELP}"
        metavar, nargs = f"[CHECKPOINT] {files}".rstrip(), -1 if files else 1
        argument = click.argument("paths", metavar=metavar, nargs=nargs, required=False)
        return argument(last_option(run) if last else run)

    return decorate


def default_checkpoint() -> Path:
    """Return the newest checkpoint of a trained model in ./checkpoints, or the bundled example.

    What is not a checkpoint is passed over, and named if nothing else is there.
    """
    files = [path for path in CHECKPOINT_DIR.glob("*.npz") if path.is_file()]
    newest = sorted(files, key=lambda p: (p.name != EXAMPLE, p.stat().st_mtime, p.name))[::-1]
    unusable = []
    for path in newest:
        try:
            if read_state(path).step > 0:
                return path
        except CheckpointError as e:
            unusable.append(f"charrnn: passed over {e}")
    print_message(*unusable)
    package = Path(__file__).parent.parent
    for path in (package / EXAMPLE, package.parent / CHECKPOINT_DIR / EXAMPLE):  # wheel, clone
        if path.is_file():
            return path
    raise CheckpointError("no checkpoint in ./checkpoints; create one with: charrnn train CORPUS")


def split_arguments(
    arguments: Sequence[str], required: bool = True
) -> tuple[Path | None, list[str]]:
    """Split ``[CHECKPOINT] FILE...``: a first argument that ends in .npz is the checkpoint.

    Raises UsageError if standard input is named twice, or if a required file is missing.
    """
    has_checkpoint = bool(arguments) and arguments[0].endswith(".npz")
    files = list(arguments[has_checkpoint:])
    if required and not files:
        after = f" after {arguments[0]}" if has_checkpoint else ""
        raise UsageError(f"missing text file{after} (use - for standard input)")
    check_stdin_once(files)
    return (Path(arguments[0]) if has_checkpoint else None), files


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
        "text", paths=paths, unit=model.unit, documents=model.documents, encoding=model.encoding
    )
    ids, unknown = encode_corpus(text, model.vocabulary)
    if unknown:
        print_message(f"charrnn: skipped {format_count(unknown, 'unknown symbol')}")
    return ids


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
