"""Errors that a user can fix, and the exit code of each."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    USAGE = 2
    TEXT = 3
    CHECKPOINT = 4
    UNKNOWN_CHARACTER = 5
    NOT_FINITE = 6
    SAVE = 7
    WORKER = 8
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143
    TIME_LIMIT = 152


class CharrnnError(Exception):
    """An error that a user can fix; its message is one line that names the cause and a remedy.

    Further arguments are commands that may help, a line each.
    """

    exit_code: ExitCode = ExitCode.USAGE
    is_shared = False  # raised on every rank of a cluster

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(CharrnnError, ValueError):
    """An invalid value, or options that exclude each other."""


class TextError(CharrnnError, ValueError):
    """A text that cannot be read, decoded or trained on."""

    exit_code = ExitCode.TEXT


class CheckpointError(CharrnnError, ValueError):
    """A checkpoint that is missing, damaged, too new, or of another kind than needed."""

    exit_code = ExitCode.CHECKPOINT


class UnknownCharacterError(CharrnnError, ValueError):
    """A character that is not in the model's vocabulary."""

    exit_code = ExitCode.UNKNOWN_CHARACTER


class NotFiniteError(CharrnnError, ArithmeticError):
    """A loss, gradient or weight that is infinite or NaN."""

    exit_code = ExitCode.NOT_FINITE


class GradientError(CharrnnError, ArithmeticError):
    """A gradient that differs from the numeric one."""

    exit_code = ExitCode.NOT_FINITE


class SaveError(CharrnnError, OSError):
    """A file that could not be written."""

    exit_code = ExitCode.SAVE


class WorkerError(CharrnnError, RuntimeError):
    """A worker process that ended before its work was done."""

    exit_code = ExitCode.WORKER
    is_partial = False  # it was to update weights: some are new, others old


class ClusterError(CharrnnError, RuntimeError):
    """Ranks that no longer compute the same."""

    exit_code = ExitCode.WORKER


def os_reason(e: OSError) -> str:
    """Return the reason of a system error: ``no such file or directory``."""
    return (e.strerror or str(e)).lower()
