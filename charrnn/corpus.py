"""Files and standard input to one sequence of symbols, with its checksum; and its parts."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from charrnn import units
from charrnn.config import check_encoding
from charrnn.errors import SaveError, TextError, one_line
from charrnn.units import CODE_LIMIT, END_OF_DOCUMENT, Codes

CHUNK_BYTES = 1 << 18  # of a file that are read at a time; larger chunks are no faster
CHUNK_SYMBOLS = 1 << 18
MAX_IN_MEMORY_BYTES = 64 << 20  # of the indices of a text; more go to a file
LONGEST_PART = 500_000  # characters of validation or test: more would cost time and tell nothing new
SHORTEST_PART = 64
LISTED = 100  # files that a run's file names
ENCODING_HINT = "specify the encoding (for example --encoding latin-1), or use --unit byte"
CONVERT_HINT = "convert it first, for example with: iconv -f latin1 -t utf-8"
BOMS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

Indices = NDArray[np.unsignedinteger[Any]]


class SymbolStore:
    """A sequence of symbols, each stored as its index in ``codes``, the symbols in order of first appearance.

    ``counts`` are their frequencies. The indices have the smallest unsigned type that holds them. They are kept in
    memory up to 64 MB; more go to an unnamed temporary file in ``temp_dir`` (by default the system's folder for such
    files), from which every slice is read anew: pages of a memory map would stay in memory once they were touched.
    """

    def __init__(self, temp_dir: Path | None = None) -> None:
        """Create an empty store."""
        self.temp_dir = temp_dir
        self._file = self._new_file()
        self._in_memory: Indices | None = None  # all indices, if they fit
        self.codes: Codes = np.empty(0, np.uint32)
        self.counts = np.empty(0, np.int64)
        self.num_symbols = 0
        self.dtype = np.dtype(np.uint8)
        self._index_of = np.full(CODE_LIMIT, -1, np.int32)

    def close(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):  # on a full disk, closing fails as the last write did
            self._file.close()

    __del__ = close

    def _new_file(self) -> tempfile.SpooledTemporaryFile[bytes]:
        folder = None if self.temp_dir is None else str(self.temp_dir)
        return tempfile.SpooledTemporaryFile(MAX_IN_MEMORY_BYTES, dir=folder)

    def append(self, codes: Codes) -> Codes:
        """Add symbols; return those that are new. Raises SaveError if the file cannot be written."""
        indices, new = self._index_of[codes], codes[:0]
        if len(codes) and indices.min() < 0:
            new = np.unique(codes[indices < 0])
            self._index_of[new] = np.arange(len(self.codes), len(self.codes) + len(new))
            self.codes = np.concatenate([self.codes, new])
            self.counts = np.append(self.counts, np.zeros(len(new), np.int64))
            indices = self._index_of[codes]
        self.counts += np.bincount(indices, minlength=len(self.codes))
        self.num_symbols += len(codes)
        try:
            self._widen_dtype(np.min_scalar_type(max(len(self.codes) - 1, 0)))
            self._file.write(indices.astype(self.dtype).data)
        except OSError as e:
            self._raise_save_error(e)
        return new

    def _widen_dtype(self, dtype: np.dtype[Any]) -> None:
        """Rewrite the indices in a larger type, if ``dtype`` is larger."""
        if dtype == self.dtype:
            return
        narrow, self.dtype = self.dtype, dtype
        with self._file as old:
            self._file = self._new_file()
            old.seek(0)
            while data := old.read(CHUNK_BYTES):
                self._file.write(np.frombuffer(data, narrow).astype(dtype).data)

    def finalize(self) -> None:
        """End appending: from now on the store can be read. Raises SaveError."""
        del self._index_of
        try:
            self._file.seek(0)  # writes what is buffered
        except OSError as e:
            self._raise_save_error(e)
        if self.num_symbols * self.dtype.itemsize <= MAX_IN_MEMORY_BYTES:
            # a slice of an array takes a quarter of the time of a read
            self._in_memory = np.frombuffer(self._file.read(), self.dtype)
            self._file.close()

    def _raise_save_error(self, e: OSError) -> NoReturn:
        self.close()
        folder = self.temp_dir or "temporary folder"
        reason = (e.strerror or str(e)).lower()
        raise SaveError(one_line(f"{folder}: could not write the encoded text ({reason})")) from None

    def __len__(self) -> int:
        return self.num_symbols

    def __getitem__(self, at: slice) -> Indices:
        if self._in_memory is not None:
            return self._in_memory[at]
        start, stop, _ = at.indices(self.num_symbols)
        self._file.seek(start * self.dtype.itemsize)
        return np.frombuffer(self._file.read(max(stop - start, 0) * self.dtype.itemsize), self.dtype)

    def chunks(self) -> Iterator[tuple[int, Indices]]:
        """Yield all indices in pieces, each with its offset."""
        for start in range(0, self.num_symbols, CHUNK_SYMBOLS):
            yield start, self[start : start + CHUNK_SYMBOLS]


class Part:
    """A stretch of a store, as the ids of a vocabulary: ``part[a:b]`` is an array of them."""

    def __init__(self, store: SymbolStore, table: NDArray[np.intp], start: int, stop: int) -> None:
        """Take the symbols from ``start`` to ``stop``; ``table`` holds the id of each index."""
        self.store, self.table, self.start, self.stop = store, table, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, at: slice) -> NDArray[np.intp]:
        start, stop, _ = at.indices(len(self))
        return np.take(self.table, self.store[self.start + start : self.start + stop])


class Corpus:
    """A text, cut into symbols, and where it came from.

    ``files`` are name, bytes and CRC-32 of each file, ``skipped`` names the files of a folder that are not text,
    ``sha256`` is that of all bytes; ``notes`` are for the user.
    """

    def __init__(
        self,
        name: str,
        *documents: str | bytes,
        unit: str = "char",
        by: str | None = None,
        encoding: str = "utf-8",
        temp_dir: Path | None = None,
    ) -> None:
        """Hold the documents, if any are given, joined; with ``by="file"`` each ends with a symbol of its own.

        Raises TextError if nothing can be learned from them, UsageError for an encoding that does not exist, SaveError
        for a failed write to ``temp_dir`` (see ``SymbolStore``).
        """
        check_encoding(encoding)
        self.name, self.unit, self.by, self.encoding = name, unit, by, codecs.lookup(encoding).name
        self.store = SymbolStore(temp_dir)
        self.files: list[tuple[str, int, int]] = []
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self.bytes, self._hash = 0, hashlib.sha256()
        for document in documents:
            if isinstance(document, str):
                document, self.encoding = _encode_utf8(document, name), "utf-8"
            self._add(io.BytesIO(document), name)
        if documents:
            self._close()

    def _add(self, file: BinaryIO, name: str) -> None:
        """Add a file, a chunk at a time. Raises TextError, SaveError."""
        decoder = None if self.unit == "byte" else Decoder(name, self.encoding)
        crc = size = 0
        for data in _chunks(file, name):
            self._hash.update(data)
            crc = zlib.crc32(data, crc)
            text = decoder.decode(data) if decoder else data
            if not size and isinstance(text, str) and text.startswith("\ufeff"):
                self.notes.append(
                    f"{name} begins with a byte-order mark (U+FEFF), which is kept as a character; "
                    f"use --encoding utf-8-sig to drop it"
                )
            size += len(data)
            new = self.store.append(units.to_codes(text, self.unit))
            for code in new[(new >= 0xD800) & (new < 0xE000)].tolist():
                raise TextError(f"{name}: {_describe_surrogate(code)}")
        self.bytes += size
        self.files.append((name, size, crc))
        if self.by == "file":
            self.store.append(np.array([END_OF_DOCUMENT], np.uint32))
            self._hash.update(b"\0%d" % size)  # the documents count, not only their bytes

    def _close(self) -> None:
        """End adding. Raises TextError if there is too little text."""
        self.sha256 = self._hash.hexdigest()
        if self.characters < 2:
            what = "is empty" if not self.characters else "has a single character"
            raise TextError(f"{self.name} {what}; a text needs at least two characters")
        self.store.finalize()

    @property
    def characters(self) -> int:
        """How many characters it has (with the unit ``byte``: bytes)."""
        return int(self.store.counts[units.starts_character(self.store.codes)].sum())

    def place(self, n: int) -> int:
        """Return which symbol character n begins at."""
        begins = units.starts_character(self.store.codes)
        if begins.all():
            return n
        for at, numbers in self.store.chunks():
            here = np.flatnonzero(begins[numbers])
            if n < len(here):
                return at + int(here[n])
            n -= len(here)
        return len(self.store)

    def count(self, start: int, stop: int) -> int:
        """Return how many characters begin between two symbols."""
        begins = units.starts_character(self.store.codes)
        if begins.all():
            return stop - start
        return sum(
            int(begins[self.store[at : min(at + CHUNK_SYMBOLS, stop)]].sum())
            for at in range(start, stop, CHUNK_SYMBOLS)
        )

    def differs(self, was: dict[str, Any]) -> str | None:
        """Return in what this differs from the corpus that ``was`` describes (see ``describe``), None if in nothing."""
        if was["sha256"] == self.sha256:
            return None
        before, now = was["files"], self.files[:LISTED]
        if len(before) != len(now):
            return f"there were {len(before)} files, and there are {len(now)} now"
        for (old, bytes_, crc), (name, size, new) in zip(before, now, strict=True):
            if bytes_ is not None and (bytes_, crc) != (size, new):
                called = name if Path(old).name == Path(name).name else f"{name} (then {old})"
                if bytes_ == size:
                    return f"{called} has as many bytes, but others"
                return f"{called} had {bytes_:,} bytes, and has {size:,} now"
        return f"it had {was['characters']:,} characters, and has {self.characters:,} now"

    def describe(self) -> dict[str, Any]:
        """Return what a run's file tells of it."""
        return {
            "name": self.name,
            "files": [list(file) for file in self.files[:LISTED]],
            "bytes": self.bytes,
            "characters": self.characters,
            "symbols": len(self.store),
            "sha256": self.sha256,
        }


def read(
    paths: Sequence[str],
    name: str = "text",
    *,
    unit: str = "char",
    by: str | None = None,
    encoding: str = "utf-8",
    temp_dir: Path | None = None,
) -> Corpus:
    """Read files, folders and ``-`` (standard input) and join them in the order given.

    Line ends and a byte-order mark are kept. Of a folder every text file is read, those below it too, sorted by
    path; hidden ones are passed over. Raises TextError for what cannot be read or decoded, UsageError for an encoding
    that does not exist, SaveError for a failed write to ``temp_dir`` (see ``SymbolStore``).
    """
    corpus = Corpus(name, unit=unit, by=by, encoding=encoding, temp_dir=temp_dir)
    for file in list(_files(paths, corpus)):
        with _opened(file) as f:
            corpus._add(f, _called(file))
    corpus._close()
    return corpus


def _files(paths: Sequence[str], corpus: Corpus) -> Iterator[str]:
    """Yield the files to read; tell the corpus which are skipped."""
    for path in paths:
        try:
            if path == "-" or not Path(path).is_dir():
                yield path
                continue
            found = [p for p in sorted(Path(path).rglob("*")) if p.is_file() and not _hidden(p, Path(path))]
        except OSError as e:
            raise TextError(f"{path}: {(e.strerror or str(e)).lower()}") from None
        skipped = [] if corpus.unit == "byte" else [p for p in found if not _is_text(p, corpus)]
        if len(found) == len(skipped):
            raise TextError(f"{path}: there is no text file in this folder")
        corpus.skipped += map(str, skipped)
        yield from (str(p) for p in found if p not in set(skipped))


def _is_text(path: Path, corpus: Corpus) -> bool:
    """Return whether a file can be decoded, and has no NUL near its beginning if it is UTF-8."""
    decoder = Decoder(str(path), corpus.encoding)
    with _opened(str(path)) as f:
        for n, data in enumerate(_chunks(f, str(path))):
            if n == 0 and b"\0" in data[:8192] and corpus.encoding == "utf-8":
                return False
            try:
                decoder.decode(data)
            except TextError:
                return False
    return True


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input where the path is ``-``. Raises TextError."""
    if path != "-":
        try:
            f = Path(path).open("rb")  # noqa: SIM115
        except OSError as e:
            raise TextError(f"{path}: {(e.strerror or str(e)).lower()}") from None
        with f:
            yield f
    elif sys.stdin is None:  # the shell's <&-
        raise TextError("standard input is closed")
    else:
        yield sys.stdin.buffer


def _chunks(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield a file in chunks, of which the last is empty. Raises TextError."""
    data = b"begin"
    while data:
        try:
            data = file.read(CHUNK_BYTES)
        except OSError as e:
            raise TextError(f"{name}: {(e.strerror or str(e)).lower()}") from None
        yield data


def _called(path: str) -> str:
    return "standard input" if path == "-" else path


def read_file(path: str) -> bytes:
    """Read one file, or standard input where the path is ``-``. Raises TextError."""
    with _opened(path) as f:
        return b"".join(_chunks(f, _called(path)))


def read_text(path: str, unit: str, encoding: str = "utf-8") -> str | bytes:
    """Read one file, or standard input where the path is ``-``, for a model of this unit. Raises TextError."""
    data = read_file(path)
    return data if unit == "byte" else decode(data, path, encoding)


def decode(data: bytes, name: str, encoding: str = "utf-8") -> str:
    """Decode a text. Raises TextError, which names the position of the first invalid byte."""
    decoder = Decoder(_called(name), encoding, CONVERT_HINT)
    return decoder.decode(data) + decoder.decode(b"")


class Decoder:
    """Decodes a file in chunks; its errors name the file and the position."""

    def __init__(self, name: str, encoding: str, hint: str = ENCODING_HINT) -> None:
        """Start at the beginning of a file; ``hint`` ends an error's message."""
        self.name, self.encoding, self.hint = name, encoding, hint
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._head, self._size, self._line = b"", 0, 1

    def decode(self, data: bytes) -> str:
        """Return the text of the next chunk; after the last one comes an empty one. Raises TextError."""
        self._head = self._head or data[:4]
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeError as e:
            raise TextError(self._describe(e, self._size + len(data))) from None
        self._size += len(data)
        self._line += text.count("\n")
        return text

    def _describe(self, e: UnicodeError, size: int) -> str:
        """Return the message for an error in the first ``size`` bytes."""
        encoding = self.encoding.upper()
        for bom, other in BOMS.items():
            if self._head.startswith(bom) and not encoding.startswith(("UTF-16", "UTF-32")):
                hint = f"use --encoding {other.lower()}, or --unit byte"
                return (
                    f"{self.name}: has a {other} byte-order mark, so it is not {encoding}; "
                    f"{hint if self.hint == ENCODING_HINT else self.hint}"
                )
        if not isinstance(e, UnicodeDecodeError):  # a UTF-16 text without byte-order mark
            return f"{self.name}: invalid {encoding} ({e}); {self.hint}"
        offset = size - len(e.object) + e.start
        line = self._line + e.object[: e.start].decode(self.encoding, "replace").count("\n")
        invalid = e.object[e.start : e.start + 4].hex(" ")
        return f"{self.name}: invalid {encoding} at offset {offset:,}, line {line:,} (bytes {invalid}); {self.hint}"


def _encode_utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        surrogate = _describe_surrogate(ord(text[e.start]))
        raise TextError(f"{name}: {surrogate} (offset {e.start:,})") from None


def _describe_surrogate(code: int) -> str:
    return f"U+{code:04X} is a lone surrogate, not a valid character"


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
