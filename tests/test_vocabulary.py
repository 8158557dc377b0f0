import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import UnknownCharacterError
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
    assert v.start in v


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
    assert Vocabulary.of("aab\n").start == "\n"
    assert Vocabulary.of("abbc").start == "b"


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
