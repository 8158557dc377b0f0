"""Masked numbers, addresses and identifiers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charrnn
from charrnn.errors import UsageError
from charrnn.text import files, units
from charrnn.text.corpus import Corpus
from charrnn.text.masks import MASKS, mask_text
from tests.conftest import QUICK, Cli, read_run

EXAMPLES = [
    # text, with numbers, with identifiers
    ("took 10 ms, 1,234.5 of 2.5e-10", "took № ms, № of №", None),
    ("12:34:56.789 2005-12-04 -3", "№:№:№ №-№-№ -№", None),
    ("sshd[24200]: <12> _7", "sshd[№]: <№> _№", "sshd[№]: <№> ◇"),
    ("jk2_init ssh2 10ms 3rd", "jk2_init ssh2 №ms №rd", "◇ ◇ ◇ ◇"),
    ("worker-7 blk_42 v1.2.3 é5", "worker-№ blk_№ v1.№ é5", "worker-№ ◇ ◇.№ ◇"),
    ("0x7fFF 0xdeadbeef dead1beef", "⬡ ⬡ ⬡", None),
    ("f47ac10b-58cc-4372-a567-0e02b2c3d479", "⬡", None),
    ("decade defaced a1b2", "decade defaced a1b2", "decade defaced ◇"),
    ("10.0.0.1 10.0.0.1:8080. (1.2.3.4)", "⌂ ⌂. (⌂)", None),
    ("1.2.3.4.5 1.2.3", "№ №", None),
    ("00:1a:2b:3c:4d:5e 00-1A-2B-3C-4D-5E", "⌂ ⌂", None),
    ("::1 fe80::1%lo [2001:db8::8:800]:443", "⌂ ⌂%lo [⌂]:№", None),
    ("2001:db8:0:0:1:0:0:1 ::ffff:10.0.0.1", "⌂ ⌂", None),
    ("std::vector a::b ::", "std::vector a::b ::", None),
    ("no digit, no change: Ünïcödé № ⌂\t\r\n", "no digit, no change: Ünïcödé № ⌂\t\r\n", None),
]


@pytest.mark.parametrize(("text", "numbers", "identifiers"), EXAMPLES)
def test_each_kind_becomes_its_character(text: str, numbers: str, identifiers: str | None) -> None:
    assert mask_text(text, None) == text
    assert mask_text(text, "numbers") == numbers
    assert mask_text(text, "identifiers") == (numbers if identifiers is None else identifiers)


words = st.text(st.sampled_from("0123456789abcdefxz:.-_,+é٣ \n" + "".join(MASKS.values())))
masks = st.sampled_from(["numbers", "identifiers"])


@given(words, masks)
def test_masking_twice_changes_nothing_and_keeps_the_lines(text: str, mask: str) -> None:
    masked = mask_text(text, mask)
    assert mask_text(masked, mask) == masked
    assert masked.count("\n") == text.count("\n")
    lines = [mask_text(line, mask) for line in text.split("\n")]
    assert masked == "\n".join(lines)
    if mask == "identifiers" and not set(text) & set(MASKS.values()):
        assert not any(c.isdigit() for c in masked)


@pytest.mark.parametrize("part", ["a:", "::", "1.", "1_", "a_", "_", "ab1", "0x", "00:", "1e"])
def test_time_grows_with_the_length_only(part: str) -> None:
    started = time.perf_counter()
    for mask in ("numbers", "identifiers"):
        mask_text(part * (200_000 // len(part)) + "!", mask)
    assert time.perf_counter() - started < 10  # quadratic time would take minutes


def test_no_word_is_divided_between_two_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from 10.0.0.1 port 12345 at 0xabcdef\n" * 20
    path = tmp_path / "a.log"
    path.write_text(text, newline="")
    sha256 = Corpus("a", paths=[path]).sha256
    for size in range(15, 40):
        monkeypatch.setattr(files, "CHUNK_BYTES", size)
        for corpus in (
            Corpus("a", paths=[path], mask="numbers"),
            Corpus("a", text, mask="numbers"),
        ):
            codes = corpus.store.codes[corpus.store[:]]
            assert units.to_text(codes.tolist()) == mask_text(text, "numbers")
            assert corpus.sha256 == sha256  # of the bytes


def test_unit_byte_has_no_mask() -> None:
    with pytest.raises(UsageError, match="unit byte cannot be combined with a mask"):
        charrnn.Config(unit="byte", mask="numbers")
    with pytest.raises(UsageError, match="must be one of numbers, identifiers"):
        charrnn.Config(mask="digits")


LOG = "".join(f"job {n} from 10.0.0.{n % 250} took {n * 37 % 900} ms\n" for n in range(400))


def test_model_reads_every_text_masked() -> None:
    model = charrnn.train(LOG, mask="numbers", documents="line", hidden_size=8, max_steps=20)
    assert model.vocabulary.symbols == "\n bfjkmorst№⌂"
    line, masked = "job 7 from 10.0.0.7:80 took 5 ms\n", "job № from ⌂ took № ms\n"
    assert len(model.nll(line)) == len(masked)
    np.testing.assert_array_equal(model.nll(line), model.nll(masked, unknown="error"))
    np.testing.assert_array_equal(model.nll_lines(line), model.nll_lines(masked))
    samples = ["".join(model.sample(50, prime=prime, seed=1)) for prime in ("job 9", "job №")]
    assert samples[0] == samples[1]


def test_every_command_reads_a_text_masked(cli: Cli) -> None:
    Path("a.log").write_text(LOG, newline="")
    Path("val.log").write_text(LOG[:2000], newline="")
    Path("new.log").write_text("job 987654 from 1.2.3.4 took 55555 ms\n", newline="")
    Path("masked.log").write_text("job № from ⌂ took № ms\n", "utf-8", newline="")
    how = ("--mask", "numbers", "--val-file", "val.log", *QUICK, "-q", "-o", "a.npz")
    cli("train", "a.log", *how, "--stop-after", "10")
    cli("train", "a.log", "--resume", "--val-file", "val.log", "-q", "-o", "a.npz")
    symbols = charrnn.load("a.npz").vocabulary.symbols
    assert symbols == "\n bfjkmorst№⌂"

    def out(*args: str) -> str:
        return cli(*args).stdout.decode()

    # the same for the text and for the masked text
    for command in (("show", "a.npz"), ("score", "a.npz", "--per", "char")):
        assert out(*command, "new.log") == out(*command, "masked.log")
    new, masked = (
        json.loads(out("eval", "a.npz", "--json", f"{x}.log")) for x in ("new", "masked")
    )
    changing = ("file", "characters_per_second")
    assert all(new[key] == masked[key] for key in new if key not in changing)
    assert out("score", "a.npz", "new.log").endswith("\tjob 987654 from 1.2.3.4 took 55555 ms\n")
    assert "unknown" not in cli("score", "a.npz", "new.log").stderr.decode()
    sample = out("sample", "a.npz", "--prime", "job 123 from 9.9.9.9", "-n", "20", "--seed", "1")
    assert sample.startswith("job № from ⌂")
    Path("b.txt").write_text("job 5 from 10.9.9.9 took 3 ms\n" * 2, newline="")
    assert "copied verbatim: 100.0%" in out("overlap", "a.npz", "--sample", "b.txt", "a.log")
    assert out("trace", "a.npz", "job 5", "--json") == out("trace", "a.npz", "job №", "--json")
    assert "skipped" not in cli("gradflow", "a.npz", "val.log", "--lags", "3").stderr.decode()
    row = json.loads(out("eval", "a.npz", "--split", "test", "--json"))
    assert row["nats"] == pytest.approx(read_run(Path("a.npz")).test_loss, rel=1e-6)
    err = cli("train", "a.log", "--init-from", "a.npz", "--mask", "identifiers", rc=2).stderr
    assert b"mask must be numbers, as in the initial model, not identifiers" in err
    cli("train", "a.log", "--init-from", "a.npz", *QUICK[-2:], "-q", "-o", "b.npz")
    assert charrnn.load("b.npz").config.mask == "numbers"
