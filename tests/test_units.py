import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.text import units
from charrnn.text.units import (
    END_OF_DOCUMENT,
    FIRST_SPECIAL,
    FIRST_TAIL,
    FIRST_VOWEL,
    UNKNOWN,
    Composer,
)

LEAD, VOWEL, TAIL = FIRST_SPECIAL, FIRST_VOWEL, FIRST_TAIL
hangul = st.text(st.sampled_from("가각힣뷁한글ㄱㅏㅋ\u1100\u1161\u11a8\u11ff\ua960\ud7b0 a"))
anything = st.text(st.characters(codec=None))


@given(st.one_of(hangul, anything))
def test_jamo_are_lossless(text: str) -> None:
    codes = units.to_codes(text, "jamo")
    assert units.to_text(codes.tolist()) == text
    assert units.starts_character(codes).sum() == len(text)


def test_every_character_of_unicode_is_lossless() -> None:
    text = "".join(map(chr, range(FIRST_SPECIAL)))
    for unit in "char", "jamo":
        assert units.to_text(units.to_codes(text, unit).tolist()) == text


def test_syllables_decompose_as_in_unicode_but_to_special_codes() -> None:
    decomposed = unicodedata.normalize("NFD", "가각힣뷁")
    codes = units.to_codes("가각힣뷁", "jamo")
    assert (codes >= FIRST_SPECIAL).all()
    assert [chr(units.CONJOINING_JAMO[code - FIRST_SPECIAL]) for code in codes] == list(decomposed)
    assert (units.to_codes(decomposed, "jamo") < FIRST_SPECIAL).all()


def test_bytes_are_for_unit_byte_only() -> None:
    assert units.to_codes("é", "byte").tolist() == [0xC3, 0xA9]
    assert units.to_codes(bytes(range(256)), "byte").tolist() == list(range(256))
    for unit in ("char", "jamo"):
        with pytest.raises(TypeError, match=f"unit {unit} needs a str, not bytes"):
            units.to_codes(b"abc", unit)


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ([LEAD, VOWEL], "가"),
        ([LEAD, VOWEL, TAIL], "각"),
        ([LEAD, LEAD, VOWEL], "\u1100가"),
        ([VOWEL, VOWEL], "\u1161\u1161"),
        ([TAIL, LEAD], "\u11a8\u1100"),
        ([LEAD, TAIL], "\u1100\u11a8"),
        ([LEAD, VOWEL, TAIL, TAIL], "각\u11a8"),
        ([LEAD, VOWEL, VOWEL], "가\u1161"),
        ([LEAD, VOWEL, ord("a")], "가a"),
        ([LEAD, END_OF_DOCUMENT, UNKNOWN, ord("a")], "\u1100\ufffda"),
    ],
)
def test_jamo_outside_a_syllable_become_conjoining_jamo(codes: list[int], text: str) -> None:
    assert units.to_text(codes) == text


# the first and last of each kind of jamo
jamo_or_other = st.sampled_from(
    [LEAD, VOWEL - 1, VOWEL, TAIL - 1, TAIL, END_OF_DOCUMENT - 1, END_OF_DOCUMENT, UNKNOWN, 97]
)


@given(st.lists(jamo_or_other))
def test_composer_loses_nothing(codes: list[int]) -> None:
    composer = Composer()
    pieces = [composer.feed(code) for code in codes]
    assert "".join(pieces) + composer.flush() == units.to_text(codes)
    assert composer.flush() == ""
    # any decoded text can be encoded again
    text = units.to_text(codes)
    assert units.to_text(units.to_codes(text, "jamo").tolist()) == text
