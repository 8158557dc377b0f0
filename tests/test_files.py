import encodings
import io
import itertools
import os
import pkgutil
import sys
from pathlib import Path

import numpy as np
import pytest

from charrnn.errors import TextError, UsageError
from charrnn.text import files
from charrnn.text.corpus import Corpus
from charrnn.text.files import decode_bytes, list_files, read_file
from tests.test_corpus import corpus_text


def test_folder_is_expanded_to_its_text_files_in_order(tmp_path: Path) -> None:
    for name in "a", ".git":
        (tmp_path / name).mkdir()
    for name in "z.txt", "a/two.c", "a/one.c", ".git/config":
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")

    def names(encoding: str | None) -> list[list[str]]:
        return [[Path(f).name for f in files] for files in list_files([str(tmp_path)], encoding)]

    assert names("utf-8") == [["one.c", "two.c", "z.txt"], ["image.png", "latin.txt"]]
    assert names(None) == [["one.c", "two.c", "image.png", "latin.txt", "z.txt"], []]


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
