from charrnn import formatting


def test_losses_are_in_nats_and_bits() -> None:
    assert formatting.format_loss(1.0) == "1.0000 nats (1.443 bits)"
    assert formatting.format_loss(float("inf")) == "inf nats (inf bits)"
    assert formatting.format_loss(None) == "non-finite"


def test_baselines_are_listed_and_the_lowest_is_best() -> None:
    baselines = {"uniform": 4.1743872, "1-gram": 3.3, "2-gram": 2.4}
    assert formatting.format_baselines(baselines) == "uniform 4.174, 1-gram 3.300, 2-gram 2.400"
    assert formatting.best_baseline(baselines) == "2-gram"
    assert formatting.format_baselines({}) == "none"
    assert formatting.best_baseline({}) is None


def test_counts_agree_with_their_noun() -> None:
    assert formatting.format_count(1, "file") == "1 file"
    assert formatting.format_count(0, "file") == "0 files"
    assert formatting.format_count(12345, "character") == "12,345 characters"
    assert formatting.format_workers(1, 1, 1) == "1 worker"
    assert formatting.format_workers(2, 4, 1) == "4 ranks of 2 workers"
    assert formatting.format_workers(1, 2, 8) == "2 ranks of 1 worker, averaged every 8 steps"


def test_control_characters_are_escaped() -> None:
    assert formatting.escape_control("한글 é, 'quoted'") == "한글 é, 'quoted'"
    assert formatting.escape_control("a\nb\tc\x1b[2J") == r"a\nb\tc\x1b[2J"
    assert formatting.escape_control("\u2028\u202e\ud800") == r"\u2028\u202e\ud800"


def test_display_width_is_in_columns_of_a_terminal() -> None:
    for text, width in [
        ("abc", 3),
        ("한글", 4),
        ("\u1112\u1161\u11ab", 2),
        ("a\u0301\u20dd", 1),
        ("", 0),
    ]:
        assert formatting.display_width(text) == width
    assert formatting.display_width("\uff21\uff22") == 4  # full width
