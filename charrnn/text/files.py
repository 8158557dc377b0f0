"""Files, folders and standard input, read in chunks and decoded."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from charrnn.errors import TextError, os_reason

STDIN = "-"  # the argument; a file of this name is Path("-") or "./-"
CHUNK_BYTES = 1 << 18  # read at a time; larger chunks are no faster
BINARY_BYTES = 8192  # at the start of a file: a NUL among them means that it is not text

BOMS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
ENCODING_HINT = "specify the encoding (for example --encoding latin-1), or use --unit byte"
CONVERT_HINT = "convert it first, for example with: iconv -f latin1 -t utf-8"

Source = str | Path


def list_files(paths: Sequence[Source], encoding: str | None) -> tuple[list[Source], list[str]]:
    """Return the files at some paths, and the names of skipped ones. Raises TextError.

    A folder becomes the text files in it and below, sorted by path, without hidden ones.
    With ``encoding`` None, for bytes, nothing is skipped.
    """
    files: list[Source] = []
    skipped: list[str] = []
    for path in paths:
        # not a folder: kept unchanged
        folder = Path(path)
        try:
            if path == STDIN or not folder.is_dir():
                files.append(path)
                continue
            entries = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        except OSError as e:
            raise _read_error(path, e) from None

        # the text files in the folder, without hidden ones
        visible = [p for p in entries if "/." not in f"/{p.relative_to(folder).as_posix()}"]
        texts = [p for p in visible if encoding is None or _is_text(p, encoding)]
        if not texts:
            raise TextError(f"{path}: contains no text files")
        files += texts
        skipped += map(str, sorted(set(visible) - set(texts)))
    return files, skipped


def _is_text(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    for i, data in enumerate(read_chunks(path)):
        if encoding == "utf-8" and i == 0 and b"\0" in data[:BINARY_BYTES]:
            return False
        try:
            decoder.decode(data, final=not data)
        except UnicodeError:
            return False
    return True


def read_chunks(path: Source) -> Iterator[bytes]:
    """Yield a file or standard input in chunks, of which the last is empty. Raises TextError."""
    if path == STDIN and sys.stdin is None:  # after the shell's <&-
        raise TextError("standard input is closed")
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield data
            yield data
    except OSError as e:
        raise _read_error(path, e) from None


def _read_error(path: Source, e: OSError) -> TextError:
    return TextError(f"{display_name(path)}: {os_reason(e)}")


def display_name(path: Source | None) -> str:
    """Return the name of a file, standard input or a text in memory (None) for messages."""
    if path is None:
        return "a text in memory"
    return "standard input" if path == STDIN else str(path)


def read_file(path: Source) -> bytes:
    """Read a file or standard input. Raises TextError."""
    return b"".join(read_chunks(path))


def read_text(path: Source, unit: str, encoding: str = "utf-8") -> str | bytes:
    """Read a file or standard input for a model of this unit. Raises TextError."""
    data = read_file(path)
    return data if unit == "byte" else decode_bytes(data, path, encoding)


def decode_bytes(data: bytes, path: Source, encoding: str = "utf-8") -> str:
    """Decode a text. Raises TextError with the path and the position of the first invalid byte."""
    decoder = Decoder(display_name(path), encoding, CONVERT_HINT)
    return decoder.decode(data) + decoder.decode(b"")


class Decoder:
    """Decodes a file in chunks; its errors name file and position, and end with ``hint``."""

    def __init__(self, name: str, encoding: str, hint: str = ENCODING_HINT) -> None:
        self.name, self.encoding, self.hint = name, encoding, hint
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._head, self._size, self._line = b"", 0, 1

    def decode(self, data: bytes) -> str:
        """Return the text of the next chunk; an empty one ends the file. Raises TextError."""
        self._head = self._head or data[:4]
        self._size += len(data)
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as e:
            raise TextError(f"{self.name}: {self._describe(e)}") from None
        self._line += text.count("\n")
        return text

    def _describe(self, e: UnicodeError) -> str:
        encoding = self.encoding.upper()
        for other, boms in BOMS.items():
            if self._head.startswith(boms) and not encoding.startswith(tuple(BOMS)):
                use_other = f"use --encoding {other.lower()}, or --unit byte"
                hint = use_other if self.hint == ENCODING_HINT else self.hint
                return f"has a {other} byte-order mark, so it is not {encoding}; {hint}"
        if not isinstance(e, UnicodeDecodeError):  # UTF-16 or UTF-32 without a byte-order mark
            return f"invalid {encoding} ({e}); {self.hint}"
        offset = self._size - len(e.object) + e.start
        line = self._line + e.object[: e.start].decode(self.encoding, "replace").count("\n")
        invalid = e.object[e.start : e.start + 4].hex(" ")
        where = f"at offset {offset:,}, line {line:,} (bytes {invalid})"
        return f"invalid {encoding} {where}; {self.hint}"
