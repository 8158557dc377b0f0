"""How losses, counts and foreign text are written."""

import pytest

from charrnn.formatting import (
    best_baseline,
    display_width,
    escape_control,
    format_baselines,
    format_count,
    format_loss,
    format_threads,
)


def test_losses_are_in_nats_and_bits() -> None:
    assert format_loss(1.0) == "1.0000 nats (1.443 bits)"
    assert format_loss(float("inf")) == "inf nats (inf bits)"
    assert format_loss(None) == "non-finite"
    assert format_loss(None, "not measured") == "not measured"


def test_baselines() -> None:
    baselines = {"uniform": 4.1743872, "1-gram": 3.3, "2-gram": 2.4}
    assert format_baselines(baselines) == "uniform 4.174, 1-gram 3.300, 2-gram 2.400"
    assert best_baseline(baselines) == "2-gram"
    assert format_baselines({}) == "none"
    assert best_baseline({}) is None


def test_counts_agree_with_their_noun() -> None:
    assert format_count(1, "file") == "1 file"
    assert format_count(0, "file") == "0 files"
    assert format_count(12345, "character") == "12,345 characters"
    assert format_threads(1) == "1 thread"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("한글 é, 'quoted'", "한글 é, 'quoted'"),
        ("a\nb\tc\x1b[2J", r"a\nb\tc\x1b[2J"),
        ("\u2028\u202e\ud800", r"\u2028\u202e\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape_control(text) == escaped


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("abc", 3),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),
        ("a\u0301\u20dd", 1),
        ("", 0),
        ("\uff21\uff22", 4),
    ],
)
def test_display_width_is_in_columns_of_a_terminal(text: str, width: int) -> None:
    assert display_width(text) == width
