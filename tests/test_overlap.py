"""Verbatim overlap, against a search that tries every length at every position."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charrnn
from charrnn.analysis import overlap
from charrnn.analysis.overlap import (
    code_view,
    copied_fraction,
    find_first,
    find_overlap,
    locate,
    longest_matches,
    match_lengths,
)
from charrnn.text import units
from charrnn.text.corpus import Corpus
from tests.conftest import CHARRNN, ENV, Cli, run_on_terminal

# few symbols, so that much is shared; with one alone, NUL, the last of Unicode; and many symbols
MANY = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
ALPHABETS = ["a", "ab", "abc", "\0a\n", "é한\U0010ffff", MANY]


def naive(sample: str | bytes, text: Any) -> list[int]:
    lengths: list[int] = []
    for i in range(len(sample)):
        length = 0
        while i + length < len(sample) and sample[i : i + length + 1] in text:
            length += 1
        lengths.append(length)
    return lengths


def match(sample: str | bytes, text: str | bytes, unit: str = "char") -> list[int]:
    text_codes = code_view(Corpus("text", text, unit=unit).store)
    return list(match_lengths(units.to_codes(sample, unit), text_codes))


@st.composite
def samples_and_texts(draw: st.DrawFn) -> tuple[str, str]:
    """A sample and a text with stretches of it; the text may have symbols that it lacks."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    sample = draw(st.text(alphabet, min_size=1, max_size=40))
    cut = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ab: sample[slice(*ab)])
    stretches = draw(st.lists(cut | st.text(alphabet + "?", max_size=20), max_size=6))
    return sample, "".join(stretches) + "??"


@settings(max_examples=400)
@given(samples_and_texts(), st.integers(1, 50), st.sampled_from(["char", "byte"]))
def test_match_lengths_equal_naive_search(pair: tuple[str, str], chunk: int, unit: str) -> None:
    sample, text = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "CHUNK_SYMBOLS", chunk)
        if unit == "char":
            assert match(sample, text) == naive(sample, text)
        else:
            assert match(sample, text, unit) == naive(sample.encode(), text.encode())


def test_match_lengths_of_long_copies() -> None:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abcdefgh "), 3000))
    sample = text[1200:1500] + "!" + text[1480:1505] + text[2990:] + "ab"
    assert match(sample, text) == naive(sample, text)
    assert match("a" * 3000, "a" * 2000) == [min(2000, n) for n in range(3000, 0, -1)]
    assert match("", text) == []


def test_text_beyond_stop_is_not_matched() -> None:
    store = Corpus("text", "abcabd").store
    for stop, wanted in ((6, [3, 2, 1]), (5, [2, 1, 0]), (99, [3, 2, 1])):
        assert match_lengths(units.code_points("abd"), code_view(store, stop)).tolist() == wanted


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 9))
def test_longest_matches_and_fraction_equal_naive_search(raw: list[int], top: int) -> None:
    n = len(raw)
    lengths: list[
        int
    ] = []  # possible ones: within the sample, each at least the tail of the previous
    for i, length in enumerate(raw):
        lengths.append(min(max(length, lengths[-1] - 1 if lengths else 0), n - i))
    wanted: list[tuple[int, int]] = []
    for length in range(10, 0, -1):
        for i in range(n):
            maximal = lengths[i] == length and (i == 0 or lengths[i - 1] <= length)
            if maximal and all(i + length <= a or a + b <= i for a, b in wanted):
                wanted.append((i, length))
    assert longest_matches(np.array(lengths, np.intp), top) == wanted[:top]
    for k in (1, 3, 5):
        inside = {
            j for i, length in enumerate(lengths) if length >= k for j in range(i, i + length)
        }
        if n:
            assert copied_fraction(np.array(lengths), k) == pytest.approx(
                len(inside) / n, abs=1e-15
            )


@given(
    st.text("\0a\u0100\U00010000", min_size=2, max_size=40),
    st.text("\0a\u0100", min_size=1, max_size=4),
)
def test_find_first_equals_str_find(text: str, piece: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "CHUNK_SYMBOLS", 5)
        codes = code_view(Corpus("text", text).store)
        assert find_first(units.code_points(piece), codes) == text.find(piece)


def test_locate_gives_file_line_and_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "CHUNK_SYMBOLS", 7)
    files = {"a.txt": "é one\r\ntwo\n\n", "b.txt": "", "c.txt": "\nthree\nfour", "d.txt": "x\ny\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    codes = code_view(Corpus("text", paths=[str(tmp_path)], documents="file").store)
    position = 0
    for document, text in enumerate(files.values()):
        for offset in range(len(text)):
            line = text[:offset].count("\n") + 1
            assert locate(codes, position) == (document, line, offset)
            position += 1
        position += 1  # the end of the file


def test_copies_do_not_cross_files(tmp_path: Path) -> None:
    for i in range(150):
        (tmp_path / f"{i:03}.txt").write_text(f"file {i}\n")
    last, other = (str(tmp_path / name) for name in ("last.txt", "149.txt"))
    Path(last).write_text("one\nüber alles\n", encoding="utf-8")
    corpus = Corpus("text", paths=[str(tmp_path)], documents="file")
    result = find_overlap("149\none\nüber alles\n", corpus, 9)
    keys = ("length", "sample_offset", "file", "line", "offset", "text")
    assert [tuple(copy[key] for key in keys) for copy in result["copies"]] == [
        (15, 4, last, 1, 0, "one\nüber alles\n"),
        (4, 0, other, 1, 5, "149\n"),
    ]
    assert result["characters"] == 19


# --- the command ---


def test_overlap_of_given_sample(cli: Cli, tmp_path: Path) -> None:
    text = MANY[:100]
    (tmp_path / "corpus.txt").write_text(f"one\n{text}\t'\n", encoding="utf-8")
    sample = f"??{text[20:70]}!{text[:25]}??".encode()
    (tmp_path / "sample.txt").write_bytes(sample)
    done = cli("overlap", "--sample", "sample.txt", "corpus.txt", "--top", "1")
    assert done.stdout.decode().splitlines() == [
        "sample: 80 characters; corpus: 107 characters",
        "copied verbatim: 93.8% of the sample in passages of at least 20 characters, 62.5% of 40, "
        "0.0% of 80",
        f"50 characters at sample offset 2, from corpus.txt line 2 (offset 24): {text[20:70]!r}",
    ]
    assert not done.stderr
    from_stdin = ("overlap", "--sample", "-", "corpus.txt")
    h = json.loads(cli(*from_stdin, "--json", stdin=sample).stdout)
    assert h["copied_fraction"] == {"20": 75 / 80, "40": 50 / 80, "80": 0}
    assert [(c["length"], c["sample_offset"]) for c in h["copies"]] == [(50, 2), (25, 53)]
    assert (h["checkpoint"], h["seed"], h["unit"]) == (None, None, "char")
    assert (h["characters"], h["corpus_characters"]) == (80, 107)
    h = json.loads(cli(*from_stdin, "--json", "--unit", "byte", stdin=sample).stdout)
    copies = [(c["length"], c["sample_offset"], c["offset"]) for c in h["copies"]]
    assert copies == [(150, 2, 64), (75, 153, 4)]
    assert h["copies"][1]["text"].encode("latin-1").decode() == text[:25]


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        ("char", ["--encoding", "utf-16"]),
        ("char", ["--encoding", "utf-16", "--documents", "line"]),
        ("byte", ["--unit", "byte", "--documents", "file"]),
        ("char", ["--encoding", "utf-16", "--documents", "line", "--unit", "jamo"]),
    ],
)
def test_overlap_of_generated_sample(
    cli: Cli, tmp_path: Path, unit: str, options: list[str]
) -> None:
    text = "가나다 각\n한국말, éa\n" * 30
    encoding = "utf-8" if unit == "byte" else "utf-16"
    (tmp_path / "corpus.txt").write_text(text, encoding=encoding)
    cli("train", "corpus.txt", *options, "--hidden-size", 8, "--max-steps", 30, "-o", "run.npz")
    generated = ["-n", 90, "--seed", 7, "-t", 0.7, "--top", 2, "--json"]
    h = json.loads(cli("overlap", "run.npz", "corpus.txt", *generated).stdout)
    model, shown = charrnn.load(tmp_path / "run.npz"), ""
    for seed in range(7, 97):
        shown += "".join(model.sample(90 - len(shown), seed=seed, temp=0.7))
    data: Any = text.encode() if unit == "byte" else text
    sample: Any = shown.encode("latin-1") if unit == "byte" else shown
    assert (h["characters"], h["corpus_characters"]) == (90, len(data))
    assert (h["seed"], h["unit"]) == (7, unit)
    assert h["copies"][0]["length"] == max(naive(sample, data))
    for copy in h["copies"]:
        start, end = copy["sample_offset"], copy["sample_offset"] + copy["length"]
        assert copy["text"] == shown[start:end]
        assert copy["offset"] == data.find(sample[start:end])


def test_overlap_shows_progress_on_terminal_only(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("ab" * 300)
    (tmp_path / "corpus").write_text("ab" * 200_000)
    slow = (  # a second passes before the bar is shown
        "import sys, time; from charrnn.analysis import overlap; from charrnn.cli import main; "
        "overlap.CHUNK_SYMBOLS = 100_000; find = overlap.find_overlap; "
        "overlap.find_overlap = lambda *a: (time.sleep(1.1), find(*a))[1]; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", slow, "overlap", "--sample", "sample", "corpus"]
    shown, out = run_on_terminal(command, tmp_path, ENV, 24, 80)
    assert b"100k/400k" in shown
    assert out.startswith(b"sample: 600 characters")
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *CHARRNN, *command[3:]]
    assert run_on_terminal(closed, tmp_path, ENV, 24, 80) == (b"", out)


@pytest.mark.parametrize(
    ("args", "stdin", "rc", "message"),
    [
        ("run.npz", b"", 4, "run.npz: no such file"),
        ("--sample - -", b"ab", 2, "- (standard input) can be given only once"),
        ("--sample - --seed 1 corpus.txt", b"ab", 2, "--seed cannot be combined with --sample"),
        ("--unit byte --encoding big5 a.txt --sample -", b"ab", 2, "unit byte cannot be combined"),
        ("--sample - corpus.txt", b"", 3, "the sample is empty"),
        ("--sample - corpus.txt", b"a\xff", 3, "standard input: "),
        ("--sample none.txt corpus.txt", b"", 3, "none.txt: no such file"),
        ("--sample - none.txt", b"ab", 3, "none.txt: no such file"),
        ("run.npz corpus.txt", b"", 4, "run.npz: "),
    ],
)
def test_overlap_refuses_bad_input(
    cli: Cli, tmp_path: Path, args: str, stdin: bytes, rc: int, message: str
) -> None:
    (tmp_path / "corpus.txt").write_text("some text\n")
    done = cli("overlap", *args.split(), stdin=stdin, rc=rc)
    assert done.stderr.decode().startswith(f"charrnn: {message}")
    assert done.stderr.count(b"\n") == 1
    assert not done.stdout
