"""What can go wrong, and the exit code that tells a shell which it was."""

from enum import IntEnum
from pathlib import Path

from charrnn.formatting import escape_control

one_line = escape_control  # until its callers are renamed


class Exit(IntEnum):
    """Exit codes of the command line; the README lists them."""

    OK = 0
    USAGE = 2
    TEXT = 3
    CHECKPOINT = 4
    UNKNOWN_CHARACTER = 5
    NOT_FINITE = 6
    SAVE = 7
    INTERRUPTED = 130
    TERMINATED = 143


class CharrnnError(Exception):
    """An error that a user can mend; its text is one line that names the thing and the way out."""

    exit_code: Exit = Exit.USAGE


class UsageError(CharrnnError, ValueError):
    """Options that do not fit together, or a value outside its range."""


class TextError(CharrnnError, ValueError):
    """A corpus that cannot be read, decoded or trained on."""

    exit_code = Exit.TEXT


class CheckpointError(CharrnnError, ValueError):
    """A checkpoint that is missing, damaged, newer than this program, or not one at all."""

    exit_code = Exit.CHECKPOINT


class UnknownCharacterError(CharrnnError, ValueError):
    """A character that the model's vocabulary does not hold."""

    exit_code = Exit.UNKNOWN_CHARACTER


class NotFiniteError(CharrnnError, ArithmeticError):
    """A loss or a gradient that is infinite or not a number."""

    exit_code = Exit.NOT_FINITE


class GradientError(CharrnnError, ArithmeticError):
    """A gradient that differs from the numeric one."""

    exit_code = Exit.NOT_FINITE


class SaveError(CharrnnError, OSError):
    """A checkpoint that could not be written."""

    exit_code = Exit.SAVE


def unsaved(path: Path, e: OSError) -> SaveError:
    """Return what to raise where writing has failed."""
    return SaveError(escape_control(f"{path}: could not be saved ({(e.strerror or str(e)).lower()})"))
