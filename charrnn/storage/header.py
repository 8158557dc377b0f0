"""How a header is written as JSON, and the checks of an untrusted one."""

# NumPy is not imported: the command line reads a header before it chooses the number of threads.

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import re
import reprlib
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from charrnn.config import Config
from charrnn.errors import UsageError
from charrnn.storage.state import FORMAT, ModelState, State, VocabularyRecord
from charrnn.text.tokens import MAX_TOKEN_CHARACTERS

UNRELEASED = "was never released and is not supported; train the model again"
MAX_HEADER_BYTES = 2**23
MAX_HEADER_VALUES = 500_000
MAX_INT_DIGITS = 20  # 2**64 has 20; older Pythons need minutes for a million
MAX_FLOAT_DIGITS = 50
MAX_REASON_CHARACTERS = 200
MAX_STORED_ORDER = 10  # of n-grams
OPTIONAL = {"task", "measures", "features"}  # fields that older files lack
NUM_GATE_FEATURES = 7  # and one for each order
JAMO_CODES = range(0x110000, 0x110000 + 67)
UNKNOWN_CODE = 0x110000 + 68
SPELLING_CODES = range(0x110000 + 69, 0x110000 + 88)
BASELINE_NAME = re.compile("uniform|[1-9][0-9]?-gram")
# a file's name may have bytes that are not UTF-8, as surrogates (PEP 383)
NOT_TEXT = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class InvalidCheckpoint(Exception):  # noqa: N818
    """The reason why a file is refused; the caller adds the file's name."""


def damage_error(reason: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"damaged: {reason}")


def _field_error(at: str, problem: str) -> InvalidCheckpoint:
    return damage_error(f"invalid {at} in the header: {problem}")


def serialize(state: ModelState) -> bytes:
    """Return the header as it is stored. Raises ValueError for a non-finite number."""
    header = _json_safe(vars(state))
    header["sha256"] = _checksum(header)
    text = json.dumps(header, ensure_ascii=False, indent=1)
    return re.sub("[\udc80-\udcff]", lambda m: rf"\u{ord(m[0]):04x}", text).encode()


def within_limits(data: bytes) -> bool:
    """Return whether a header is small enough to be parsed; its values are counted in advance."""
    values = 1 + sum(data.count(byte) for byte in (b",", b":", b"[", b"{"))
    return len(data) <= MAX_HEADER_BYTES and values <= MAX_HEADER_VALUES


def parse(data: bytes) -> ModelState:
    """Return the state that a header describes. Raises InvalidCheckpoint."""
    # size, JSON, format, checksum
    if not within_limits(data):
        limits = f"{MAX_HEADER_VALUES:,} values or {MAX_HEADER_BYTES:,} bytes"
        raise damage_error(f"the header exceeds {limits}")
    try:
        text = data.decode()
        header = json.loads(
            text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_parse_float
        )
        header = header if type(header) is dict else {}
        checksum = _checksum(header)
    except (ValueError, RecursionError):
        raise damage_error("the header is not valid JSON, or has a number out of range") from None
    _check_format(header.get("format"))
    if header.get("sha256") != checksum:
        raise damage_error("the header does not match its checksum")

    # every field
    kind = ModelState if header.get("kind") == "model" else State
    state: ModelState = kind(**check_record(header, kind))
    _check_vocabulary(state.vocabulary, state.config.unit)
    _check_counts(state)
    _check_task(state)
    if isinstance(state, State):
        _check_steps(state)
        _check_texts(state)
        for name in (*state.baselines["val"], *state.baselines["test"]):
            if not BASELINE_NAME.fullmatch(name):
                raise _field_error("baselines", f"the name {reprlib.repr(name)}")
    return state


def check(value: Any, hint: Any, at: str) -> Any:
    """Return a value of the header if it fits its type hint. Raises InvalidCheckpoint.

    ``at`` names the value. Configurations become a ``Config``, lists of a fixed length tuples.
    """
    kind, args = _parse_hint(hint)
    if kind in (UnionType, Union):  # X | None
        return None if value is None else check(value, args[0], at)
    if kind is Annotated:
        valid = _is_in_range(value, *args)
    elif kind is Literal:
        valid = type(value) is str and value in args
    elif kind is str:
        valid = type(value) is str and not NOT_TEXT.search(value)
    elif kind is tuple:
        valid = type(value) is list and len(value) == len(args)
    else:
        valid = type(value) is (kind if kind in (bool, list) else dict)
    if not valid:
        raise _field_error(at, reprlib.repr(value))
    if kind is list:
        return [check(item, args[0], f"{at}[{i}]") for i, item in enumerate(value)]
    if kind is tuple:
        return tuple(check(value[i], arg, f"{at}[{i}]") for i, arg in enumerate(args))
    if kind is dict:
        return {k: check(item, args[1], f"{at}[{k!r:.40}]") for k, item in value.items()}
    if kind is Config:
        try:
            return Config(**value)
        except (TypeError, UsageError) as e:
            raise _field_error(at, str(e)[:MAX_REASON_CHARACTERS]) from None
    return check_record(value, kind, f"{at}.") if type(value) is dict else value


def _is_in_range(value: Any, kind: type, bounds: Any) -> bool:
    if kind is int:
        return type(value) is int and value in bounds
    return type(value) in (int, float) and bounds[0] <= value <= bounds[1]


def check_record(record: dict[str, Any], kind: type, at: str = "") -> dict[str, Any]:
    """Return a record if it has the fields of ``kind``, and each fits. Raises InvalidCheckpoint."""
    hints = _type_hints(kind)
    for key in hints:
        if key not in record and key not in {*_optional_keys(kind), *OPTIONAL}:
            raise damage_error(f"missing {at}{key} in the header")
    for key in sorted(record.keys() - hints):
        raise damage_error(f"unexpected {at}{reprlib.repr(key)} in the header")
    return {k: check(record[k], hint, at + k) for k, hint in hints.items() if k in record}


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _optional_keys(kind: type) -> frozenset[str]:
    return getattr(kind, "__optional_keys__", frozenset())


@functools.cache
def _parse_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint) or hint, get_args(hint)


def _check_format(version: Any) -> None:
    if type(version) is not int or version < 1:
        raise InvalidCheckpoint("not a charrnn checkpoint: the header has no format number")
    if version < FORMAT:
        raise InvalidCheckpoint(f"format {version} {UNRELEASED}")
    if version > FORMAT:
        limit = f"this version reads formats up to {FORMAT}"
        reason = f"needs a newer charrnn ({limit}): pip install --upgrade charrnn"
        raise InvalidCheckpoint(f"format {version} {reason}")


def _check_vocabulary(vocabulary: VocabularyRecord, unit: str) -> None:
    symbols, special = vocabulary["symbols"], vocabulary["special"]
    codes, words = [*map(ord, symbols), *special], vocabulary.get("words", [])
    size, start = vocabulary["size"], vocabulary["start_symbol"]
    pairs: list[tuple[Any, Any]] = [*itertools.pairwise(codes), *itertools.pairwise(words)]
    if any(a >= b for a, b in pairs):
        raise damage_error("the vocabulary in the header is not sorted")
    if size != len(codes) + len(words):
        raise _field_error("vocabulary.size", f"{size}, not {len(codes) + len(words)}")
    if start not in codes:
        raise _field_error("vocabulary.start_symbol", f"{start}, which is not in the vocabulary")
    if re.search("[\ud800-\udfff]", symbols) or (unit == "byte" and not _are_bytes(symbols)):
        raise _field_error("vocabulary.symbols", f"not all of them are a {unit}")
    if unit != "jamo" and any(code in JAMO_CODES for code in special):
        raise _field_error("vocabulary.special", f"jamo in a vocabulary of the unit {unit}")
    _check_words(vocabulary, unit)


def _check_words(vocabulary: VocabularyRecord, unit: str) -> None:
    """Raise InvalidCheckpoint unless words can be spelled and read, for the unit word only."""
    special, spelling = vocabulary["special"], set(SPELLING_CODES)
    if unit != "word":
        if "words" in vocabulary or spelling.intersection(special):
            raise _field_error("vocabulary", f"words in a vocabulary of the unit {unit}")
        return
    if UNKNOWN_CODE in special or not spelling.issubset(special):
        raise _field_error("vocabulary.special", "not those of a vocabulary of words")
    if "words" not in vocabulary or "\n" not in vocabulary["symbols"]:
        raise _field_error("vocabulary", "there are no words, or there is no newline")
    for word in vocabulary["words"]:
        if not 2 <= len(word) <= MAX_TOKEN_CHARACTERS or re.search("[\n\ud800-\udfff]", word):
            raise _field_error("vocabulary.words", f"the word {reprlib.repr(word)}")


def _check_counts(state: ModelState) -> None:
    """Raise InvalidCheckpoint unless the counts have some lengths, and the gates fit them."""
    if state.mixing and not state.counts:
        raise _field_error("mixing", "there are no counts")
    if not state.counts:
        return
    order = len(state.counts["sizes"])
    if not 1 <= order <= MAX_STORED_ORDER or len(state.counts["discounts"]) != order:
        raise _field_error("counts", f"{order} sizes, {len(state.counts['discounts'])} discounts")
    if mixing := state.mixing:
        gates = [mixing["static"], mixing["learning"]]
        gates += [mixing["adaptation"]["gate"]] if mixing["adaptation"] else []
        for gate in gates:
            if len(gate) != NUM_GATE_FEATURES + order:
                raise _field_error("mixing", f"a gate of {len(gate)} weights")


def _check_task(state: ModelState) -> None:
    """Raise InvalidCheckpoint unless there is a record of a task if there is one to record."""
    task, config = state.task, state.config
    if (task is None) != (config.predict == "next"):
        raise _field_error("task", f"of --predict {config.predict}")
    if state.features and (config.predict == "next" or config.generative or config.unit == "word"):
        raise _field_error("features", f"of --predict {config.predict}")
    if task is None:
        return
    names, shares = task["outputs"], task.get("shares", [])
    if len({*names}) < len(names):
        raise _field_error("task.outputs", "one of them twice")
    if config.predict in ("label", "tags") and not names:
        raise _field_error("task.outputs", f"there is no {config.predict.removesuffix('s')}")
    if config.predict == "tags" and task["per"] not in ("character", "word", "symbol"):
        raise _field_error("task.per", reprlib.repr(task["per"]))
    if ("shares" in task) != config.generative or len(shares) != len(names) * config.generative:
        raise _field_error("task.shares", f"{len(shares)} of {len(names)}")
    if state.features and len(state.features["shape"]) not in range(
        1, 3 if config.predict == "text" else 2
    ):
        raise _field_error("features.shape", f"{len(state.features['shape'])} numbers")
    if state.counts:
        raise _field_error("counts", "only a language model has n-grams")
    if len(task["weights"]) not in (0, 2 * bool(task["counts_bytes"])):
        raise _field_error("task.weights", f"{len(task['weights'])} weights")


def _check_steps(state: State) -> None:
    """Raise InvalidCheckpoint unless all that is recorded happened in order, up to this step."""
    if not state.plans:
        raise _field_error("plans", "[]")
    history = [row["step"] for row in state.history]
    recorded = {
        "plans": [plan["from_step"] for plan in state.plans],
        "history": history,
        "samples": [sample["step"] for sample in state.samples],
        "nonfinite_events": [event["step"] for event in state.nonfinite_events],
        "best.step": [state.best["step"]],
    }
    for name, steps in recorded.items():
        if steps != sorted(steps) or (steps and steps[-1] > state.step):
            raise _field_error(name, f"not in the order of the steps, up to step {state.step:,}")
    if 0 in history or len(set(history)) < len(history):
        raise _field_error("history", "step 0, or one step twice")


def _check_texts(state: State) -> None:
    """Raise InvalidCheckpoint unless texts have files, and files and samples are possible ones."""
    for name, record in (("corpus", state.corpus), ("val_corpus", state.val_corpus)):
        if record is None:
            continue
        files = record["files"]
        if not 1 <= len(files) <= record["num_files"]:
            raise _field_error(f"{name}.files", f"{len(files)} of {record['num_files']}")
        for path, _, _ in files:
            _check_path(path, f"{name}.files")
    if state.features:
        _check_path(state.features["file"][0], "features.file")
    if state.config.unit == "byte" and not all(_are_bytes(row["text"]) for row in state.samples):
        raise _field_error("samples", "not all characters are bytes")


def _check_path(path: str | None, at: str) -> None:
    if path is not None and (not path or "\0" in path):
        raise _field_error(at, f"the name {path!r}")


def _are_bytes(text: str) -> bool:
    return max(map(ord, text), default=0) < 256


def _json_safe(header: dict[str, Any]) -> Any:
    """Return the header as JSON gives it back. Lone surrogates are bytes, or become escapes."""
    text = json.dumps(header, default=vars, ensure_ascii=False, allow_nan=False)
    # in a file's name they are bytes (PEP 383): decoded as UTF-8, whatever the locale
    text = re.sub("[\udc80-\udcff]+", lambda m: _decode_surrogates(m[0]), text)
    return json.loads(NOT_TEXT.sub(lambda m: rf"\\u{ord(m[0]):04x}", text))


def _decode_surrogates(surrogates: str) -> str:
    return surrogates.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _checksum(header: dict[str, Any]) -> str:
    rest = {key: value for key, value in header.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_INT_DIGITS:
        raise ValueError
    return int(digits)


def _parse_float(digits: str) -> float:
    number = float(digits) if len(digits) < MAX_FLOAT_DIGITS else math.inf
    if not math.isfinite(number):
        raise ValueError
    return number
