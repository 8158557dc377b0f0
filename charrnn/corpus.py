"""Files and standard input to one text, with its checksum; and the text's parts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from charrnn.errors import TextError

LONGEST_PART = 500_000  # characters of validation or test: more would cost time and tell nothing new
SHORTEST_PART = 64


@dataclass
class Corpus:
    """A text and where it came from; ``skipped`` names the files of a folder that are not text."""

    name: str
    text: str
    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Measure the text; raise TextError if nothing can be learned from it."""
        try:
            data = self.text.encode()
        except UnicodeEncodeError as e:
            raise TextError(
                f"{self.name}: {self.text[e.start]!r} (offset {e.start}) is half of a surrogate pair, no character"
            ) from None
        self.bytes = len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()
        if len(self.text) < 2:
            what = "is empty" if not self.text else "has a single character"
            raise TextError(f"{self.name} {what}; a text needs at least two characters")


def read(paths: Sequence[str]) -> Corpus:
    """Read files, folders and ``-`` (standard input) as UTF-8 and join them in the order given.

    Line ends and a byte-order mark are kept. Of a folder every text file is read, those below it too, sorted by
    path; hidden ones are passed over. Raises TextError for what cannot be read or is not UTF-8.
    """
    texts, files, skipped = [], [], []
    for path in paths:
        if Path(path).is_dir():
            found = [p for p in sorted(Path(path).rglob("*")) if p.is_file() and not _hidden(p, Path(path))]
            for p in found:
                data = _bytes(p)
                try:
                    if b"\0" in data[:8192]:
                        raise TextError("binary")
                    texts.append(decode(data, str(p)))
                    files.append(str(p))
                except TextError:
                    skipped.append(str(p))
            if len(found) == len(skipped):
                raise TextError(f"{path}: there is no text file in this folder")
        else:
            texts.append(read_file(path))
            files.append(path)
    return Corpus(name_of(paths), "".join(texts), files, skipped)


def read_file(path: str) -> str:
    """Read one file, or standard input where the path is ``-``. Raises TextError."""
    if path != "-":
        return decode(_bytes(Path(path)), path)
    if sys.stdin is None:  # the shell's <&-
        raise TextError("standard input is closed")
    return decode(sys.stdin.buffer.read(), "standard input")


def name_of(paths: Sequence[str]) -> str:
    """Return what a run on these is called: the first file's stem, the folder's name, or ``stdin``."""
    if paths[0] == "-":
        return "stdin"
    path = Path(paths[0]).resolve()
    return (path.name if path.is_dir() else path.stem) or "root"


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8, or raise TextError with the place of the first wrong byte."""
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        wrong = data[e.start : e.start + 4].hex(" ")
        raise TextError(
            f"{name}: not UTF-8 at offset {e.start}, line {line} (bytes {wrong}); convert it first, for "
            f"instance with: iconv -f latin1 -t utf-8"
        ) from None


def split(n: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return where the validation and the test part begin in a text of n characters, by position.

    The parts are at most 500,000 characters each; one under 64 is left out, and training keeps its characters.
    """
    test = n - int(n * (1 - test_fraction))
    val = n - test - int(n * (1 - (val_fraction + test_fraction)))
    test, val = (min(p, LONGEST_PART) if p >= SHORTEST_PART else 0 for p in (test, val))
    return n - test - val, n - test


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise TextError(f"{path}: {(e.strerror or str(e)).lower()}") from None
