import hashlib
import io
import sys
from pathlib import Path

import pytest

from charrnn.corpus import Corpus, name_of, read, split
from charrnn.errors import TextError


def test_files_are_joined_in_the_order_given_bytes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"one\r\ntwo")
    (tmp_path / "a.txt").write_bytes("\ufeff한국\r".encode())
    paths = [str(tmp_path / "b.txt"), str(tmp_path / "a.txt")]
    corpus = read(paths)
    assert corpus.text == "one\r\ntwo\ufeff한국\r"
    assert corpus.name == "b"
    assert corpus.files == paths
    assert corpus.bytes == 8 + 3 + 6 + 1
    assert corpus.sha256 == hashlib.sha256(corpus.text.encode()).hexdigest()


def test_a_folder_is_read_sorted_without_binaries_and_hidden_files(tmp_path: Path) -> None:
    for name, data in {
        "z.txt": b"last",
        "a/two.c": b"second",
        "a/one.c": b"first",
        "image.png": b"\x89PNG\0\0",
        "latin.txt": b"caf\xe9",
        ".git/config": b"hidden",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    corpus = read([str(tmp_path)])
    assert corpus.text == "firstsecondlast"
    assert [Path(f).name for f in corpus.skipped] == ["image.png", "latin.txt"]
    assert corpus.name == tmp_path.name


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("né\r\n".encode()), encoding="ascii"))
    corpus = read(["-"])
    assert (corpus.name, corpus.text) == ("stdin", "né\r\n")


def test_wrong_bytes_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo caf\xe9 au lait")
    with pytest.raises(TextError, match=r"latin\.txt: not UTF-8 at offset 11, line 2 \(bytes e9 20 61 75\)"):
        read([str(path)])


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_to_learn_from(text: str) -> None:
    with pytest.raises(TextError, match="at least two characters"):
        Corpus("x", text)


def test_half_a_surrogate_pair_is_no_character() -> None:
    with pytest.raises(TextError, match=r"'\\ud800' \(offset 2\)"):
        Corpus("x", "ab\ud800")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"no such file"):
        read([str(tmp_path / "nothing.txt")])
    with pytest.raises(TextError, match="no text file in this folder"):
        read([str(tmp_path)])


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_of(["-"]) == "stdin"
    assert name_of(["a/tiny.shakespeare.txt", "b.txt"]) == "tiny.shakespeare"
    assert name_of(["."]) == tmp_path.name


def test_parts_are_cut_by_position_and_capped() -> None:
    assert split(1_115_394, 0.05, 0.05) == (1_003_854, 1_059_624)
    assert split(1000, 0.05, 0.05) == (1000, 1000)  # 50 characters are too few for a part
    assert split(10_000, 0.1, 0.2) == (7000, 8000)
    assert split(10_000, 0, 0.2) == (8000, 8000)
    assert split(100_000_000, 0.05, 0.05) == (99_000_000, 99_500_000)
