"""The unit word: tokens, spelled words, samples that never show half of one, and a run of it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import charrnn
from charrnn.analysis.surprisal import score_text
from charrnn.arrays import Ids
from charrnn.config import DEFAULT_WORDS, MAX_WORDS, Config
from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.sampling import Speller, WordComposer, decode_stream, generate_ids
from charrnn.storage.state import State
from charrnn.text import corpus as corpus_module
from charrnn.text import tokens, words
from charrnn.text.corpus import Corpus
from charrnn.text.units import END_OF_DOCUMENT, END_SPELL, FIRST_DIGIT, FIRST_WORD, SPELL
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.run import begin
from charrnn.training.samples import longest_copy
from tests.conftest import QUICK, SIZE, Cli, read_run

KNOWN = "the king and the queen, the king and I: 42 42 aa\n  the  sea\n" * 3
everything = st.text(st.characters(codec=None))


def spelled(v: Vocabulary, text: str) -> list[str]:
    """Return the symbols of a text, the special ones by name."""
    names = {SPELL: "<", END_SPELL: ">", END_OF_DOCUMENT: "end"}
    names |= {FIRST_DIGIT + d: f"d{d}" for d in range(tokens.BASE)}
    ids = v.encode(text).tolist()
    return [names.get(int(v.codes[i])) or v.texts[i] for i in ids]


# --- tokens ---


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (
            "The king's 1,000 ships.",
            ["The", " ", "king", "'", "s", " ", "1", ",", "000", " ", "ships", "."],
        ),
        ("a\n\n\t b  \r\n", ["a", "\n", "\n", "\t ", "b", "  \r", "\n"]),
        ("snake_case x2", ["snake", "_", "case", " ", "x", "2"]),
        ("e\u0301te\u0301 \u0301x हिन्दी", ["e\u0301te\u0301", " ", "\u0301x", " ", "हिन्दी"]),
        ("日本語。한국어!", ["日本語", "。", "한국어", "!"]),
        ("👩\u200d👧\ud800", ["👩", "\u200d", "👧", "\ud800"]),
        ("b" * 70, ["b" * 32, "b" * 32, "b" * 6]),
    ],
)
def test_tokens_are_words_numbers_blanks_and_marks(text: str, wanted: list[str]) -> None:
    assert tokens.split_tokens(text) == wanted


@given(everything)
def test_tokens_lose_nothing(text: str) -> None:
    found = tokens.split_tokens(text)
    assert "".join(found) == text
    assert all(1 <= len(token) <= tokens.MAX_TOKEN_CHARACTERS for token in found)
    # each is a token on its own, too
    assert [tokens.split_tokens(token) for token in found] == [[token] for token in found]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 33])
def test_tokens_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    texts = ["the queen  came, e\u0301 " + "x" * 70, "", "the end\n\n", "1234"]
    corpus = Corpus("text", *texts, unit="word", documents="file")
    wanted = [token for text in texts for token in [*tokens.split_tokens(text), ""]]
    monkeypatch.setattr(corpus_module, "CHUNK_SYMBOLS", size)
    chunks = words.read_tokens(corpus.store, 0, len(corpus.store))
    assert [token for chunk in chunks for token in chunk] == wanted


def test_words_are_counted_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [[f"word{i}", "the", "the", " "] for i in range(1000)]
    counts, total = tokens.count_tokens(chunks)
    assert (len(counts), counts["the"], counts["word7"], total) == (1002, 2000, 1, 4000)
    monkeypatch.setattr(tokens, "MAX_COUNTED_WORDS", 50)
    few, total = tokens.count_tokens(chunks)
    assert total == 4000
    assert len(few) <= 50
    assert few["the"] == 2000


def test_most_common_words_have_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter({"the": 9, "sea": 4, "and": 4, "once": 1, "a": 99, "rare": 2})
    assert tokens.choose_words(counts, 99, 1) == ["and", "rare", "sea", "the"]
    assert tokens.choose_words(counts, 99, 3) == ["and", "sea", "the"]
    assert tokens.choose_words(counts, 2, 1) == ["and", "the"]
    assert tokens.choose_words(counts, -3, 1) == []
    monkeypatch.setattr(tokens, "MAX_WORDS_BYTES", 8)
    assert tokens.choose_words(counts, 99, 1) == ["and", "the"]


# --- the vocabulary ---


@example(text="".join(map(chr, range(0, 0x110000, 97))), max_vocab=2)
@given(everything, st.integers(2, 60))
def test_vocabulary_of_another_text_loses_nothing(text: str, max_vocab: int) -> None:
    counted = np.unique(np.frombuffer(KNOWN.encode("utf-32-le"), "<u4"), return_counts=True)
    v = Vocabulary.from_words(*counted, Counter(tokens.split_tokens(KNOWN)), 1, max_vocab)
    assert v.decode(v.encode(text)) == text
    encoded = v.read(text)
    assert not encoded.is_unknown.any()
    assert (encoded.ids == v.encode(text)).all()
    assert encoded.for_characters(np.arange(len(encoded.is_unknown))).shape == (len(text),)


def test_rare_words_are_spelled_and_rare_characters_are_numbers() -> None:
    v = Vocabulary.from_text(KNOWN, "word")
    assert v.words == ["  ", "42", "aa", "and", "king", "queen", "sea", "the"]
    assert spelled(v, "the king I\n") == ["the", " ", "king", " ", "I", "\n"]
    assert spelled(v, "thing") == ["<", *"thing", ">"]
    assert spelled(v, "\U0010ffff") == ["<", "d13", "d5", "d13", "d0", "d16", ">"]
    assert ord("\U0010ffff") == ((13 * 17 + 5) * 17 + 13) * 17 * 17 + 16
    once = Vocabulary.from_text("the the once", "word")
    assert "c" not in once.symbols
    assert spelled(once, "once") == ["<", "d0", "d0", "d0", "d6", "d9", *spelled(once, "n")[1:-1],
                                     *spelled(once, "c")[1:-1], "e", ">"]  # fmt: skip


def test_size_of_the_vocabulary_is_limited() -> None:
    text = " ".join(f"{a}{b}" for a in "abcdefgh" for b in "stuvw") * 3
    run = begin(Corpus("text", text, unit="word"), Config(unit="word", max_vocab=48, hidden_size=4))
    v = run.vocabulary
    assert len(v) == 48
    assert len(v.words) == 48 - len(v.symbols) - 19
    assert len(run.vocabulary.words) < 40
    assert any("rare words are spelled: " in note for note in run.state.notes)
    assert Config(unit="word").max_vocab == DEFAULT_WORDS
    assert Config().max_vocab is None
    with pytest.raises(UsageError, match=f"must be at most {MAX_WORDS} for the unit word"):
        Config(unit="word", max_vocab=MAX_WORDS + 1)


def test_broken_numbers_become_replacement_characters() -> None:
    v = Vocabulary.from_text(KNOWN, "word")
    zero = v.id(FIRST_DIGIT)
    assert zero is not None
    assert v.decode(np.array([zero, zero + 3])) == "\ufffd"
    assert v.decode(np.full(5, zero + 16)) == "\ufffd"  # 17**5 - 1
    assert v.decode(np.full(6, zero)) == "\0\ufffd"


# --- losses ---


@pytest.fixture(scope="module")
def model() -> charrnn.Model:
    rng = np.random.default_rng(0)
    nouns = ["king", "queen", "night", "sea", "castle"]
    lines = [" ".join(["The", *rng.choice(nouns, 3), "came."]) for _ in range(120)]
    text = "\n".join(lines) + "\nA unicorn, 1603\n"
    return charrnn.train(text, unit="word", hidden_size=8, max_steps=20, seed=1, dtype="float64")


def test_loss_of_a_word_is_divided_among_its_characters(model: charrnn.Model) -> None:
    text = "The unicornlike  queen ☃\n\nsea"
    nll, encoded = model.nll(text), model.vocabulary.read(text)
    assert len(nll) == len(text)
    start = 0
    for token in tokens.split_tokens(text):
        assert np.ptp(nll[start : start + len(token)]) == 0
        start += len(token)
    logits = model.network.new_tape(len(encoded.ids), 1)
    xs = np.concatenate([model.vocabulary.start_id, encoded.ids[:-1]])[:, None]
    model.network.forward(xs, model.network.zero_state(1), logits)
    a = logits.logits[:, :, 0]
    logp = a - np.log(np.exp(a).sum(1, keepdims=True))
    total = -logp[np.arange(len(xs)), encoded.ids].sum()
    assert nll.sum() == pytest.approx(total, rel=1e-10)

    # the other scores of the text agree
    scored = score_text(model, text)
    np.testing.assert_allclose(scored.bits, nll / math.log(2), rtol=1e-9)
    assert "".join(scored.characters) == text
    lines = model.score_lines(text)
    assert len(lines.nll) == 3
    assert lines.nll[0] == pytest.approx(nll[: text.index("\n") + 1].mean())
    assert len(model.score_lines("").nll) == 0


def test_splits_are_the_text_and_end_after_a_blank(model: charrnn.Model) -> None:
    text = "the quick brown fox jumps over it all " * 80
    run = begin(Corpus("text", text, unit="word"), Config(unit="word", hidden_size=4))
    splits, v = run.splits, run.vocabulary
    parts = [v.decode(ids) for ids in (splits.train[:], splits.val.ids, splits.test.ids)]
    assert "".join(parts) == text
    assert all(part.endswith(" ") for part in parts)
    characters = [splits.train_characters, splits.val.characters, splits.test.characters]
    assert [*map(len, parts)] == characters
    assert splits.symbols_per_character < 0.5
    # words of the validation and test splits alone have no symbol
    other = "the quick brown fox jumps over it all " * 80 + "elsewhere " * 20
    run = begin(Corpus("text", other, unit="word"), Config(unit="word", hidden_size=4))
    assert "quick" in run.vocabulary.words
    assert "elsewhere" not in run.vocabulary.words


def test_copies_are_found_word_by_word() -> None:
    text = "one two three four five\n"
    run = begin(Corpus("text", text * 50, unit="word"), Config(unit="word", hidden_size=4))
    assert longest_copy(run) == 0
    run.state.samples = [{"step": 1, "text": "@@ two three four fiv"}]
    assert longest_copy(run) == len(" two three four ")


# --- sampling ---


def random_model(seed: int) -> tuple[Network, Vocabulary]:
    v = Vocabulary.from_text(KNOWN, "word")
    network = Network("gru", len(v), 6, 1, np.float64, np.random.default_rng(seed))
    network.params.vector *= 3
    return network, v


def check_spelling(v: Vocabulary, ids: list[int]) -> None:
    """Check that spelled words have only characters, and nothing else has an end."""
    inside = False
    for code in v.codes[ids].tolist():
        assert not FIRST_DIGIT <= code < FIRST_WORD
        if inside:
            assert code < 0x110000 or code == END_SPELL
            assert code != ord("\n")
        else:
            assert code != END_SPELL
        inside = code == SPELL or (inside and code != END_SPELL)


@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"temp": 5.0}, {"num_samples": 33}])
def test_sampled_symbols_are_words_or_spelled(options: dict[str, Any]) -> None:
    network, v = random_model(0)
    stream = generate_ids(network, v, np.random.default_rng(1), **options)
    sampled = np.array([next(stream) for _ in range(300)])  # (n, B)
    for lane in sampled.T:
        check_spelling(v, lane.tolist())
    if "top_k" not in options:
        assert SPELL in v.codes[sampled]
        assert END_SPELL in v.codes[sampled]


def test_speller_remembers_each_lane() -> None:
    _, v = random_model(0)
    spell, end = v.id(SPELL), v.id(END_SPELL)
    t, king = v.id(ord("t")), v.encode("king")[0]
    assert spell is not None
    assert end is not None
    speller = Speller(v, 2)
    steps = [(king, spell, king, t), (t, t, t, t), (spell, end, t, king)]
    for lane0, lane1, _, _ in steps:
        logits = np.zeros((len(v), 2))
        speller.restrict(np.array([lane0, lane1]), logits)
    assert np.isfinite(logits[end]).tolist() == [True, False]
    assert np.isfinite(logits[king]).tolist() == [False, True]
    assert np.isfinite(logits[t]).all()


def decoded(v: Vocabulary, ids: Ids, length: int, until: str | None = None) -> str:
    stream = iter(ids[:, None])
    return "".join(piece for (piece,) in decode_stream(stream, v, 1, length, until))


def test_half_a_spelled_word_is_never_written() -> None:
    _, v = random_model(0)
    text = "the thing and the king"
    ids = v.encode(text)
    whole = {"", "the", "the ", "the thing", "the thing ", "the thing and", "the thing and "}
    whole |= {"the thing and the", "the thing and the ", text}
    for n in range(len(ids) + 1):  # the stream ends anywhere
        assert decoded(v, ids[:n], 99) in whole
    for length in range(len(text) + 1):
        written = decoded(v, ids, length)
        assert written in whole
        assert len(written) <= length
        if length < len(text):  # nothing that would have fitted is left out
            assert not any(len(written) < len(other) <= length for other in whole)
    assert decoded(v, ids, 99, until="g a") == "the thing a"
    composer = WordComposer(dict(zip(v.codes.tolist(), v.texts, strict=True)))
    spelled_snowman = v.codes[v.encode("☃")].tolist()
    assert [composer.feed(code) for code in spelled_snowman] == [""] * 6 + ["☃"]


def test_endless_spelling_ends_a_text() -> None:
    _, v = random_model(0)
    ids = np.array([v.id(SPELL), *[v.id(ord("t"))] * 50])
    assert decoded(v, ids, 20) == ""
    stream = iter(ids[:, None])
    assert len([*decode_stream(stream, v, 1, 20)]) < 30


def test_prime_and_stop_string_may_be_any_text(model: charrnn.Model) -> None:
    for prime in ("", "The kin", "☃\ud800 xyzzy", "\n"):
        text = "".join(model.sample(60, seed=3, prime=prime))
        assert 0 < len(text) <= 60
        until = text[5:8]
        assert "".join(model.sample(60, seed=3, prime=prime, until=until)).endswith(until)
    with pytest.raises(TypeError, match="unit word needs a str, not bytes"):
        model.sample(5, prime=b"x")


# --- a run, and its checkpoint ---


def test_run_of_words_from_start_to_end(cli: Cli, text: str) -> None:
    Path("play.txt").write_text(text.replace("sea", "sea-shore") + "Once, a unicorn.\n" * 3)
    done = cli("train", "play.txt", "--unit", "word", *QUICK, "--stop-after", "20")
    err = done.stderr.decode()
    assert "symbols per character" in err
    assert "rare words are spelled: 0." in err
    cli("train", "play.txt", "--resume")
    cli("train", "play.txt", "--unit", "word", *QUICK, "-o", "whole.npz")
    again, whole = charrnn.load("checkpoints/play.npz"), charrnn.load("whole.npz")
    assert (again.network.params.vector == whole.network.params.vector).all()
    assert isinstance(again.state, State)

    # every command reads it
    out = cli("sample", "whole.npz", "--prime", "The unicorn", "--length", "40", "--seed", "1")
    assert out.stdout.decode().startswith("The unicorn")
    assert "network" not in cli("eval", "whole.npz", "play.txt", "--adapt").stderr.decode()
    assert cli("score", "whole.npz", "play.txt").stdout.count(b"\n") == text.count("\n") + 3
    assert cli("score", "whole.npz", "-", stdin="é\n\nking\n".encode()).stdout.count(b"\n") == 3
    shown = cli("show", "whole.npz", "play.txt", "--length", "30", "--html", "x.html")
    assert b"bits per character" not in shown.stdout
    assert '"king"' in Path("x.html").read_text()
    cli("report", "whole.npz", "-o", "report.html")
    cli("gradcheck", "whole.npz", "play.txt", "--entries", "3")
    cli("gradflow", "whole.npz", "play.txt", "--lags", "2")
    cli("overlap", "whole.npz", "play.txt", "--length", "100", "--seed", "1")
    assert b"input 'king'" in cli("trace", "whole.npz", "king unicornlike").stdout
    cli("export", "whole.npz", "-o", "small.npz")
    assert cli("sample", "small.npz", "--seed", "2", "--num-samples", "3").stdout
    assert b"not of words" in cli("export", "whole.npz", "--html", "y.html", rc=2).stderr


def test_initial_model_keeps_its_words(cli: Cli, text: str) -> None:
    Path("a.txt").write_text(text)
    Path("b.txt").write_text("The ship is a boat, éé.\n" * 200)
    cli("train", "a.txt", "--unit", "word", *QUICK, "-o", "a.npz", "-q")
    cli("train", "b.txt", "--init-from", "a.npz", "--max-steps", "2", "-o", "b.npz", "-q")
    a, b = charrnn.load("a.npz"), charrnn.load("b.npz")
    assert a.vocabulary.words == b.vocabulary.words
    assert "é" in b.vocabulary.symbols
    assert read_run(Path("b.npz")).init_from["added"] == 4  # b, p, i and é
    assert spelled(b.vocabulary, "ship") == ["<", *"ship", ">"]


def test_documents_of_words(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        Path(f"{name}.txt").write_text(f"the {name} file is here\n" * 20)
    files = ("a.txt", "b.txt", "c.txt", "--unit", "word", *SIZE, "--max-steps", "3", "-q")
    for documents in ("file", "line"):
        cli("train", *files, "--documents", documents, "-o", f"{documents}.npz")
        cli("sample", f"{documents}.npz", "--num-samples", "3", "--seed", "1", "--length", "30")
    assert END_OF_DOCUMENT in charrnn.load("file.npz").vocabulary.codes
