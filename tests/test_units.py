import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn import units
from charrnn.units import END, OWN, TAIL, UNKNOWN, VOWEL, Composer

hangul = st.text(st.sampled_from("가각힣뷁한글ㄱㅏㅋ\u1100\u1161\u11a8\u11ff\ua960\ud7b0 a"))
anything = st.text(st.characters(codec=None))


@given(st.one_of(hangul, anything))
def test_jamo_are_lossless(text: str) -> None:
    codes = units.encode(text, "jamo")
    assert units.decode(codes.tolist()) == text
    assert units.begins(codes).sum() == len(text)


def test_every_character_of_unicode_comes_back() -> None:
    text = "".join(map(chr, range(OWN)))
    for unit in ("char", "jamo"):
        assert units.decode(units.encode(text, unit).tolist()) == text


def test_letters_are_those_of_unicode_but_not_its_characters() -> None:
    for syllable in "가각힣뷁":
        codes = units.encode(syllable, "jamo")
        assert (codes >= OWN).all()
        assert [chr(units.ALONE[code - OWN]) for code in codes] == list(unicodedata.normalize("NFD", syllable))
    decomposed = unicodedata.normalize("NFD", "한글")
    assert (units.encode(decomposed, "jamo") < OWN).all()


def test_bytes() -> None:
    assert units.encode("é", "byte").tolist() == [0xC3, 0xA9]
    assert units.encode(bytes(range(256)), "byte").tolist() == list(range(256))


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ([OWN, VOWEL], "가"),
        ([OWN, VOWEL, TAIL], "각"),
        ([OWN, OWN, VOWEL], "\u1100가"),
        ([VOWEL, VOWEL], "\u1161\u1161"),
        ([TAIL, OWN], "\u11a8\u1100"),
        ([OWN, TAIL], "\u1100\u11a8"),
        ([OWN, VOWEL, TAIL, TAIL], "각\u11a8"),
        ([OWN, VOWEL, VOWEL], "가\u1161"),
        ([OWN, VOWEL, ord("a")], "가a"),
        ([OWN, END, UNKNOWN, ord("a")], "\u1100\ufffda"),
    ],
)
def test_what_no_syllable_holds_is_written_as_letters(codes: list[int], text: str) -> None:
    assert units.decode(codes) == text


@given(st.lists(st.sampled_from([OWN, OWN + 18, VOWEL, VOWEL + 20, TAIL, TAIL + 26, 97, END, UNKNOWN])))
def test_text_comes_as_soon_as_it_is_certain_and_nothing_is_lost(codes: list[int]) -> None:
    composer = Composer()
    pieces = [composer.feed(code) for code in codes]
    assert "".join(pieces) + composer.flush() == units.decode(codes)
    assert composer.flush() == ""
    # whatever was written, it is a text: it comes back
    text = units.decode(codes)
    assert units.decode(units.encode(text, "jamo").tolist()) == text
