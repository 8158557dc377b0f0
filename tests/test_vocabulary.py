import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import units
from charrnn.errors import TextError, UnknownCharacterError
from charrnn.vocabulary import Vocabulary

# every code point, lone surrogates too
texts = st.text(st.characters(codec=None), min_size=1)


@given(texts)
def test_decode_undoes_encode(text: str) -> None:
    v = Vocabulary.of(text)
    assert v.decode(v.encode(text)) == text


@given(texts)
def test_symbols_are_sorted_and_distinct(text: str) -> None:
    v = Vocabulary.of(text)
    assert list(v.symbols) == sorted(set(text))
    assert chr(v.start) in v.symbols


@given(texts, texts)
def test_skip_leaves_out_what_is_unknown_and_nothing_else(known: str, text: str) -> None:
    v = Vocabulary.of(known)
    assert v.decode(v.encode(text, unknown="skip")) == "".join(c for c in text if c in set(known))


def test_combining_marks_and_line_ends_stay_as_they_are() -> None:
    text = "e\u0301\u00e9\r\n\ufeff\x00\u1112\u1161\u11ab\ud55c👩‍👩‍👧"
    v = Vocabulary.of(text)
    assert v.decode(v.encode(text)) == text
    assert len(v) == len(set(text))


def test_start_is_a_newline_or_the_commonest() -> None:
    assert Vocabulary.of("aab\n").start == ord("\n")
    assert Vocabulary.of("abbc").start == ord("b")
    assert Vocabulary.of("ab").start == ord("a")
    assert (Vocabulary.of("abbc").start_id == [1]).all()


def test_unknown_character_is_named_with_its_place() -> None:
    v = Vocabulary.of("abc")
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9, offset 2\) is not among the model's 3"):
        v.encode("abéc")
    with pytest.raises(UnknownCharacterError, match=r"offset 0"):
        v.encode("\U0010ffff")


def test_one_hot_rows() -> None:
    v = Vocabulary.of("helo")
    rows = v.one_hot(v.encode("hello"))
    assert rows.shape == (5, 4)
    assert (rows.sum(1) == 1).all()
    assert (rows.argmax(1) == v.encode("hello")).all()
    assert rows.dtype == np.float32


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
@given(text=st.text(min_size=1))
def test_every_unit_is_lossless(unit: str, text: str) -> None:
    v = Vocabulary.of(text, unit)
    back = v.decode(v.encode(text))
    assert (back.encode("latin-1").decode() if unit == "byte" else back) == text
    again = Vocabulary.restore(v.describe(), unit)
    assert (again.codes == v.codes).all()
    assert again.start == v.start


def counted(text: str, min_count: int = 1, max_vocab: int | None = None) -> Vocabulary:
    codes, counts = np.unique(units.to_codes(text, "char"), return_counts=True)
    return Vocabulary.counted(codes, counts, "char", min_count, max_vocab)


def test_rare_characters_share_one_symbol() -> None:
    text = "aaaabbbccd\n"
    v = counted(text, min_count=2)
    assert v.symbols == "\nabc"  # the newline is always known
    assert v.describe()["special"] == [units.UNKNOWN]
    assert v.decode(v.encode("abdé")) == "ab\ufffd\ufffd"
    assert v.encode("d")[0] == v.encode("é")[0] == v.id(units.UNKNOWN) == len(v) - 1
    assert counted(text, max_vocab=4).symbols == "\nab"
    assert counted(text, max_vocab=4, min_count=4).symbols == "\na"
    assert counted(text, max_vocab=5).describe()["special"] == []
    with pytest.raises(TextError, match="no symbol is common enough"):
        counted("abc", min_count=2)


def test_a_syllable_is_left_out_whole() -> None:
    v = Vocabulary.of("가나 각", "jamo")
    assert v.decode(v.encode("가낙 닫나", unknown="skip")) == "가낙 나"
    with pytest.raises(UnknownCharacterError, match=r"'닫' \(U\+B2EB, offset 3\)"):
        v.encode("가낙 닫나")
    with pytest.raises(UnknownCharacterError, match=r"the byte 0xff \(offset 1\)"):
        Vocabulary.of("ab", "byte").encode(b"a\xff")
