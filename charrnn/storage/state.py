"""The header of a checkpoint: its fields, and the checks of an untrusted file.

The type hints of ``State`` and of its records are the schema: a header is read if it fits them.
"""

# NumPy is not imported: the command line reads a header before it chooses the number of threads.

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import re
import reprlib
from dataclasses import dataclass, field
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from charrnn.config import MAX_COUNT, Config
from charrnn.errors import UsageError

FORMAT = 5
UNRELEASED = "was never released and is not supported; train the model again"
MAX_HEADER_BYTES = 2**23
MAX_HEADER_VALUES = 500_000
MAX_INT_DIGITS = 20  # 2**64 has 20; older Pythons need minutes for a million
MAX_FLOAT_DIGITS = 50
MAX_WORKERS = 1024
MAX_REASON_CHARACTERS = 200
MAX_STORED_ORDER = 10  # of n-grams
NUM_GATE_FEATURES = 7  # and one for each order

# of jamo, and of these, the end of a document and the unknown symbol; see ``units``
JAMO_CODES = range(0x110000, 0x110000 + 67)
SPECIAL_CODES = range(0x110000, 0x110000 + 69)
# a file's name may have bytes that are not UTF-8, as surrogates (PEP 383)
NOT_TEXT = re.compile("[\ud800-\udc7f\udd00-\udfff]")
BASELINE_NAME = re.compile("uniform|[1-9][0-9]?-gram")

NonNegative = Annotated[int, range(MAX_COUNT + 1)]
Positive = Annotated[int, range(1, MAX_COUNT + 1)]
Special = Annotated[int, SPECIAL_CODES]
Amount = Annotated[float, (0.0, float(MAX_COUNT))]  # of epochs, or of seconds
MAX_LOSS = 1e300  # in nats; a larger one, of float64, counts as non-finite
Loss = Annotated[float, (-MAX_LOSS, MAX_LOSS)]
NonNegativeReal = Annotated[float, (0.0, MAX_LOSS)]
Discount = Annotated[float, (0.0, 3.0)]
Real = Annotated[float, (-MAX_LOSS, MAX_LOSS)]
# Path, bytes and CRC-32. Paths are relative to the checkpoint's folder, or absolute; standard input
# is "-", a file of that name "./-", and a text that was given to the Python API null.
FileRecord = tuple[str | None, NonNegative, NonNegative]

Versions = TypedDict("Versions", {"charrnn": str, "numpy": str, "python": str})
# before the first evaluation, and without a validation split, the loss is None
Best = TypedDict("Best", {"step": NonNegative, "val_loss": Loss | None})
SplitCharacters = TypedDict(
    "SplitCharacters", {"train": NonNegative, "val": NonNegative, "test": NonNegative}
)
# smaller than the options for a small text
Batches = TypedDict(
    "Batches", {"batch_size": Positive, "seq_length": Positive, "steps_per_epoch": Positive}
)
# since the last evaluation
RunningLoss = TypedDict("RunningLoss", {"sum": Loss, "steps": NonNegative})
# losses of a uniform guess and of n-gram models, by name
Baselines = TypedDict("Baselines", {"val": dict[str, Loss], "test": dict[str, Loss]})
LoggedSample = TypedDict("LoggedSample", {"step": NonNegative, "text": str})
# the best weights were restored, or else the batch was skipped
NonfiniteEvent = TypedDict("NonfiniteEvent", {"step": NonNegative, "reason": str, "restored": bool})


class VocabularyRecord(TypedDict):
    size: Positive
    symbols: str  # in the order of their codes; bytes as the characters of the same numbers
    special: list[Special]
    start_symbol: NonNegative


class TextRecord(TypedDict):
    name: str
    files: list[FileRecord]  # the first ones, if a header cannot list them all
    num_files: NonNegative
    bytes: NonNegative
    characters: NonNegative
    symbols: NonNegative
    sha256: str


class CorpusRecord(TextRecord):
    split_characters: SplitCharacters


class Plan(TypedDict):
    from_step: NonNegative
    steps: Positive
    eval_every: Positive
    sample_every: NonNegative  # 0 for never


class Evaluation(TypedDict):  # losses are in nats per character
    step: NonNegative
    epoch: Amount
    train_loss: Loss | None
    val_loss: Loss | None
    grad_norm: NonNegativeReal | None
    learning_rate: NonNegativeReal
    characters_seen: NonNegative
    seconds: Amount


class CountsRecord(TypedDict):  # of n-grams, for n = 1, 2, ...
    sizes: list[NonNegative]
    discounts: list[tuple[Discount, Discount, Discount, Discount]]
    bytes: NonNegative  # compressed


class Adaptation(TypedDict):  # see ``scoring.adaptive_scores``
    learning_rate: NonNegativeReal
    decay: NonNegativeReal
    gate: list[Real]


class Mixing(TypedDict):  # gates: see ``mixture``
    static: list[Real]
    learning: list[Real]
    adaptation: Adaptation | None  # if the optimizer has second moments
    # of the test split, in nats per character, by the counts and by the mixture, both learning
    counts_loss: Loss | None
    mixed_loss: Loss | None


class InitFrom(TypedDict):
    file: str
    sha256: str | None
    matched: NonNegative  # symbols of both vocabularies
    added: NonNegative
    unused: NonNegative


@dataclass(kw_only=True)
class ModelState:
    """The header of an exported model; every checkpoint has these fields."""

    kind: Literal["model", "run"] = "model"
    format: Positive = FORMAT
    sha256: str = ""  # of the header; computed on saving, like the checksums of the arrays
    arrays: dict[str, str] = field(default_factory=dict)
    versions: Versions
    config: Config
    vocabulary: VocabularyRecord
    parameters: NonNegative
    step: NonNegative = 0
    epoch: Amount = 0.0
    best: Best = field(default_factory=lambda: Best(step=0, val_loss=None))
    test_loss: Loss | None = None  # of the best weights of a finished run
    counts: CountsRecord | None = None
    mixing: Mixing | None = None  # of a finished run with a validation split


@dataclass(kw_only=True)
class State(ModelState):
    """The header of the checkpoint of a run."""

    kind: Literal["model", "run"] = "run"
    command: str
    workers: Annotated[int, range(1, MAX_WORKERS + 1)]  # of each rank
    ranks: Positive
    sync_every: Positive  # steps
    corpus: CorpusRecord
    val_corpus: TextRecord | None
    batches: Batches
    plans: list[Plan] = field(default_factory=list)  # the last one applies
    finished: bool = False
    data_position: tuple[NonNegative, NonNegative] = (0, 0)  # see ``batches.Position``
    symbols_seen: NonNegative = 0
    num_averaged: NonNegative = 0  # steps whose weights are in the average
    train_seconds: Amount = 0.0
    initial_loss: Loss | None = None
    running_loss: RunningLoss = field(default_factory=lambda: RunningLoss(sum=0.0, steps=0))
    nonfinite_events: list[NonfiniteEvent] = field(default_factory=list)  # halve the learning rate
    nonfinite_streak: NonNegative = 0  # consecutive batches
    baselines: Baselines
    history: list[Evaluation] = field(default_factory=list)
    samples: list[LoggedSample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    init_from: InitFrom | None


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
        if key not in record:
            raise damage_error(f"missing {at}{key} in the header")
    for key in sorted(record.keys() - hints):
        raise damage_error(f"unexpected {at}{reprlib.repr(key)} in the header")
    return {key: check(record[key], hint, at + key) for key, hint in hints.items()}


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


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
    codes = [*map(ord, symbols), *special]
    size, start = vocabulary["size"], vocabulary["start_symbol"]
    if any(a >= b for a, b in itertools.pairwise(codes)):
        raise damage_error("the vocabulary in the header is not sorted")
    if size != len(codes):
        raise _field_error("vocabulary.size", f"{size}, not {len(codes)}")
    if start not in codes:
        raise _field_error("vocabulary.start_symbol", f"{start}, which is not in the vocabulary")
    if re.search("[\ud800-\udfff]", symbols) or (unit == "byte" and not _are_bytes(symbols)):
        raise _field_error("vocabulary.symbols", f"not all of them are a {unit}")
    if unit != "jamo" and any(code in JAMO_CODES for code in special):
        raise _field_error("vocabulary.special", f"jamo in a vocabulary of the unit {unit}")


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
            if path is not None and (not path or "\0" in path):
                raise _field_error(f"{name}.files", f"the name {path!r}")
    if state.config.unit == "byte" and not all(_are_bytes(row["text"]) for row in state.samples):
        raise _field_error("samples", "not all characters are bytes")


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
