import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import SaveError, TextError
from charrnn.text import corpus as corpus_module
from charrnn.text import files
from charrnn.text.corpus import (
    Corpus,
    EncodedSlice,
    SymbolStore,
    TextFile,
    split_offsets,
)
from charrnn.text.vocabulary import Vocabulary


def corpus_text(corpus: Corpus) -> str:
    """Return the text of a corpus, by way of a vocabulary, as training reads it."""
    store = corpus.store
    v = Vocabulary.from_counts(store.codes, store.counts, corpus.unit)
    return v.decode(EncodedSlice(store, v.ids_of(store.codes), 0, len(store))[:])


def test_files_are_joined_in_the_order_given(tmp_path: Path) -> None:
    paths, texts = (
        [str(tmp_path / "b"), str(tmp_path / "a")],
        [b"one\r\ntwo", "\ufeff한국\r".encode()],
    )
    for path, text in zip(paths, texts, strict=True):
        Path(path).write_bytes(text)
    corpus = Corpus("text", paths=paths)
    assert corpus_text(corpus) == "one\r\ntwo\ufeff한국\r"
    assert corpus.files == [
        TextFile(path, path, len(text), zlib.crc32(text))
        for path, text in zip(paths, texts, strict=True)
    ]
    assert corpus.bytes == 8 + 3 + 6 + 1
    assert corpus.characters == 12
    assert corpus.sha256 == hashlib.sha256(b"".join(texts)).hexdigest()
    (note,) = corpus.notes
    assert note.startswith(f"{paths[1]} begins with a byte-order mark (U+FEFF), which is kept as ")


@pytest.mark.parametrize("documents", [None, "file"])
def test_text_shorter_than_two_characters_is_rejected(documents: str | None) -> None:
    for text, problem in {"": "is empty", "a": "has a single character"}.items():
        with pytest.raises(TextError, match=f"x {problem}; at least two characters are required"):
            Corpus("x", text, documents=documents)


def test_lone_surrogates_are_rejected() -> None:
    message = r"U\+D800 is a lone surrogate, not a valid character"
    with pytest.raises(TextError, match=message + r" \(offset 2\)"):
        Corpus("x", "ab\ud800")
    with pytest.raises(TextError, match=message):
        Corpus("x", b"ab+2AA-", encoding="utf-7")


def test_splits_are_cut_by_position_and_capped() -> None:
    assert split_offsets(1_115_394, 0.05, 0.05) == (1_003_854, 1_059_624)
    assert split_offsets(1000, 0.05, 0.05) == (1000, 1000)  # 50 characters are too few
    assert split_offsets(10_000, 0.1, 0.2) == (7000, 8000)
    assert split_offsets(10_000, 0, 0.2) == (8000, 8000)
    assert split_offsets(100_000_000, 0.05, 0.05) == (99_000_000, 99_500_000)


def test_files_as_documents_end_with_a_separator() -> None:
    corpus = Corpus("x", "ab", "c", documents="file")
    assert (corpus.characters, len(corpus.store), corpus_text(corpus)) == (3, 5, "abc")
    assert corpus.sha256 != Corpus("x", "a", "bc", documents="file").sha256


@pytest.mark.parametrize("unit", ["char", "jamo"])
@given(text=st.text(st.sampled_from("가각a\n"), min_size=2))
def test_symbol_offsets_follow_characters(unit: str, text: str) -> None:
    corpus = Corpus("x", text, unit=unit)
    assert corpus.characters == len(text)
    for n in range(len(text) + 1):
        offset = corpus.symbol_offset(n)
        assert corpus.count_characters(0, offset) == n
        assert corpus.count_characters(offset, len(corpus.store)) == len(text) - n


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text too large for memory, in proportion, whose second half has many more symbols."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(corpus_module, "CHUNK_SYMBOLS", 1000)
    monkeypatch.setattr(corpus_module, "MAX_IN_MEMORY_BYTES", 5000)
    rng = np.random.default_rng(0)
    few, many = rng.integers(97, 123, 20_000), rng.integers(0xAC00, 0xAC00 + 400, 20_000)
    path = tmp_path / "large.txt"
    path.write_text("".join(map(chr, [*few, *many])), encoding="utf-8")
    return path


def test_large_text_is_read_through_an_unnamed_file(large: Path, tmp_path: Path) -> None:
    corpus = Corpus("text", paths=[large], temp_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [large]  # a killed process leaves nothing behind
    assert corpus.store._in_memory is None
    assert corpus.store.dtype == np.uint16
    text = large.read_text(encoding="utf-8")
    assert corpus_text(corpus) == text
    indices = corpus.store[:]
    for a, b in [(0, 1), (19_990, 20_010), (39_999, 40_000), (5, 5), (7, 3), (-3, 40_010)]:
        assert (corpus.store[a:b] == indices[a:b]).all()
    as_bytes = Corpus("text", paths=[large], unit="byte")
    assert corpus_text(as_bytes).encode("latin-1") == text.encode()
    as_jamo = Corpus("text", paths=[large], unit="jamo")
    assert corpus_text(as_jamo) == text
    assert as_jamo.count_characters(0, as_jamo.symbol_offset(31_234)) == 31_234


def test_failed_read_leaves_nothing_behind(large: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(TextError):
        Corpus("text", paths=[large, tmp_path / "bad.txt"], temp_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_full_disk_is_a_save_error(large: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SaveError, match=r": could not write the encoded text \(file too la"):
            Corpus("text", paths=[large], temp_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("limit", [1 << 20, 100])
def test_indices_have_the_smallest_type(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "MAX_IN_MEMORY_BYTES", limit)
    for num_codes, size in {1: 1, 256: 1, 257: 2, 65_536: 2, 65_537: 4}.items():
        store, codes = SymbolStore(), np.arange(num_codes, dtype=np.uint32)
        store.append(codes[:200])
        store.append(codes[::-1])
        store.finalize()
        assert store.dtype.itemsize == size
        assert (store.codes[store[:]] == [*codes[:200], *codes[::-1]]).all()


def test_change_of_a_text_is_described(tmp_path: Path) -> None:
    a, b = str(tmp_path / "a.txt"), str(tmp_path / "b.txt")
    Path(a).write_text("one\n")
    Path(b).write_text("two\n")
    recorded = json.loads(json.dumps(Corpus("text", paths=[a, b]).describe()))

    def change(*paths: str) -> str | None:
        return Corpus("text", paths=paths).describe_change(recorded)

    assert change(a, b) is None
    assert change(a) == "the number of files changed from 2 to 1"
    Path(b).write_text("too\n")
    assert change(a, b) == f"the contents of {b} changed (same size)"
    Path(b).write_text("twice\n")
    assert change(a, b) == f"{b} changed from 4 to 6 bytes"
    c = str(Path(b).rename(tmp_path / "c.txt"))
    assert change(a, c) == f"{c} (formerly {b}) changed from 4 to 6 bytes"
