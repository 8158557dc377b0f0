"""The standard streams: data on stdout, messages on stderr, whether they are closed or full."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from charrnn.errors import SaveError
from charrnn.formatting import escape_control


class Unfailing(io.RawIOBase):
    """A binary stream that ignores its failures: a message that is lost must not end a command."""

    def __init__(self, text: TextIO | None) -> None:
        """Write to the stream below ``text``, which closes it when it is collected."""
        self.text = text
        buffer: Any = text.buffer if text else io.BytesIO()
        self.stream = getattr(buffer, "raw", buffer)  # itself, if it is not buffered

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        with contextlib.suppress(OSError):
            while len(rest):
                # the stream returns None if it would have to wait
                rest = rest[self.stream.write(rest) or len(rest) :]
            self.stream.flush()
        return len(data)


def prepare_streams() -> None:
    """Let no stream end a command: open closed ones, ignore failures of stderr, escape on stdout.

    A closed standard output stays None, see ``stdout``.
    """
    # the next file that is opened would take the number of a closed stream
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)

    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    stream: Any = Unfailing(sys.stderr)
    sys.stderr = io.TextIOWrapper(stream, encoding, "backslashreplace", write_through=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def stdout() -> TextIO:
    """Return standard output. Raises SaveError if it is closed."""
    if sys.stdout is None:  # after the shell's >&-
        raise SaveError("standard output is closed")
    return sys.stdout


def discard_output() -> None:
    """Let the buffer of a standard output that failed not fail again when Python closes it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_lines(*lines: str) -> None:
    """Print lines on stdout; escape control characters in them, but not tabs."""
    out = stdout()
    for line in lines:
        out.write("\t".join(map(escape_control, line.split("\t"))) + "\n")


def format_columns(columns: Iterable[str]) -> str:
    """Return a line of columns, for ``print_lines``; a tab in one of them is escaped."""
    return "\t".join(map(escape_control, columns))


def print_message(*lines: str) -> None:
    """Print a message on stderr, one line or several; escape control characters in them."""
    for line in lines:
        sys.stderr.write(f"{escape_control(line)}\n")


def supports_color() -> bool:
    """Return whether standard output is a terminal with colors, and the user wants them."""
    wanted = not os.environ.get("NO_COLOR")
    return wanted and os.environ.get("TERM", "dumb") != "dumb" and stdout().isatty()
