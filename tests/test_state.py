"""The header: values are restored, every field is checked, and errors name the field."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn.config import MAX_COUNT, Config
from charrnn.storage.header import OPTIONAL, InvalidCheckpoint, parse, serialize
from charrnn.storage.state import MAX_LOSS
from charrnn.text.vocabulary import Vocabulary
from tests import forge
from tests.forge import SPELLING, sealed_header

RUN: dict[str, Any] = json.loads(serialize(forge.run_state()))


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidCheckpoint) as e:
        parse(data)
    return str(e.value)


# --- storing ---

texts = st.text(st.characters())
floats = st.floats(-MAX_LOSS, MAX_LOSS)


def without_surrogates(text: str) -> str:
    """Surrogates that stand for bytes (PEP 383) are kept, or decoded; others become escapes."""
    data = b""
    for c in text:
        is_byte = "\udc80" <= c <= "\udcff"
        data += c.encode("utf-8", "surrogateescape" if is_byte else "backslashreplace")
    return data.decode("utf-8", "surrogateescape")


@given(
    notes=st.lists(texts, max_size=3),
    losses=st.dictionaries(st.sampled_from(["uniform", "1-gram", "10-gram"]), floats),
    step=st.integers(7, MAX_COUNT),
    loss=st.none() | floats,
)
@example(notes=["\udc80\ud800", "\udcc3\udca9", "\udcc3é"], losses={}, step=7, loss=None)
def test_any_text_and_number_is_restored(
    notes: list[str], losses: dict[str, float], step: int, loss: float | None
) -> None:
    baselines = {"val": losses, "test": {}}
    state = forge.run_state(notes=notes, baselines=baselines, step=step, initial_loss=loss)
    parsed: Any = parse(serialize(state))
    assert (parsed.step, parsed.initial_loss) == (step, loss)
    assert parsed.notes == [without_surrogates(note) for note in notes]
    assert list(parsed.baselines["val"].values()) == list(losses.values())


def test_lone_surrogates_become_escapes() -> None:
    """A file's name need not be text, and must not prevent a run from being saved."""
    state = forge.run_state(command="train \udcff\\", notes=["😀", "\ud800"])
    data = serialize(state)
    parsed: Any = parse(data)
    assert parsed.command == "train \udcff\\"
    assert parsed.notes == ["😀", "\\ud800"]
    assert "😀".encode() in data


def test_missing_options_have_their_defaults() -> None:
    assert parse(sealed_header({**RUN, "config": {"unit": "jamo"}})).config == Config(unit="jamo")


def test_longest_history_is_parsed_in_time() -> None:
    history = [{**RUN["history"][0], "step": step} for step in range(1, 10_001)]
    header = {**RUN, "step": 10_000, "history": history, "samples": RUN["samples"] * 1000}
    header["corpus"] = {**RUN["corpus"], "files": [["x.txt", 5, 0]] * 20_000, "num_files": 20_000}
    started = time.process_time()
    parse(sealed_header(header))
    assert time.process_time() - started < 2


# --- refusing ---


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "is not valid JSON"),
        ("\ufeff{}", "is not valid JSON"),
        ("[]", "has no format number"),
        ("1", "has no format number"),
        ("{}", "has no format number"),
        ('{"format": "1"}', "has no format number"),
        ('{"format": true}', "has no format number"),
        ('{"format": 0}', "has no format number"),
        (
            '{"format": 1}',
            "format 1 was never released and is not supported; train the model again",
        ),
        (
            '{"format": 2}',
            "format 2 was never released and is not supported; train the model again",
        ),
        (
            '{"format": 6}',
            "format 6 needs a newer charrnn (this version reads formats up to 5): pip",
        ),
        ('{"format": 5}', "does not match its checksum"),
        ('{"format": 5, "x": NaN}', "has a number out of range"),
        ('{"format": 5, "x": -Infinity}', "has a number out of range"),
        ('{"format": 5, "x": 1e999}', "has a number out of range"),
        ('{"format": 5, "x": 100000000000000000000}', "has a number out of range"),
        (f'{{"format": 5, "x": 1{"0" * 1_000_000}}}', "has a number out of range"),
        (f'{{"format": 5, "x": 1.{"0" * 1_000_000}}}', "has a number out of range"),
        ("[" * 400_000, "is not valid JSON"),
        ('{"a":' * 200_000, "is not valid JSON"),
        ('{"format": 5, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "is not valid JSON"),
        ("[" + "{}," * 300_000 + "{}]", "exceeds 500,000 values"),
        ("[" + "0," * 500_000 + "0]", "exceeds 500,000 values"),
        ("[" * 500_000, "exceeds 500,000 values"),
        ('{"a":' * 250_000, "exceeds 500,000 values"),
        ('"' + "x" * 9_000_000 + '"', "or 8,388,608 bytes"),
    ],
    ids=lambda text: text[:30],
)
def test_invalid_header_is_refused(data: str, message: str) -> None:
    assert message in refusal(data.encode())


@pytest.mark.parametrize("change", [{"step": 8}, {"sha256": "0" * 64}, {"sha256": None}, {"x": 1}])
def test_changed_header_does_not_match_its_checksum(change: dict[str, Any]) -> None:
    data = json.dumps({**RUN, **change}).encode()
    assert refusal(data) == "damaged: the header does not match its checksum"
    assert "is not valid JSON" in refusal(json.dumps(RUN).encode("utf-16"))


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys on the way to every value of a header."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [*([at] if at else []), *(path for k, v in items for path in paths(v, (*at, k)))]


def name_of(at: tuple[Any, ...]) -> str:
    name = ""
    for depth, key in enumerate(at):
        is_key = at[0] == "arrays" if depth == 1 else at[0] == "baselines" and depth == 2
        name += f"[{key!r}]" if is_key or isinstance(key, int) else f".{key}"
    return name.removeprefix(".")


HEADER = {**RUN, "arrays": {"best_weights": "x"}}
CHECKED = [at for at in paths(HEADER) if len(at) == 1 or at[0] not in ("config", "sha256")]
CHECKED = [at for at in CHECKED if at not in (("format",), ("sha256",))]
NULLABLE = {"test_loss", "val_loss", "train_loss", "grad_norm", "initial_loss", "val_corpus"}
NULLABLE |= {"init_from", "mixing", "adaptation", "counts_loss", "mixed_loss", "task", "features"}
FLOAT = NULLABLE - {"val_corpus", "init_from", "mixing", "adaptation", "task", "features"}


def is_valid(at: tuple[Any, ...], old: Any, value: Any) -> bool:
    """Return whether a value is valid in place of the old one."""
    is_path = at[-3:-2] == ("files",) and at[-1] == 0
    is_optional_text = is_path or at == ("init_from", "sha256")
    if value is None:
        return at[-1] in NULLABLE or is_optional_text
    if type(value) is str:
        return type(old) is str or is_optional_text
    if type(value) in (int, float) and (type(old) is float or at[-1] in FLOAT):
        return True
    return type(value) is type(old) and value != 2**63


@pytest.mark.parametrize("at", CHECKED, ids=name_of)
def test_every_field_is_checked_and_named(at: tuple[Any, ...]) -> None:
    header = json.loads(json.dumps(HEADER))
    record: Any = header
    for key in at[:-1]:
        record = record[key]
    old, name = record[at[-1]], name_of(at)

    # values of another type
    value: Any
    for value in (None, True, -1, 0.5, "x", "\n" * 10_000, [], [[]], {}, {"x": 1}, 2**63):
        if is_valid(at, old, value):
            continue
        record[at[-1]] = value
        message = refusal(sealed_header(header))
        assert message.startswith("damaged: "), (value, message)
        assert f" {name}" in message, (value, message)
        assert len(message) < 300
        assert message.isprintable()
    record[at[-1]] = old

    # a missing key, an unexpected one
    if isinstance(record, dict) and "[" not in name and at[-1] not in OPTIONAL:
        del record[at[-1]]
        assert refusal(sealed_header(header)) == f"damaged: missing {name} in the header"
        record[at[-1]], record["x\n"] = old, 1
        prefix = name.rpartition(".")[0]
        key = f"{prefix}.'x\\n'" if prefix else "'x\\n'"
        assert refusal(sealed_header(header)) == f"damaged: unexpected {key} in the header"


CONFIG = RUN["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "x"}, "kind in the header: 'x'"),
        ({"step": -1}, "step in the header: -1"),
        ({"step": 2**63}, "step in the header: 9223372036854775808"),
        ({"workers": 0}, "workers in the header: 0"),
        ({"workers": 1025}, "workers in the header: 1025"),
        ({"plans": []}, "plans in the header: []"),
        ({"plans": [{**RUN["plans"][0], "steps": "x"}]}, "plans[0].steps in the header: 'x'"),
        ({"plans": [*RUN["plans"], {**RUN["plans"][0], "steps": 0}]}, "plans[1].steps in"),
        ({"data_position": [1, 2, 3]}, "data_position in the header: [1, 2, 3]"),
        ({"data_position": [1, "2"]}, "data_position[1] in the header: '2'"),
        ({"batches": {**RUN["batches"], "batch_size": 0}}, "batches.batch_size in the header: 0"),
        ({"notes": "x" * 10**6}, "notes in the header: 'xx"),
        ({"baselines": {"val": {"x" * 10**4: 1.0}, "test": {}}}, "baselines in the header: the na"),
        ({"config": {**CONFIG, "colour": 1}}, "config in the header: "),
        ({"config": {**CONFIG, "hidden_size": 0}}, "config in the header: invalid hidden_size: 0"),
        ({"config": {**CONFIG, "hidden_size": True}}, "config in the header: invalid hidden_size"),
        ({"config": {**CONFIG, "cell": "\n" * 10**6}}, "config in the header: invalid cell: '"),
        ({"config": {**CONFIG, "cell": []}}, "config in the header: invalid cell: []"),
        ({"config": {**CONFIG, "encoding": "idna"}}, "config in the header: unknown encoding"),
    ],
)
def test_invalid_values_are_named_with_their_field(change: dict[str, Any], message: str) -> None:
    text = refusal(sealed_header({**RUN, **change}))
    assert text.startswith(f"damaged: invalid {message}")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("symbols", "special", "start", "message"),
    [
        ("", [], 10, "invalid vocabulary.size in the header: 0"),
        ("ba", [], 97, "the vocabulary in the header is not sorted"),
        ("aa", [], 97, "the vocabulary in the header is not sorted"),
        ("a", [0x110001, 0x110000], 97, "the vocabulary in the header is not sorted"),
        ("a", [0x110001, 0x110001], 97, "the vocabulary in the header is not sorted"),
        ("a", [97], 97, "invalid vocabulary.special[0] in the header: 97"),
        ("a", [0x110000 + 88], 97, "invalid vocabulary.special[0] in the header: 1114200"),
        ("a", [], 98, "invalid vocabulary.start_symbol in the header: 98"),
        ("a", [0x110001], 0x110002, "invalid vocabulary.start_symbol in the header"),
        ("\n\ud800😀", [], 10, "invalid vocabulary.symbols"),
        ("ab", [], 97, ""),
        ("a", [0x110000, 0x110000 + 68], 0x110000, ""),
        ("", [0x110000], 0x110000, ""),
    ],
)
def test_vocabulary_is_sorted_and_has_its_start_symbol(
    symbols: str, special: list[int], start: int, message: str
) -> None:
    size = len(symbols) + len(special)
    vocabulary = {"size": size, "symbols": symbols, "special": special, "start_symbol": start}
    if message:
        assert f"damaged: {message}" in refusal(sealed_header({**RUN, "vocabulary": vocabulary}))
        return
    assert parse(sealed_header({**RUN, "vocabulary": vocabulary})).vocabulary == vocabulary
    for wrong in (size - 1, size + 1):
        header = sealed_header({**RUN, "vocabulary": {**vocabulary, "size": wrong}})
        assert f"invalid vocabulary.size in the header: {wrong}" in refusal(header)


@pytest.mark.parametrize(
    ("unit", "change", "message"),
    [
        ("word", {}, ""),
        ("word", {"words": [], "size": 21}, ""),
        ("char", {}, "words in a vocabulary of the unit char"),
        ("char", {"words": [], "size": 21}, "words in a vocabulary of the unit char"),
        ("char", {"words": None}, "invalid vocabulary.words in the header: None"),
        ("word", {"words": ["ab", 5]}, "invalid vocabulary.words[1] in the header: 5"),
        ("word", {"words": ["ba", "ab"]}, "not sorted"),
        ("word", {"words": ["ab", "ab"]}, "not sorted"),
        ("word", {"words": ["ab", "b"]}, "the word 'b'"),
        ("word", {"words": ["ab", "b" * 33]}, "the word 'bbb"),
        ("word", {"words": ["a\n", "ab"]}, r"the word 'a\n'"),
        ("word", {"words": ["ab", "b\udc80"]}, r"the word 'b\udc80'"),
        ("word", {"words": ["ab"]}, "invalid vocabulary.size in the header: 23, not 22"),
        ("word", {"special": SPELLING[1:], "size": 22}, "not those of a vocabulary of words"),
        ("word", {"special": [0x110044, *SPELLING], "size": 24}, "not those of a vocabulary"),
        ("word", {"special": [0x110000, *SPELLING], "size": 24}, "jamo in a vocabulary"),
        ("word", {"symbols": "ab", "start_symbol": 97}, "there is no newline"),
    ],
)
def test_words_are_sorted_and_can_be_spelled(
    unit: str, change: dict[str, Any], message: str
) -> None:
    state = forge.run_state(**forge.WORDS)
    vocabulary = {**state.vocabulary, **change}
    header = {**json.loads(serialize(state)), "vocabulary": vocabulary}
    header["config"]["unit"] = unit
    if message:
        assert message in refusal(sealed_header(header))
        return
    v = Vocabulary.from_header(parse(sealed_header(header)).vocabulary, unit)
    assert v.to_header() == vocabulary
    assert v.decode(v.encode("ab x\n")) == "ab x\n"


def test_model_of_words_has_words() -> None:
    header = json.loads(serialize(forge.run_state(**forge.WORDS)))
    del header["vocabulary"]["words"]
    header["vocabulary"]["size"] = 21
    assert "there are no words" in refusal(sealed_header(header))


def test_nonfinite_number_is_not_serialized() -> None:
    with pytest.raises(ValueError, match=re.escape("Out of range float values")):
        serialize(forge.run_state(train_seconds=math.nan))
