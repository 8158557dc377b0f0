import encodings
import hashlib
import io
import json
import pkgutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import corpus as corpus_module
from charrnn.cli.common import default_run_name
from charrnn.corpus import Corpus, Part, SymbolStore, decode, read, split
from charrnn.errors import SaveError, TextError, UsageError
from charrnn.vocabulary import Vocabulary


def text(corpus: Corpus) -> str:
    """Return what a corpus holds, by way of a vocabulary, as training reads it."""
    vocabulary = Vocabulary.from_counts(corpus.store.codes, corpus.store.counts, corpus.unit)
    return vocabulary.decode(Part(corpus.store, vocabulary.ids_of(corpus.store.codes), 0, len(corpus.store))[:])


def test_files_are_joined_in_the_order_given_bytes_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"one\r\ntwo")
    (tmp_path / "a.txt").write_bytes("\ufeff한국\r".encode())
    paths = [str(tmp_path / "b.txt"), str(tmp_path / "a.txt")]
    corpus = read(paths)
    assert text(corpus) == "one\r\ntwo\ufeff한국\r"
    data = [Path(path).read_bytes() for path in paths]
    assert corpus.files == [(path, len(d), zlib.crc32(d)) for path, d in zip(paths, data, strict=True)]
    assert corpus.bytes == 8 + 3 + 6 + 1
    assert corpus.characters == 12
    assert corpus.sha256 == hashlib.sha256(b"".join(data)).hexdigest()
    (note,) = corpus.notes
    assert note.startswith(f"{paths[1]} begins with a byte-order mark (U+FEFF), which is kept as a ")


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
    assert text(corpus) == "firstsecondlast"
    assert [Path(f).name for f in corpus.skipped] == ["image.png", "latin.txt"]
    everything = read([str(tmp_path)], unit="byte")
    assert text(everything) == "firstsecond\x89PNG\0\0caf\xe9last"
    assert not everything.skipped


def test_a_run_names_the_first_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "LISTED", 2)
    corpus, other = Corpus("text", "one", "two", "three"), Corpus("text", "one", "two", "four.")
    assert len(corpus.files) == 3
    assert corpus.describe()["files"] == [list(file) for file in corpus.files[:2]]
    assert other.differs(json.loads(json.dumps(corpus.describe()))) == "it had 11 characters, and has 11 now"


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("né\r\n".encode()), encoding="ascii"))
    corpus = read(["-"])
    assert text(corpus) == "né\r\n"


def test_wrong_bytes_are_named_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo caf\xe9 au lait")
    wrong = r"latin\.txt: invalid UTF-8 at offset 11, line 2 \(bytes e9 20 61 75\); "
    with pytest.raises(TextError, match=wrong + "specify the encoding .*--unit byte"):
        read([str(path)])
    with pytest.raises(TextError, match=wrong + "convert it first"):
        decode(path.read_bytes(), str(path))
    assert text(read([str(path)], encoding="latin-1")) == "one\ntwo café au lait"
    assert text(read([str(path)], unit="byte")) == "one\ntwo caf\xe9 au lait"


def test_the_place_of_a_wrong_byte_far_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", 7)  # characters of several bytes lie across the chunks' edges
    good = "é한👩\n" * 50
    (tmp_path / "good").write_text(good)
    assert text(read([str(tmp_path / "good")])) == good
    (tmp_path / "bad").write_bytes(good.encode() + b"ab\xff")
    with pytest.raises(TextError, match=r"offset 502, line 51 \(bytes ff\)"):
        read([str(tmp_path / "bad")])
    (tmp_path / "cut").write_bytes(good.encode()[:-2])
    with pytest.raises(TextError, match=r"offset 495, line 50 \(bytes f0 9f 91\)"):
        read([str(tmp_path / "cut")])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_byte_order_mark_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes("Hello, 한국\n".encode(encoding))
    with pytest.raises(TextError, match=f"has a {encoding.upper()} byte-order mark, .*use --encoding {encoding}, "):
        read([str(path)])
    assert text(read([str(path)], encoding=encoding)) == "Hello, 한국\n"
    path.write_bytes("Hello, 한국\n".encode(f"{encoding}-le"))
    with pytest.raises(TextError, match=rf"invalid {encoding.upper()} \(.*BOM\); specify the enc"):
        read([str(path)], encoding=encoding)


@pytest.mark.filterwarnings("ignore:.*invalid escape:DeprecationWarning")  # of unicode_escape
def test_every_encoding_of_python_is_read_or_refused() -> None:
    random = np.random.default_rng(0).bytes(300)
    texts = (random, bytes(range(128)), "héllo 한국\n".encode(), b"\\\\", b"~{", b"\x1b$", b"+2")
    read_at_all = 0
    for module in pkgutil.iter_modules(encodings.__path__):
        for data in texts:
            try:
                corpus = Corpus("x", data, encoding=module.name)
                assert len(decode(data, "x", module.name)) == corpus.characters
                read_at_all += 1
            except TextError as e:
                assert str(e).startswith("x")  # noqa: PT017
            except UsageError as e:
                assert str(e).startswith(f"unknown encoding '{module.name}'; try utf-8")  # noqa: PT017
    assert read_at_all > 300


def test_an_encoding_may_hold_half_a_pair() -> None:
    with pytest.raises(TextError, match=r"U\+D800 is a lone surrogate"):
        Corpus("x", b"ab+2AA-", encoding="utf-7")


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_to_learn_from(text: str) -> None:
    with pytest.raises(TextError, match="at least two characters"):
        Corpus("x", text)


def test_half_a_surrogate_pair_is_no_character() -> None:
    with pytest.raises(TextError, match=r"U\+D800 is a lone surrogate, not a valid character \(offset 2\)"):
        Corpus("x", "ab\ud800")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"no such file"):
        read([str(tmp_path / "nothing.txt")])
    with pytest.raises(TextError, match="no text file in this folder"):
        read([str(tmp_path)])


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_run_name(["-"]) == "stdin"
    assert default_run_name(["a/tiny.shakespeare.txt", "b.txt"]) == "tiny.shakespeare"
    assert default_run_name(["."]) == tmp_path.name


def test_parts_are_cut_by_position_and_capped() -> None:
    assert split(1_115_394, 0.05, 0.05) == (1_003_854, 1_059_624)
    assert split(1000, 0.05, 0.05) == (1000, 1000)  # 50 characters are too few for a part
    assert split(10_000, 0.1, 0.2) == (7000, 8000)
    assert split(10_000, 0, 0.2) == (8000, 8000)
    assert split(100_000_000, 0.05, 0.05) == (99_000_000, 99_500_000)


def test_files_end_with_a_symbol_if_they_are_documents() -> None:
    a, b = Corpus("x", "ab", "c", by="file"), Corpus("x", "a", "bc", by="file")
    assert a.characters == b.characters == 3
    assert len(a.store) == 5
    assert text(a) == "abc"
    assert a.sha256 != b.sha256  # the same bytes, but other documents


@pytest.mark.parametrize("unit", ["char", "jamo"])
@given(texts=st.text(st.sampled_from("가각a\n"), min_size=2))
def test_characters_and_symbols(unit: str, texts: str) -> None:
    corpus = Corpus("x", texts, unit=unit)
    assert corpus.characters == len(texts)
    for n in range(len(texts) + 1):
        place = corpus.place(n)
        assert corpus.count(0, place) == n
        assert corpus.count(place, len(corpus.store)) == len(texts) - n


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text that is too large for memory, in proportion, whose later part has many more symbols."""
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(corpus_module, "MAX_IN_MEMORY_BYTES", 5000)
    rng = np.random.default_rng(0)
    few, many = rng.integers(97, 123, 20_000), rng.integers(0x4E00, 0x4E00 + 400, 20_000)
    path = tmp_path / "large.txt"
    path.write_text("".join(map(chr, [*few, *many])), encoding="utf-8")
    return path


def test_large_text_is_read_through_an_unnamed_file(large: Path, tmp_path: Path) -> None:
    corpus = read([str(large)], temp_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [large]  # a killed process leaves nothing behind
    assert corpus.store._in_memory is None
    assert corpus.store.dtype == np.uint16
    whole = large.read_text(encoding="utf-8")
    assert text(corpus) == whole
    indices = corpus.store[:]
    for a, b in [(0, 1), (19_990, 20_010), (39_999, 40_000), (5, 5), (7, 3), (-3, 40_010)]:
        assert (corpus.store[a:b] == indices[a:b]).all()
    assert text(read([str(large)], unit="byte", temp_dir=tmp_path)).encode("latin-1") == whole.encode()


def test_failed_read_leaves_nothing_behind(large: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(TextError):
        read([str(large), str(tmp_path / "bad.txt")], temp_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_full_disk_is_a_save_error(large: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SaveError, match=r": could not write the encoded text \(file too large\)"):
            read([str(large)], temp_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("kinds", "size"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
@pytest.mark.parametrize("limit", [1 << 20, 100])
def test_indices_have_the_smallest_type(kinds: int, size: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "MAX_IN_MEMORY_BYTES", limit)
    store = SymbolStore()
    codes = np.arange(kinds, dtype=np.uint32)
    store.append(codes[:200])
    store.append(codes[::-1])
    store.finalize()
    assert store.dtype.itemsize == size
    assert (store.codes[store[:]] == [*codes[:200], *codes[::-1]]).all()


def test_what_differs_is_said(tmp_path: Path) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text("one\n")
    b.write_text("two\n")
    was = read([str(a), str(b)]).describe()
    assert read([str(a), str(b)]).differs(was) is None
    assert read([str(a)]).differs(was) == "there were 2 files, and there are 1 now"
    b.write_text("too\n")
    assert read([str(a), str(b)]).differs(was) == f"{b} has as many bytes, but others"
    b.write_text("twice\n")
    assert read([str(a), str(b)]).differs(was) == f"{b} had 4 bytes, and has 6 now"
    old = {**was, "files": [[str(a), None, None], [str(b), None, None]]}  # as format 1 knew them
    assert read([str(a), str(b)]).differs(old) == "it had 8 characters, and has 10 now"
