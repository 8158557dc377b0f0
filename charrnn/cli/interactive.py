"""``charrnn sample --interactive``: what is typed primes the model, which continues it."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from charrnn.cli.streams import print_message, stdout
from charrnn.config import MAX_COUNT
from charrnn.errors import CharrnnError, UsageError

if TYPE_CHECKING:
    from charrnn.model import Model

PROMPT = "> "
STOPS = {"line": "\n", "paragraph": "\n\n"}
HELP = """\
Type a text; the model continues it to the end of the line.
  :more              continue the last text
  :temp X            set the temperature
  :seed N            set the random seed
  :length N          set the greatest number of characters
  :until WHERE       continue to the end of the line, or of the paragraph
  :quit              end, as Ctrl-D does; Ctrl-C stops a text
A text that begins with a colon is typed with two."""


class Session:
    """The settings of a session, and the last text with its continuation.

    Text number k after a seed is drawn with ``default_rng([seed, k])``.
    """

    def __init__(self, model: Model, length: int, seed: int, options: dict[str, Any]) -> None:
        self.model, self.length, self.seed, self.options = model, length, seed, options
        self.until = options.pop("until") or STOPS["line"]
        self.text, self.count = "", 0

    def obey(self, command: str) -> bool:
        """Carry out a command; return whether to go on. Raises UsageError."""
        name, _, value = command.partition(" ")
        if name == "quit":
            return False
        if name == "help":
            print_message(*HELP.splitlines())
        elif name == "more":
            self.write("")
        elif name == "until" and value in STOPS:
            self.until = STOPS[value]
        elif name == "temp":
            self.options["temp"] = read_number(value, float)
        elif name == "length":
            self.length = min(read_number(value, int), MAX_COUNT)
        elif name == "seed":
            self.seed, self.count = read_number(value, int), 0
        else:
            raise UsageError(f"unknown command :{command}; try :help")
        return True

    def continue_text(self, typed: str) -> None:
        """Continue a new text."""
        self.text = ""
        self.write(typed)

    def write(self, typed: str) -> None:
        """Write what is typed and its continuation, each character as it is sampled."""
        out, is_bytes = stdout().buffer, self.model.unit == "byte"
        encoding = "latin-1" if is_bytes else "utf-8"
        # a model of bytes reads a text whose characters are bytes
        typed = typed.encode("utf-8", "surrogateescape").decode("latin-1") if is_bytes else typed
        prime = self.text + typed
        source = prime.encode("latin-1") if is_bytes else prime
        pieces = self.model.sample_batch(
            1, self.length, seed=[self.seed, self.count], prime=source, **self.options
        )
        self.count += 1
        self.text = prime
        out.write(typed.encode(encoding, "surrogateescape"))
        try:
            for piece in self.stop(text for (text,) in pieces):
                out.write(piece.encode(encoding, "surrogatepass"))
                out.flush()
                self.text += piece
        finally:
            if not self.text.endswith("\n"):
                out.write(b"\n")
            out.flush()

    def stop(self, pieces: Iterator[str]) -> Iterator[str]:
        """Yield the pieces up to the stop string; newlines at the start do not count."""
        written = ""
        for character in itertools.chain.from_iterable(pieces):
            yield character
            written += character
            if written.lstrip("\n").endswith(self.until):
                return


def read_number(value: str, kind: type[Any]) -> Any:
    """Return a number that is at least 0. Raises UsageError."""
    try:
        number = kind(value)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        wanted = "a number" if kind is float else "a whole number"
        raise UsageError(f"{value or 'nothing'} is not {wanted} of at least 0")
    return number


def typed_lines() -> Iterator[str]:
    """Yield the lines of standard input; on a terminal after a prompt, with a history."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.removesuffix("\n")
        return
    with contextlib.suppress(ImportError):  # on Windows there is none
        import readline  # noqa: F401
    while True:
        try:
            if sys.stdout.isatty():
                yield input(PROMPT)
            else:
                sys.stderr.write(PROMPT)
                yield input()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        except EOFError:
            sys.stderr.write("\n")
            return


def run_session(session: Session) -> None:
    """Answer each line of standard input: a command, or a text to continue."""
    for line in typed_lines():
        try:
            if line.startswith(":") and not line.startswith("::"):
                if not session.obey(line[1:].strip()):
                    return
            elif line:
                session.continue_text(line[1:] if line.startswith("::") else line)
        except CharrnnError as e:
            print_message(f"charrnn: {e.args[0]}")
        except KeyboardInterrupt:  # stops a text
            continue
