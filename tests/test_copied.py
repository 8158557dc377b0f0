"""What a sample shares with a text, against a search that tries every length at every place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charrnn
from charrnn import copied, training, units
from charrnn.config import Config
from charrnn.copied import compare, first, lengths, pieces, place, share, symbols
from charrnn.corpus import Corpus, read
from charrnn.training import Run
from tests.conftest import Cli

# few symbols, so that much is shared; one, NUL, the last of Unicode; and so many that a key holds fewer of them
ALPHABETS = ["a", "ab", "abc", "\0a\n", "é한\U0010ffff", "".join(map(chr, range(0x4E00, 0x4E00 + 400)))]


def naive(sample: str | bytes, text: Any) -> list[int]:
    lengths: list[int] = []
    for i in range(len(sample)):
        length = 0
        while i + length < len(sample) and sample[i : i + length + 1] in text:
            length += 1
        lengths.append(length)
    return lengths


def found(sample: str | bytes, text: str | bytes, unit: str = "char") -> list[int]:
    corpus = Corpus("text", text, unit=unit)
    return list(lengths(units.encode(sample, unit), symbols(corpus.store)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """A sample and a text, some of whose stretches are the sample's; the text may have symbols of its own."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    sample = draw(st.text(alphabet, min_size=1, max_size=40))
    cut = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ab: sample[slice(*ab)])
    stretches = draw(st.lists(cut | st.text(alphabet + "?", max_size=20), max_size=6))
    return sample, "".join(stretches) + "??"


@settings(max_examples=400)
@given(pairs(), st.integers(1, 50) | st.just(1 << 18), st.sampled_from([0, 5, 12, copied.KEY]))
def test_lengths_are_those_of_a_naive_search(pair: tuple[str, str], chunk: int, key: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copied, "CHUNK", chunk)
        patch.setattr(copied, "KEY", key)  # a small one: what is longer than a key is the rule
        assert found(*pair) == naive(*pair)


@given(st.binary(min_size=1, max_size=30), st.binary(min_size=2, max_size=60))
def test_lengths_of_bytes(sample: bytes, text: bytes) -> None:
    assert found(sample, text + sample[3:9], "byte") == naive(sample, text + sample[3:9])


def test_a_long_copy_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("abcdefgh "), 3000))
    sample = text[1200:1500] + "!" + text[1480:1505] + text[2990:] + "ab"
    wanted = naive(sample, text)
    assert wanted[0] == 300
    for size in (1, 1 << 18):  # of 1: chunks of four samples' length
        monkeypatch.setattr(copied, "CHUNK", size)
        assert found(sample, text) == wanted


def test_what_a_part_lacks_is_not_found() -> None:
    store = Corpus("text", "abcabd").store
    for stop, wanted in ((6, [3, 2, 1]), (5, [2, 1, 0]), (99, [3, 2, 1])):
        assert lengths(units.code_points("abd"), symbols(store, stop)).tolist() == wanted


@given(st.lists(st.integers(0, 9), max_size=30).map(np.array), st.integers(0, 9))
def test_pieces_and_share(raw: Any, top: int) -> None:
    n = len(raw)
    values: list[int] = []  # as lengths are: within the sample, and no more than one shorter than the one before
    for i, value in enumerate(raw.tolist()):
        values.append(min(max(value, values[-1] - 1 if values else 0), n - i))
    got = pieces(np.array(values, np.intp), top)
    # again, a place at a time
    wanted: list[tuple[int, int]] = []
    for length in range(10, 0, -1):
        for i in range(n):
            maximal = values[i] == length and (i == 0 or values[i - 1] <= length)
            if maximal and all(i + length <= a or a + b <= i for a, b in wanted):
                wanted.append((i, length))
    assert got == wanted[:top]
    for k in (1, 3, 5):
        if n:
            inside = {j for i, value in enumerate(values) if value >= k for j in range(i, i + value)}
            assert share(np.array(values, np.intp), k) == pytest.approx(len(inside) / n, abs=1e-15)


@given(st.text("\0a\u0100\U00010000", min_size=2, max_size=40), st.text("\0a\u0100", min_size=1, max_size=4))
def test_the_first_place(text: str, piece: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copied, "CHUNK", 5)
        assert first(units.code_points(piece), symbols(Corpus("text", text).store)) == text.find(piece)


def test_files_lines_and_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copied, "CHUNK", 7)
    files = {"a.txt": "é one\r\ntwo\n\n", "b.txt": "", "c.txt": "\nthree\nfour", "d.txt": "x\ny\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    store = read([str(tmp_path)], by="file").store
    at = 0
    for document, text in enumerate(files.values()):
        for offset in range(len(text)):
            assert place(symbols(store), at) == (document, text[:offset].count("\n") + 1, offset)
            at += 1
        at += 1  # the end of a file


def test_a_piece_lies_in_one_file_of_many(tmp_path: Path) -> None:
    for i in range(150):
        (tmp_path / f"{i:03}.txt").write_text(f"file {i}\n")
    (tmp_path / "last.txt").write_text("one\nüber alles\n", encoding="utf-8")
    got = compare("149\none\nüber alles\n", read([str(tmp_path)], by="file"), 9)
    last = {"file": str(tmp_path / "last.txt"), "line": 1, "offset": 0}
    other = {"file": str(tmp_path / "149.txt"), "line": 1, "offset": 5}
    assert got["copies"] == [
        {"length": 15, "at": 4, **last, "text": "one\nüber alles\n"},
        {"length": 4, "at": 0, **other, "text": "149\n"},
    ]
    assert got["characters"] == 19


def test_a_sample_of_a_file_and_of_stdin(cli: Cli, tmp_path: Path) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    (tmp_path / "corpus.txt").write_text(f"one\n{text}\t'\n", encoding="utf-8")
    sample = f"??{text[20:70]}!{text[:25]}??".encode()
    (tmp_path / "sample.txt").write_bytes(sample)
    done = cli("copied", "--sample", "sample.txt", "corpus.txt", "--top", "1")
    assert done.stdout.decode().splitlines() == [
        "80 characters of the sample, 107 of the corpus",
        "in copies of 20 characters or more: 93.8% of the sample, of 40: 62.5%, of 80: 0.0%",
        f"50 characters at 2: corpus.txt, line 2, offset 24: {text[20:70]!r}",
    ]
    assert not done.stderr
    (tmp_path / "other.txt").write_text("eno\n")
    done = cli("copied", "--sample", "-", "other.txt", "corpus.txt", "--top", "1", stdin=b"no\none\n")
    assert done.stdout.decode().splitlines()[2] == "4 characters at 3: corpus.txt, line 1, offset 0: 'one\\n'"
    h = json.loads(cli("copied", "--sample", "-", "corpus.txt", "--json", stdin=sample).stdout)
    assert h["shares"] == {"20": 75 / 80, "40": 50 / 80, "80": 0}
    assert [(c["length"], c["at"], c["text"]) for c in h["copies"]] == [(50, 2, text[20:70]), (25, 53, text[:25])]
    assert (h["checkpoint"], h["seed"], h["unit"], h["characters"], h["corpus"]) == (None, None, "char", 80, 107)
    h = json.loads(cli("copied", "--sample", "-", "corpus.txt", "--json", "--unit", "byte", stdin=sample).stdout)
    assert [(c["length"], c["at"], c["offset"]) for c in h["copies"]] == [(150, 2, 64), (75, 153, 4)]
    assert h["copies"][1]["text"].encode("latin-1").decode() == text[:25]


@pytest.mark.parametrize("unit", ["char", "byte", "jamo"])
@pytest.mark.parametrize("by", [None, "line", "file"])
def test_a_sample_that_is_drawn(cli: Cli, tmp_path: Path, unit: str, by: str | None) -> None:
    text = "가나다 각\n한국말, éa\n" * 30
    how: dict[str, Any] = {"unit": unit, "by": by, "encoding": "utf-8" if unit == "byte" else "utf-16"}
    (tmp_path / "corpus.txt").write_text(text, encoding=how["encoding"])
    data = text.encode() if unit == "byte" else text
    run = Run(read([str(tmp_path / "corpus.txt")], **how), Config(**how, hidden_size=8, max_steps=30))
    for _ in training.fit(run, tmp_path / "run.npz"):
        pass
    h = json.loads(
        cli("copied", "run.npz", "corpus.txt", "-n", "90", "--seed", "7", "--json", "--top", "2", "-t", "0.7").stdout
    )
    assert (h["characters"], h["seed"], h["corpus"]) == (90, 7, len(data))
    assert h["unit"] == ("byte" if unit == "byte" else "char")
    model, sample = charrnn.load(tmp_path / "run.npz"), ""
    for seed in range(7, 97):
        sample += "".join(model.sample(90 - len(sample), seed=seed, temp=0.7))
    drawn = sample.encode("latin-1") if unit == "byte" else sample
    longest = max(naive(drawn, data))
    assert h["copies"][0]["length"] == longest == len(h["copies"][0]["text"])
    for copy in h["copies"]:
        assert sample[copy["at"] :].startswith(copy["text"])
        piece = copy["text"].encode("latin-1") if unit == "byte" else copy["text"]
        assert data.find(piece) == copy["offset"]


@pytest.mark.parametrize(
    ("args", "stdin", "rc", "message"),
    [
        (["run.npz"], b"", 2, "which text was it trained on?"),
        (["--sample", "-", "-"], b"ab", 2, "- stands for standard input, which can be read only once"),
        (["--sample", "-", "--seed", "1", "corpus.txt"], b"ab", 2, "--seed is for a sample that is drawn"),
        (
            ["--sample", "-", "--unit", "byte", "--encoding", "latin-1", "corpus.txt"],
            b"ab",
            2,
            "bytes have no encoding",
        ),
        (["--sample", "-", "corpus.txt"], b"", 3, "the sample is empty"),
        (["--sample", "-", "corpus.txt"], b"a\xff", 3, "standard input: not UTF-8 at offset 1"),
        (["--sample", "none.txt", "corpus.txt"], b"", 3, "none.txt: no such file"),
        (["--sample", "-", "none.txt"], b"ab", 3, "none.txt: no such file"),
        (["run.npz", "corpus.txt"], b"", 4, "run.npz: "),
    ],
)
def test_bad_input(cli: Cli, tmp_path: Path, args: list[str], stdin: bytes, rc: int, message: str) -> None:
    (tmp_path / "corpus.txt").write_text("some text\n")
    done = cli("copied", *args, stdin=stdin, rc=rc)
    assert done.stderr.decode().startswith(f"charrnn: {message}")
    assert done.stderr.count(b"\n") == 1
    assert not done.stdout


def test_what_the_last_sample_holds_of_the_training_part() -> None:
    texts = {"char": "one two three four five\n", "byte": "ünf\n", "jamo": "가나다 각구\n나는 누구냐?\n"}
    for unit, text in texts.items():
        run = Run(Corpus("text", text * 50, unit=unit), Config(unit=unit, hidden_size=4, max_steps=1))
        assert training.copied(run) == 0  # nothing has been drawn
        part = text * (run.parts["train"] // len(text))
        shown = part.encode().decode("latin-1") if unit == "byte" else part
        for piece in (shown[3:70], shown[4:5]):
            run.samples = [{"step": 1, "text": f"{'@' * 9}{piece}@@"}]
            assert training.copied(run) == len(piece)
    # nor is what stands in the validation part, or further on than is searched
    run = Run(Corpus("text", "ab" * 950 + "cdefg" * 20), Config(hidden_size=4, max_steps=1, test_fraction=0))
    run.samples = [{"step": 1, "text": "babacdefgcdefg"}]
    assert training.copied(run) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SEARCHED", 3)
        assert training.copied(run) == 3
    # a syllable that goes on in the text is no part of the copy
    run = Run(Corpus("text", texts["jamo"] * 50, unit="jamo"), Config(unit="jamo", hidden_size=4, max_steps=1))
    run.samples = [{"step": 1, "text": "다 가"}]
    assert training.copied(run) == 2


def test_a_validation_loss_that_has_risen(text: str) -> None:
    run = Run(Corpus("text", text), Config(hidden_size=4, max_steps=1))
    rows = [(10, 1.2, 1.5), (20, 1.0, 1.0), (30, 0.9, 1.04), (40, 0.8, 1.06)]
    run.history = [{"step": step, "train_loss": train, "val_loss": val} for step, train, val in rows]
    run._best_step, run.best_loss = 20, 1.0
    assert training.risen(run) == 1.06
    for change in ({"val_loss": 1.05}, {"train_loss": 1.0}, {"val_loss": None}, {"train_loss": None}):
        last = run.history[-1]
        run.history[-1] = {**last, **change}
        assert training.risen(run) is None, change
        run.history[-1] = last
    del run.history[1]  # thinned
    assert training.risen(run) == 1.06


def test_train_tells_that_a_model_learns_by_heart(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("text", "val"):
        (tmp_path / name).write_text("".join(rng.choice(list("abcdefgh\n"), 400, p=[0.12] * 8 + [0.04])))
    options = ["--val", "val", "--hidden-size", "48", "--test-fraction", "0", "--schedule", "constant"]
    said = cli("train", "text", *options, "--max-steps", "150").stderr.decode()
    assert "while the training loss fell: the model begins to learn the text by heart; --dropout" in said
    (tmp_path / "abc").write_text("abcdefghi\n" * 100)
    args = ["train", "abc", "--hidden-size", "32", "--max-steps", "150"]
    said = cli(*args).stderr.decode()
    assert "characters of the training text; how much is copied: charrnn copied checkpoints/abc.npz abc\n" in said
    assert "by heart" not in said
    assert not cli(*args, "--force", "--quiet").stderr
