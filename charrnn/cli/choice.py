"""Which checkpoint a command reads: the one that is named, or the newest."""

from __future__ import annotations

import difflib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from charrnn.cli.common import CHECKPOINT_DIR, check_stdin_once, last_option
from charrnn.cli.streams import print_message
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import format_count
from charrnn.storage.checkpoint import read_state
from charrnn.storage.state import ModelState, State
from charrnn.text.files import CHECKPOINT_KIND, display_name, is_url, recognize

if TYPE_CHECKING:
    from charrnn.model import Model

EXAMPLE = "example.npz"
SUFFIX = ".npz"
# the largest age in seconds of each unit, and its seconds
AGES = {"second": (120, 1), "minute": (7200, 60), "hour": (172_800, 3600), "day": (1e12, 86_400)}

DEFAULT_HELP = "the newest trained checkpoint in ./checkpoints, or the bundled example"
CHECKPOINT_HELP = f"""
    CHECKPOINT is a file, or the name of one in ./checkpoints (play for checkpoints/play.npz).
    Default: {DEFAULT_HELP}.
    """
FILES_HELP = f"""
    CHECKPOINT is a file, or the name of one in ./checkpoints (play for checkpoints/play.npz).
    Without it, {DEFAULT_HELP} is used.
    """


class ModelFile(NamedTuple):
    """The checkpoint that a command reads, why that one, and which of its weights."""

    path: Path
    last: bool = False
    reason: str = ""

    def load(self, *notes: str, any_task: bool = False) -> Model:
        """Load the model, and print on stderr which file it is from. Raises CheckpointError.

        Raises UsageError for another model than a language model, unless it may have ``any_task``.
        """
        from charrnn.model import load
        from charrnn.tasks.base import require_language_model

        model = load(self.path, last=self.last)
        if not any_task:
            require_language_model(model.config, str(self.path))
        self.announce(*notes)
        return model

    def announce(self, *notes: str) -> None:
        """Print on stderr which file is read, and why."""
        parts = [str(self.path), *([self.reason] if self.reason else []), *notes]
        print_message(f"charrnn: {', '.join(parts)}")


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
                command(choose(checkpoint, last), texts, **options)
            else:
                command(choose(find_checkpoint(paths) if paths else None, last), **options)

        run.__doc__ = f"{command.__doc__}{FILES_HELP if files else CHECKPOINT_HELP}"
        metavar, nargs = f"[CHECKPOINT] {files}".rstrip(), -1 if files else 1
        argument = click.argument("paths", metavar=metavar, nargs=nargs, required=False)
        return argument(last_option(run) if last else run)

    return decorate


def choose(path: Path | None, last: bool = False) -> ModelFile:
    """Return a given checkpoint, or the newest one with the reason for it."""
    return ModelFile(path, last) if path else default_checkpoint()._replace(last=last)


def default_checkpoint() -> ModelFile:
    """Return the newest checkpoint of a trained model in ./checkpoints, or the bundled example.

    What is not a checkpoint is passed over, and named if nothing else is there.
    """
    newest, unusable = list_checkpoints()
    trained = [(path, state) for path, state in newest if state.step > 0]
    for path, state in trained:
        others = f"newest of {len(trained)} checkpoints" if len(trained) > 1 else "only checkpoint"
        reason = f"the {others} ({format_age(path)}, {format_origin(state)})"
        return ModelFile(path, reason=reason)
    print_message(*(f"charrnn: passed over {e}" for e in unusable))
    package = Path(__file__).parent.parent
    for path in (package / EXAMPLE, package.parent / CHECKPOINT_DIR / EXAMPLE):  # wheel, clone
        if path.is_file():
            reason = "the bundled example, because ./checkpoints has no trained model"
            return ModelFile(path, reason=reason)
    raise CheckpointError("no checkpoint in ./checkpoints; create one with: charrnn train CORPUS")


def list_checkpoints() -> tuple[list[tuple[Path, ModelState]], list[CheckpointError]]:
    """Return the checkpoints in ./checkpoints, the newest first, and why others are unusable.

    The bundled example is the last one, however new it is.
    """
    files = [path for path in CHECKPOINT_DIR.glob(f"*{SUFFIX}") if path.is_file()]
    newest = sorted(files, key=lambda p: (p.name != EXAMPLE, p.stat().st_mtime, p.name))[::-1]
    usable, unusable = [], []
    for path in newest:
        try:
            usable.append((path, read_state(path)))
        except CheckpointError as e:
            unusable.append(e)
    return usable, unusable


def format_age(path: Path) -> str:
    """Return how old a file is: ``3 minutes old``."""
    age = max(time.time() - path.stat().st_mtime, 0)
    unit, (_, seconds) = next(item for item in AGES.items() if age < item[1][0] or item[0] == "day")
    return f"{format_count(int(age // seconds), unit)} old"


def format_origin(state: ModelState) -> str:
    """Return what a model was trained on: ``trained on play.txt and 2 more``."""
    return f"trained on {corpus_name(state)}" if isinstance(state, State) else "an exported model"


def corpus_name(state: State) -> str:
    """Return the name of the first file of a run's corpus, and how many more there are."""
    (path, _, _), n = state.corpus["files"][0], state.corpus["num_files"]
    name = Path(path).name if path and path != "-" else display_name(path)
    return f"{name} and {n - 1:,} more" if n > 1 else name


def find_checkpoint(name: str | Path) -> Path:
    """Return the file of a checkpoint, which may be the name of one in ./checkpoints.

    Raises CheckpointError if there is none, with the name that is most like it.
    """
    path = Path(name)
    if _exists(path):
        return path
    if is_url(str(name)):
        raise CheckpointError(f"{name} is a URL: download it first")
    for candidate in _candidates(path):
        if _exists(candidate):
            return candidate
    stems = {file.stem: file for file in CHECKPOINT_DIR.glob(f"*{SUFFIX}")}
    similar = difflib.get_close_matches(path.stem, stems, n=1)
    hint = f"did you mean {stems[similar[0]]}?" if similar else "charrnn ls lists those there are"
    raise CheckpointError(f"{name}: no such file; {hint}")


def _candidates(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}{SUFFIX}") if path.name else path
    if path.name == str(path):
        yield CHECKPOINT_DIR / path
        yield CHECKPOINT_DIR / f"{path}{SUFFIX}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def split_arguments(
    arguments: Sequence[str], required: bool = True
) -> tuple[Path | None, list[str]]:
    """Split ``[CHECKPOINT] FILE...``.

    The first argument is the checkpoint if it ends in .npz, if its content is one, or if there is
    no such file but a checkpoint of that name in ./checkpoints. Raises UsageError if standard input
    is named twice, if a required file is missing, or if another argument is a checkpoint, and
    CheckpointError if there is no such checkpoint.
    """
    checkpoint = _as_checkpoint(arguments[0]) if arguments else None
    files = list(arguments[checkpoint is not None :])
    for file in files:
        if recognize(file) == CHECKPOINT_KIND:
            raise UsageError(f"{file} is {CHECKPOINT_KIND}: it comes first, before the text")
    if required and not files:
        after = f" after {arguments[0]}" if checkpoint else ""
        raise UsageError(f"missing text file{after} (use - for standard input)")
    check_stdin_once(files)
    return checkpoint, files


def _as_checkpoint(name: str) -> Path | None:
    """Return the checkpoint that an argument names, or None for a text."""
    if name.endswith(SUFFIX):
        return find_checkpoint(name)
    path = Path(name)
    if name == "-" or _exists(path):
        return path if recognize(name) == CHECKPOINT_KIND else None
    return next(filter(_exists, _candidates(path)), None)
