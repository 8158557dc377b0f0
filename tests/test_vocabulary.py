import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.errors import TextError, UnknownCharacterError
from charrnn.text import units
from charrnn.text.vocabulary import Vocabulary

# every code point, lone surrogates too
texts = st.text(st.characters(codec=None), min_size=1)


@pytest.mark.parametrize("unit", ["char", "byte", "jamo", "word"])
@example(text="e\u0301\u00e9\r\n\ufeff\x00\u1112\u1161\u11ab\ud55c👩‍👩‍👧")
@given(text=texts)
def test_every_unit_is_lossless(unit: str, text: str) -> None:
    v = Vocabulary.from_text(text, unit)
    back = v.decode(v.encode(text))
    if unit == "byte":
        back = back.encode("latin-1").decode("utf-8", "surrogatepass")
    assert back == text
    if unit == "char":
        assert list(v.symbols) == sorted(set(text))
    again = Vocabulary.from_header(v.to_header(), unit)
    assert (again.codes == v.codes).all()
    assert again.words == v.words
    assert again.start_symbol == v.start_symbol


@given(texts, texts)
def test_skip_leaves_out_unknown_characters_only(known: str, text: str) -> None:
    v = Vocabulary.from_text(known)
    assert v.decode(v.encode(text, unknown="skip")) == "".join(c for c in text if c in set(known))


def test_start_symbol_is_a_newline_or_the_most_common_symbol() -> None:
    for text, symbol in {"aab\n": "\n", "abbc": "b", "ab": "a"}.items():
        assert Vocabulary.from_text(text).start_symbol == ord(symbol)
    assert (Vocabulary.from_text("abbc").start_id == [1]).all()


def test_separator_is_a_newline_or_the_end_of_a_document() -> None:
    v = Vocabulary([ord("a"), ord("\n"), units.END_OF_DOCUMENT], ord("a"))
    assert [v.separator_id(documents) for documents in (None, "line", "file")] == [None, 0, 2]
    assert Vocabulary.from_text("ab").separator_id("line") is None


def test_unknown_character_or_byte_is_named_with_its_offset() -> None:
    v = Vocabulary.from_text("abc")
    message = r"'é' \(U\+00E9, offset 2\) is not in the model's vocabulary of 3 symbols; use --unk"
    with pytest.raises(UnknownCharacterError, match=message):
        v.encode("abéc")
    with pytest.raises(UnknownCharacterError, match=r"byte 0xff \(offset 1\) is not in"):
        Vocabulary.from_text("ab", "byte").encode(b"a\xff")
    with pytest.raises(UnknownCharacterError, match="offset 0"):
        v.encode("\U0010ffff")


def from_counts(text: str, min_count: int = 1, max_vocab: int | None = None) -> Vocabulary:
    codes, counts = np.unique(units.to_codes(text, "char"), return_counts=True)
    return Vocabulary.from_counts(codes, counts, "char", min_count, max_vocab)


def test_rare_characters_share_the_unknown_symbol() -> None:
    text = "aaaabbbccd\n"
    v = from_counts(text, min_count=2)
    assert v.symbols == "\nabc"  # the newline is never rare
    assert v.codes[-1] == units.UNKNOWN
    assert v.decode(v.encode("abdé")) == "ab\ufffd\ufffd"
    assert v.encode("d")[0] == v.encode("é")[0] == v.id(units.UNKNOWN) == len(v) - 1
    assert from_counts(text, max_vocab=4).symbols == "\nab"
    assert from_counts(text, max_vocab=4, min_count=4).symbols == "\na"
    assert from_counts(text, max_vocab=5).id(units.UNKNOWN) is None
    with pytest.raises(TextError, match="the vocabulary is empty"):
        from_counts("abc", min_count=2)


def test_unknown_syllable_is_left_out_with_all_its_jamo() -> None:
    v = Vocabulary.from_text("가나 각", "jamo")
    assert v.decode(v.encode("가낙 닫나", unknown="skip")) == "가낙 나"
    with pytest.raises(UnknownCharacterError, match=r"'닫' \(U\+B2EB, offset 3\)"):
        v.encode("가낙 닫나")
