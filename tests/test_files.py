import bz2
import encodings
import gzip
import io
import itertools
import lzma
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charrnn.drawing.highlight import render_page
from charrnn.errors import TextError, UsageError
from charrnn.text import files
from charrnn.text.corpus import Corpus
from charrnn.text.files import decode_bytes, list_files, read_file
from tests.conftest import posix
from tests.test_corpus import corpus_text


def test_folder_is_expanded_to_its_text_files_in_order(tmp_path: Path) -> None:
    for name in "a", ".git":
        (tmp_path / name).mkdir()
    for name in "z.txt", "a/two.c", "a/one.c", ".git/config":
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    reason = "(not UTF-8 text)"
    skipped = [f"image.png {reason}", f"latin.txt {reason}"]
    assert names_in(tmp_path, "utf-8") == (["one.c", "two.c", "z.txt"], skipped)
    assert names_in(tmp_path, None) == (["one.c", "two.c", "image.png", "latin.txt", "z.txt"], [])


def names_in(folder: Path, encoding: str | None, **options: Any) -> tuple[list[str], list[str]]:
    """Return the names of a folder's files, and what is skipped, sorted, as ``list_files`` does."""
    texts, skipped = list_files([str(folder)], encoding, **options)
    return [Path(f).name for f in texts], sorted(s.removeprefix(f"{folder}/") for s in skipped)


@posix
def test_links_are_followed_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder, other = tmp_path / "corpus", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    for path in folder / "a.txt", other / "b.txt":
        path.write_text("text")
    (folder / "linked").symlink_to(other)
    (folder / "loop").symlink_to(folder)
    (folder / "nothing").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    assert names_in(folder, "utf-8") == (
        ["a.txt", "b.txt"],
        [
            "loop (read already)",
            "nothing (no such file or directory)",
            "pipe (not a regular file)",
        ],
    )


@posix
def test_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # as the system does, but not for root
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names_in(tmp_path, "utf-8") == (["a.txt"], ["secret (permission denied)"])


def test_what_charrnn_writes_is_skipped(tmp_path: Path) -> None:
    for name in "a.txt", "own.txt", "run.npz", "checkpoints/x.txt":
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "page.html").write_text(render_page("title", "body"))
    own = [tmp_path / "own.txt", tmp_path / "checkpoints"]
    for encoding in "utf-8", None:
        assert names_in(tmp_path, encoding, own=own) == (
            ["a.txt"],
            [
                "checkpoints (written by charrnn)",
                "own.txt (written by this command)",
                "page.html (a page of charrnn)",
                "run.npz (a NumPy archive)",
            ],
        )
    recorded = {os.path.realpath(tmp_path / "checkpoints" / "x.txt")}
    assert names_in(tmp_path, None, recorded=recorded)[0] == ["x.txt"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_text_is_decompressed(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    path, data = tmp_path / "text", compress("né\n".encode() * 100_000)
    path.write_bytes(data)
    corpus = Corpus("text", paths=[str(path)])
    assert corpus_text(corpus) == "né\n" * 100_000
    assert (corpus.files[0].bytes, corpus.bytes) == (len(data), 400_000)
    assert read_file(path) == "né\n".encode() * 100_000
    assert Corpus("text", paths=[str(path)], unit="byte").bytes == len(data)
    path.write_bytes(data[:-9])
    with pytest.raises(TextError, match=r"text: damaged compressed data \("):
        read_file(path)


@pytest.mark.parametrize(("magic", "hint"), [(b"PK\3\4", "unzip -p"), (b"%PDF-1.4", "pdftotext")])
def test_format_of_another_program_is_named(tmp_path: Path, magic: bytes, hint: str) -> None:
    (tmp_path / "text").write_bytes(magic + b" and more")
    with pytest.raises(TextError, match=f"not text; extract its text first, .*{hint}"):
        Corpus("text", paths=[str(tmp_path / "text")])
    assert Corpus("text", paths=[str(tmp_path / "text")], unit="byte").bytes == len(magic) + 9


def test_only_the_argument_is_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("a file")
    (tmp_path / "b").write_text(" and b")
    stdin = io.BytesIO("né\r\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin, encoding="ascii"))
    for path, text in {".": "a file and b", "./-": "a file", "-": "né\r\n"}.items():
        assert corpus_text(Corpus("text", paths=[path])) == text
    assert read_file(Path("-")) == b"a file"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TextError, match="standard input is closed"):
        read_file("-")


def test_invalid_bytes_are_reported_with_their_position(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo caf\xe9 au lait")
    invalid = r"latin\.txt: invalid UTF-8 at offset 11, line 2 \(bytes e9 20 61 75\); "
    with pytest.raises(TextError, match=invalid + "specify the encoding .*--unit byte"):
        Corpus("text", paths=[str(path)])
    with pytest.raises(TextError, match=invalid + "convert it first"):
        decode_bytes(path.read_bytes(), path)
    assert decode_bytes(path.read_bytes(), path, "latin-1") == "one\ntwo café au lait"


def test_characters_may_span_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 7)
    good = "é한👩\n" * 50
    (tmp_path / "good").write_text(good)
    assert corpus_text(Corpus("text", paths=[tmp_path / "good"])) == good
    for bad, where in [
        (good.encode() + b"ab\xff", r"offset 502, line 51 \(bytes ff\)"),
        (good.encode()[:-2], r"offset 495, line 50 \(bytes f0 9f 91\)"),
    ]:
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(TextError, match=where):
            Corpus("text", paths=[tmp_path / "bad"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_byte_order_mark_of_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("Hello, 한국\n".encode(encoding))
    message = f"has a {encoding.upper()} byte-order mark, .*use --encoding {encoding}, "
    with pytest.raises(TextError, match=message):
        Corpus("text", paths=[path])
    assert corpus_text(Corpus("text", paths=[path], encoding=encoding)) == "Hello, 한국\n"
    path.write_bytes("Hello, 한국\n".encode(f"{encoding}-le"))
    with pytest.raises(TextError, match=rf"invalid {encoding.upper()} \(.*BOM\); specify the enc"):
        Corpus("text", paths=[path], encoding=encoding)


@pytest.mark.filterwarnings("ignore:.*invalid escape:DeprecationWarning")  # of unicode_escape
def test_every_encoding_of_python_is_read_or_refused() -> None:
    random = np.random.default_rng(0).bytes(300)
    korean = "héllo 한국\n".encode()
    texts = (random, bytes(range(128)), korean, b"\\\\", b"~{", b"\x1b$", b"+2")
    num_read = 0
    for module, data in itertools.product(pkgutil.iter_modules(encodings.__path__), texts):
        try:
            corpus = Corpus("x", data, encoding=module.name)
            assert len(decode_bytes(data, "x", module.name)) == corpus.characters
            num_read += 1
        except (TextError, UsageError) as e:
            assert str(e).startswith(("x", f"unknown encoding '{module.name}'"))  # noqa: PT017
    assert num_read > 300


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"nothing\.txt: no such file"):
        Corpus("text", paths=[str(tmp_path / "nothing.txt")])
    with pytest.raises(TextError, match="contains no text files"):
        Corpus("text", paths=[str(tmp_path)])
    with pytest.raises(TextError, match="xxx: file name too long"):
        Corpus("text", paths=["x" * 300])
    if hasattr(os, "getuid") and os.getuid():  # root may read everything
        (tmp_path / "secret").touch(0)
        with pytest.raises(TextError, match="secret: permission denied"):
            Corpus("text", paths=[tmp_path / "secret"])
