"""Files, folders and standard input, read in chunks and decoded."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, cast

from charrnn.errors import TextError, os_reason
from charrnn.text.masks import mask_text

STDIN = "-"  # the argument; a file of this name is Path("-") or "./-"
CHUNK_BYTES = 1 << 18  # read at a time; larger chunks are no faster
BINARY_BYTES = 8192  # at the start of a file: a NUL among them means that it is not text

BOMS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
ENCODING_HINT = "specify the encoding (for example --encoding latin-1), or use --unit byte"
CONVERT_HINT = "convert it first, for example with: iconv -f latin1 -t utf-8"

# by the first bytes of a file
MAGIC_BYTES = 64
DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
CHECKPOINT_KIND = "a charrnn checkpoint"
# by the name of the first member of a zip archive
ARCHIVES = {
    rb"((average|best|last)_weights|counts|(hidden|optimizer)_state)\.npy|"
    rb"header\.json": CHECKPOINT_KIND,
    rb"[^/]*\.npy": "a NumPy archive",
    rb"[^/]*/(data\.pkl|version|byteorder|\.format_version)": "a PyTorch file",
}
FOREIGN_FORMATS = {
    b"\x80\x02\x8a\nl\xfc\x9c": ("a PyTorch file", ""),
    b"\x93NUMPY": ("a NumPy array", ""),
    b"PK\3\4": ("a zip archive or an office document", "unzip -p FILE, or pandoc -t plain FILE"),
    b"%PDF-": ("a PDF document", "pdftotext FILE -"),
    b"\xd0\xcf\x11\xe0": ("an office document", "antiword FILE"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "zstd -dc FILE"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", "7z e -so FILE"),
    b"\x89PNG": ("a picture", ""),
    b"\xff\xd8\xff": ("a picture", ""),
    b"\x7fELF": ("a program", ""),
}
PAGE_MARK = b"<meta name=generator content=charrnn>"

Source = str | Path


def list_files(
    paths: Sequence[Source],
    encoding: str | None,
    own: Iterable[Path] = (),
    recorded: Collection[str] = (),
) -> tuple[list[Source], list[str]]:
    """Return the files at some paths, and what was skipped, each with a reason. Raises TextError.

    A folder becomes the text files in it and below, sorted by path, without hidden ones. Links are
    followed. What charrnn itself writes is skipped: ``own`` files and folders, what standard output
    and error are connected to, checkpoints and pages. If some of the files are ``recorded`` (by
    their real paths), a run is read again and the others are skipped. With ``encoding`` None, for
    bytes, nothing else is skipped.
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
        except OSError as e:
            raise _read_error(path, e) from None

        # the text files in the folder
        texts = []
        for file in sorted(_walk(folder, _identities(own), skipped)):
            if reason := _unusable(file, encoding):
                skipped.append(f"{file} ({reason})")
            else:
                texts.append(file)
        if known := [file for file in texts if os.path.realpath(file) in recorded]:
            skipped += [f"{file} (not in this run)" for file in texts if file not in known]
            texts = known
        if not texts:
            raise TextError(f"{path}: contains no text files")
        files += texts
    return files, skipped


def _identities(own: Iterable[Path]) -> set[tuple[int, int]]:
    """Return device and inode of files, and of those that this process writes to."""
    found = set()
    for file in own:
        with contextlib.suppress(OSError):
            found.add(_identity(file.stat()))
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            found.add(_identity(os.fstat(fd)))
    return found


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _walk(folder: Path, own: set[tuple[int, int]], skipped: list[str]) -> Iterator[Path]:
    """Yield the visible files below a folder, each folder once; note what is skipped."""

    def note_error(e: OSError) -> None:
        skipped.append(f"{e.filename} ({os_reason(e)})")

    # each folder once: links may form a loop
    seen = set[tuple[int, int]]()
    for root, folders, names in os.walk(folder, onerror=note_error, followlinks=True):
        key = _identity(Path(root).stat())
        if key in seen or (key in own and Path(root) != folder):
            skipped.append(f"{root} ({'read already' if key in seen else 'written by charrnn'})")
            folders.clear()
            continue
        seen.add(key)
        folders[:] = sorted(name for name in folders if not name.startswith("."))

        # its files, without hidden ones
        for name in names:
            file = Path(root, name)
            if name.startswith("."):
                continue
            try:
                info = file.stat()
            except OSError as e:  # a link to nothing
                skipped.append(f"{file} ({os_reason(e)})")
                continue
            if _identity(info) in own:
                skipped.append(f"{file} (written by this command)")
            elif not stat.S_ISREG(info.st_mode):
                skipped.append(f"{file} (not a regular file)")
            else:
                yield file


def _unusable(path: Path, encoding: str | None) -> str | None:
    """Return why a file of a folder is no text to train on, or None."""
    if path.suffix == ".npz":
        return "a NumPy archive"
    try:
        with path.open("rb") as f:
            if PAGE_MARK in f.read(BINARY_BYTES):
                return "a page of charrnn"
    except OSError as e:
        return os_reason(e)
    is_text = encoding is None or _is_text(path, encoding)
    return None if is_text else f"not {(encoding or '').upper()} text"


def _is_text(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for i, data in enumerate(read_chunks(path)):
            if encoding == "utf-8" and i == 0 and b"\0" in data[:BINARY_BYTES]:
                return False
            decoder.decode(data, final=not data)
    except (UnicodeError, TextError):
        return False
    return True


def read_chunks(path: Source, raw: bool = False) -> Iterator[bytes]:
    """Yield a file or standard input in chunks, of which the last is empty. Raises TextError.

    Unless ``raw``, data compressed by gzip, bzip2 or xz are decompressed, and the formats of other
    programs are refused.
    """
    if path == STDIN and sys.stdin is None:  # after the shell's <&-
        raise TextError("standard input is closed")
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as file:
            stream = cast(IO[bytes], file if raw else _decompress(file, display_name(path)))
            data = stream.read(CHUNK_BYTES)
            while data:
                yield data
                # a shorter chunk is the last one: a terminal is not asked again after Ctrl-D
                data = stream.read(CHUNK_BYTES) if len(data) == CHUNK_BYTES else b""
            yield data
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as e:
        raise TextError(f"{display_name(path)}: damaged compressed data ({e})") from None
    except OSError as e:
        raise _read_error(path, e) from None


def _decompress(file: Any, name: str) -> IO[bytes]:
    """Return a stream of the text in a file, by its first bytes. Raises TextError."""
    peekable = file if hasattr(file, "peek") else io.BufferedReader(file)
    head = peekable.peek(MAGIC_BYTES)
    for magic, decompressor in DECOMPRESSORS.items():
        if head.startswith(magic):
            return cast(IO[bytes], decompressor(peekable))
    kind, hint = identify(head)
    if kind:
        raise TextError(f"{name}: {kind}, not text{hint}")
    return cast(IO[bytes], peekable)


def identify(head: bytes) -> tuple[str, str]:
    """Return what a file is, by its first bytes, and a hint; two empty strings for a text."""
    if head.startswith(b"PK\3\4"):
        length = int.from_bytes(head[26:28], "little")
        for pattern, kind in ARCHIVES.items():
            if re.fullmatch(pattern, head[30 : 30 + length]):
                return kind, ""
    for magic, (kind, command) in FOREIGN_FORMATS.items():
        if head.startswith(magic):
            hint = f"; extract its text first, for example with: {command}" if command else ""
            return kind, hint
    return "", ""


def recognize(path: Source) -> str:
    """Return what a file is, by its first bytes; nothing for a text, or what cannot be read."""
    try:
        if path == STDIN or not Path(path).is_file():
            return ""
        with Path(path).open("rb") as f:
            return identify(f.read(MAGIC_BYTES))[0]
    except (OSError, ValueError):  # also a name that no file can have
        return ""


def is_url(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name) is not None


def _read_error(path: Source, e: OSError) -> TextError:
    if is_url(str(path)):
        return TextError(f"{path} is a URL: download it first, for example with: curl -O URL")
    return TextError(f"{display_name(path)}: {os_reason(e)}")


def display_name(path: Source | None) -> str:
    """Return the name of a file, standard input or a text in memory (None) for messages."""
    if path is None:
        return "a text in memory"
    return "standard input" if path == STDIN else str(path)


def read_file(path: Source, raw: bool = False) -> bytes:
    """Read a file or standard input; ``raw`` as in ``read_chunks``. Raises TextError."""
    return b"".join(read_chunks(path, raw))


def read_text(
    path: Source, unit: str, encoding: str = "utf-8", mask: str | None = None
) -> str | bytes:
    """Read a file or standard input for a model of this unit and mask. Raises TextError."""
    data = read_file(path, raw=unit == "byte")
    return data if unit == "byte" else decode_bytes(data, path, encoding, mask)


def decode_bytes(
    data: bytes, path: Source, encoding: str = "utf-8", mask: str | None = None
) -> str:
    """Decode and mask a text. Raises TextError with path and position of the first invalid byte."""
    decoder = Decoder(display_name(path), encoding, CONVERT_HINT, mask)
    return decoder.decode(data) + decoder.decode(b"")


class Decoder:
    """Decodes and masks a file in chunks; its errors name file and position, then ``hint``.

    A word at the end of a chunk waits for the next one if it is to be masked.
    """

    def __init__(
        self, name: str, encoding: str, hint: str = ENCODING_HINT, mask: str | None = None
    ) -> None:
        self.name, self.encoding, self.hint, self.mask = name, encoding, hint, mask
        self._word = ""
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
        if self.mask is None:
            return text
        text = self._word + text
        end = max(text.rfind(" "), text.rfind("\n")) + 1 if data else len(text)
        end = end or len(text)  # a word that is longer than a chunk may be divided
        self._word = text[end:]
        return mask_text(text[:end], self.mask)

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
