"""Shared by the commands: the model they read, arguments, standard output, threads."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from charrnn.errors import CheckpointError, SaveError, UsageError
from charrnn.formatting import escape_control, format_count
from charrnn.storage.checkpoint import read_state, replace_file

if TYPE_CHECKING:
    from charrnn.arrays import Ids
    from charrnn.model import Model

CHECKPOINT_DIR = Path("checkpoints")
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


# kinds of options, and options of several commands
flag = functools.partial(click.option, is_flag=True)
file_option = functools.partial(click.option, type=click.Path(path_type=Path), metavar="FILE")
json_option = functools.partial(flag, "--json", "as_json")
temp_option = functools.partial(
    click.option,
    *("-t", "--temp", "--temperature"),
    default=1.0,
    help="Sampling temperature; 0 always picks the most likely character.",
)
length_option = functools.partial(click.option, "-n", "--length")
seed_option = functools.partial(click.option, "--seed", type=Count(0))
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


def stdout() -> TextIO:
    """Return standard output. Raises SaveError if it is closed."""
    if sys.stdout is None:  # after the shell's >&-
        raise SaveError("standard output is closed")
    return sys.stdout


def check_output(path: Path, force: bool, source: Path) -> None:
    """Raise UsageError if ``path`` must not be written: it exists, or it is the file read."""
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path} is the checkpoint to read; use --output to name another file")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists; use --force to overwrite it")


def write_output(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all, and report it on stderr. Raises SaveError."""
    with replace_file(path) as f:
        f.write(data)
    click.echo(escape_control(f"saved {path}, {format_count(len(data), 'byte')}"), err=True)


def supports_color() -> bool:
    """Return whether standard output is a terminal with colors, and the user wants them."""
    wanted = not os.environ.get("NO_COLOR")
    return wanted and os.environ.get("TERM", "dumb") != "dumb" and stdout().isatty()


def format_json(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON, which has no infinity and no NaN: they become null."""
    infinite = {k: None for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    return json.dumps({**row, **infinite})


class ModelFile(NamedTuple):
    """The checkpoint that a command reads, and which of its weights."""

    path: Path
    last: bool = False

    def load(self, *notes: str) -> Model:
        """Load the model, and print on stderr which file it is from. Raises CheckpointError."""
        from charrnn.model import load

        model = load(self.path, last=self.last)
        click.echo(escape_control(f"charrnn: {', '.join([str(self.path), *notes])}"), err=True)
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

    Raises CheckpointError if there is none.
    """
    files = [path for path in CHECKPOINT_DIR.glob("*.npz") if path.is_file()]
    package = Path(__file__).parent.parent
    candidates = [
        *sorted(files, key=lambda p: (p.name != EXAMPLE, p.stat().st_mtime, p.name), reverse=True),
        package / EXAMPLE,  # in the wheel
        package.parent / CHECKPOINT_DIR / EXAMPLE,  # in a clone
    ]
    for path in filter(Path.is_file, candidates):
        with contextlib.suppress(CheckpointError):  # the command reports the damage
            if read_state(path).step == 0:
                continue
        return path
    raise CheckpointError(
        "no checkpoint found in ./checkpoints; create one with: charrnn train CORPUS"
    )


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
    """Raise UsageError if ``-``, standard input, is among the paths more than once."""
    if paths.count("-") > 1:
        raise UsageError("- (standard input) can be given only once")


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
        click.echo(f"charrnn: skipped {format_count(unknown, 'unknown symbol')}", err=True)
    return ids
