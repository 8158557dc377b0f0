"""A text as a sequence of symbols, with its checksum, and its splits."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charrnn.config import check_encoding
from charrnn.errors import TextError
from charrnn.formatting import save_error
from charrnn.text import files, units
from charrnn.text.files import STDIN, Source, display_name
from charrnn.text.units import CODE_LIMIT, END_OF_DOCUMENT, Codes

CHUNK_SYMBOLS = 1 << 18
MAX_IN_MEMORY_BYTES = 64 << 20  # of the indices of a text; more go to a file
MAX_EVAL_CHARACTERS = 500_000  # of validation or test: more take time and change the loss little
MIN_EVAL_CHARACTERS = 64

Indices = NDArray[np.unsignedinteger[Any]]


class SymbolStore:
    """A sequence of symbols, stored as indices in ``codes``, the distinct ones by appearance.

    ``counts`` are their frequencies. The indices have the smallest unsigned type that holds them.
    Up to 64 MB of them are kept in memory. More go to an unnamed temporary file in ``temp_dir``
    (None: the system's temporary folder), from which each slice is read: the pages of a memory map
    would stay in memory.
    """

    def __init__(self, temp_dir: Path | None = None) -> None:
        self.temp_dir = None if temp_dir is None else str(temp_dir)
        self._file: IO[bytes] = self._new_file()
        self._in_memory: Indices | None = None  # all indices, if they fit
        self.codes: Codes = np.empty(0, np.uint32)
        self.counts = np.empty(0, np.int64)
        self.num_symbols = 0
        self.dtype = np.dtype(np.uint8)
        self._index_of = np.full(CODE_LIMIT, -1, np.int32)

    def close(self) -> None:
        """Delete the file."""
        # on a full disk, closing fails as the last write did; a copy may have no file
        with contextlib.suppress(OSError, AttributeError):
            self._file.close()

    __del__ = close

    def _new_file(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(MAX_IN_MEMORY_BYTES, dir=self.temp_dir)

    def append(self, codes: Codes) -> Codes:
        """Add symbols; return those that are new. Raises SaveError."""
        # give new symbols an index
        indices = self._index_of[codes]
        new = np.unique(codes[indices < 0])
        if len(new):
            self._index_of[new] = np.arange(len(self.codes), len(self.codes) + len(new))
            self.codes = np.concatenate([self.codes, new])
            indices = self._index_of[codes]

        # count, and write the indices
        counts = np.bincount(indices, minlength=len(self.codes))
        self.counts = counts + np.pad(self.counts, (0, len(new)))
        self.num_symbols += len(codes)
        try:
            self._widen_dtype(np.min_scalar_type(max(len(self.codes) - 1, 0)))
            self._file.write(indices.astype(self.dtype).data)
            self._file.flush()  # so that no write can fail later
        except OSError as e:
            self.close()
            folder = self.temp_dir or "temporary folder"
            raise save_error(folder, e, "could not write the encoded text") from None
        return new

    def _widen_dtype(self, dtype: np.dtype[Any]) -> None:
        """Rewrite all indices if their type has changed."""
        if dtype == self.dtype:
            return
        narrow, self.dtype = self.dtype, dtype
        with self._file as old:
            self._file = self._new_file()
            old.seek(0)
            while data := old.read(files.CHUNK_BYTES):
                self._file.write(np.frombuffer(data, narrow).astype(dtype).data)

    def finalize(self) -> None:
        """End appending; slices can be read from now on."""
        del self._index_of
        if self.num_symbols * self.dtype.itemsize <= MAX_IN_MEMORY_BYTES:
            # a slice of an array takes a quarter of the time of a read
            self._file.seek(0)
            self._in_memory = np.frombuffer(self._file.read(), self.dtype)
            self._file.close()

    def publish(self, path: Path) -> bool:
        """Move a large text to a file that other processes can open; return whether it is one.

        Raises SaveError.
        """
        if self._in_memory is not None:
            return False
        try:
            with self._file as old, path.open("wb") as new:
                old.seek(0)
                shutil.copyfileobj(old, new, files.CHUNK_BYTES)
            self.open(path)
        except OSError as e:
            raise save_error(path, e) from None
        return True

    def open(self, path: Path) -> None:
        """Read from the file of another process's store, of which this is a copy."""
        self._file = path.open("rb")

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the file."""
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def __len__(self) -> int:
        return self.num_symbols

    def __getitem__(self, at: slice) -> Indices:
        if self._in_memory is not None:
            return self._in_memory[at]
        start, stop, _ = at.indices(self.num_symbols)
        size = self.dtype.itemsize
        self._file.seek(start * size)
        return np.frombuffer(self._file.read(max(stop - start, 0) * size), self.dtype)

    def chunks(self, start: int, stop: int) -> Iterator[Indices]:
        for at in range(start, stop, CHUNK_SYMBOLS):
            yield self[at : min(at + CHUNK_SYMBOLS, stop)]


@dataclass
class EncodedSlice:
    """The symbols of a store from ``start`` to ``stop``, as ids: ``ids[i]`` is the id of index i.

    A slice of it is an array, encoded as it is read.
    """

    store: SymbolStore
    ids: NDArray[np.intp]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, at: slice) -> NDArray[np.intp]:
        start, stop, _ = at.indices(len(self))
        return np.take(self.ids, self.store[self.start + start : self.start + stop])


class TextFile(NamedTuple):
    """A file of a corpus; ``path`` is None for a text in memory, ``"./-"`` for a file named -.

    Standard input and other pipes have the path ``"-"``. ``bytes`` is the size of the file, which
    may be compressed; ``crc`` is of its text.
    """

    name: str  # for messages
    path: str | None
    bytes: int
    crc: int  # CRC-32


class Corpus:
    """A text as symbols, and where it came from.

    It is ``texts``, or the files, the folders and ``"-"`` (standard input) in ``paths``, joined in
    the order given; with ``documents="file"`` each is a document. Line ends and a byte-order mark
    are kept; ``mask`` is as in ``Config``. ``own`` and ``recorded`` are as in ``list_files``, and
    ``skipped`` is its second result. ``characters`` is the number of characters once masked (of
    bytes with unit ``byte``), ``sha256`` the checksum of all bytes.

    Raises TextError for a text that is too short or cannot be read or decoded, UsageError for an
    unknown encoding, SaveError if ``temp_dir`` cannot be written.
    """

    def __init__(
        self,
        name: str,
        *texts: str | bytes,
        paths: Sequence[Source] = (),
        unit: str = "char",
        documents: str | None = None,
        encoding: str = "utf-8",
        mask: str | None = None,
        temp_dir: Path | None = None,
        own: Iterable[Path] = (),
        recorded: Collection[str] = (),
    ) -> None:
        check_encoding(encoding)
        self.name, self.unit, self.documents, self.mask = name, unit, documents, mask
        self.encoding = codecs.lookup(encoding).name
        self.store = SymbolStore(temp_dir)
        self.files: list[TextFile] = []
        self.notes: list[str] = []
        self.bytes, self._hash = 0, hashlib.sha256()

        # read
        for text in texts:
            if isinstance(text, str):
                if lone := re.search(r"[\ud800-\udfff]", text):
                    raise _surrogate_error(name, lone[0], f" (offset {lone.start():,})")
                text, self.encoding = text.encode(), "utf-8"
            starts = range(0, len(text) + files.CHUNK_BYTES, files.CHUNK_BYTES)
            self._add((text[start : start + files.CHUNK_BYTES] for start in starts), name)
        encodes = None if unit == "byte" else self.encoding
        sources, self.skipped = files.list_files(paths, encodes, own, recorded)
        for source in sources:
            path = "./-" if source == Path(STDIN) else str(source)
            if source != STDIN and not Path(source).is_file():
                path = STDIN  # a pipe, which can be read only once, as standard input
            self._add(files.read_chunks(source, raw=unit == "byte"), display_name(source), path)

        # count
        self._finish()
        self.store.finalize()
        self.sha256 = self._hash.hexdigest()
        self._starts = units.starts_character(self.store.codes)  # by index
        self.characters = int(self.store.counts[self._starts].sum())
        if self.characters < 2:
            problem = "has a single character" if self.characters else "is empty"
            raise TextError(f"{name} {problem}; at least two characters are required")

    def _finish(self) -> None:
        """Do what can be done only once all files have been read."""

    def _add(self, chunks: Iterable[bytes], name: str, path: str | None = None) -> None:
        """Add a file, in chunks of which the last is empty. Raises TextError, SaveError."""
        decoder = None
        if self.unit != "byte":
            decoder = files.Decoder(name, self.encoding, mask=self.mask)
        crc = size = 0
        for data in chunks:
            # checksums are of the bytes, not of the text
            self._hash.update(data)
            crc = zlib.crc32(data, crc)

            # decode; the decoder rejects an incomplete character at the end
            text = decoder.decode(data) if decoder else data
            if not size and isinstance(text, str) and text.startswith("\ufeff"):
                self.notes.append(
                    f"{name} begins with a byte-order mark (U+FEFF), which is kept as a character; "
                    f"use --encoding utf-8-sig to drop it"
                )
            size += len(data)

            # some encodings can decode to surrogates
            new = self.store.append(units.to_codes(text, self.unit))
            for code in new[(new >= 0xD800) & (new < 0xE000)].tolist():
                raise _surrogate_error(name, chr(code))

        # record the file, and mark its end
        self._record_file(name, path, size, crc)
        if self.documents == "file":
            self.store.append(np.array([END_OF_DOCUMENT], np.uint32))
            self._hash.update(b"\0%d" % size)  # the same bytes, divided otherwise, differ

    def _record_file(self, name: str, path: str | None, size: int, crc: int) -> None:
        self.bytes += size
        stored = size if path is None or path == STDIN else Path(path).stat().st_size
        self.files.append(TextFile(name, path, stored, crc))

    def symbol_offset(self, n: int) -> int:
        """Return the offset of the first symbol of character n."""
        if self._starts.all():
            return n
        offset = 0
        for indices in self.store.chunks(0, len(self.store)):
            positions = np.flatnonzero(self._starts[indices])
            if n < len(positions):
                return offset + int(positions[n])
            n -= len(positions)
            offset += len(indices)
        return offset

    def count_characters(self, start: int, stop: int) -> int:
        """Return the number of characters whose first symbol is between two symbol offsets."""
        if self._starts.all():
            return stop - start
        return sum(int(self._starts[indices].sum()) for indices in self.store.chunks(start, stop))

    def training_end(self, val_fraction: float, test_fraction: float) -> int:
        """Return the offset of the first symbol after the training split."""
        end, _ = split_offsets(self.characters, val_fraction, test_fraction)
        return self.symbol_offset(end)

    def describe_change(self, recorded: Mapping[str, Any]) -> str | None:
        """Describe the difference from a recorded text (see ``describe``); return None for none."""
        if recorded["sha256"] == self.sha256:
            return None
        if recorded["num_files"] != len(self.files):
            return f"the number of files changed from {recorded['num_files']} to {len(self.files)}"
        # the first file that differs
        for (old_path, old_size, old_crc), file in zip(recorded["files"], self.files, strict=False):
            if (old_size, old_crc) != (file.bytes, file.crc):
                old_name = display_name(old_path or recorded["name"])
                renamed = Path(old_name).name != Path(file.name).name
                name = f"{file.name} (formerly {old_name})" if renamed else file.name
                if old_size == file.bytes:
                    return f"the contents of {name} changed (same size)"
                return f"{name} changed from {old_size:,} to {file.bytes:,} bytes"
        old, new = recorded["characters"], self.characters
        return f"its length changed from {old:,} to {new:,} characters"

    def describe(self) -> dict[str, Any]:
        """Return the corpus as a checkpoint records it."""
        return {
            "name": self.name,
            "files": [(file.path, file.bytes, file.crc) for file in self.files],
            "num_files": len(self.files),
            "bytes": self.bytes,
            "characters": self.characters,
            "symbols": len(self.store),
            "sha256": self.sha256,
        }


def _surrogate_error(name: str, c: str, where: str = "") -> TextError:
    return TextError(f"{name}: U+{ord(c):04X} is a lone surrogate, not a valid character{where}")


def split_offsets(n: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return the offsets of the validation and test splits in a text of n characters.

    Each has at most 500,000 characters. One of fewer than 64 is left out: training keeps them.
    """
    test = n - int(n * (1 - test_fraction))
    val = n - test - int(n * (1 - (val_fraction + test_fraction)))
    test, val = (
        min(p, MAX_EVAL_CHARACTERS) if p >= MIN_EVAL_CHARACTERS else 0 for p in (test, val)
    )
    return n - test - val, n - test
