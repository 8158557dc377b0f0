"""What a run's file tells besides its arrays: a JSON header, checked against its shape before anyone reads it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import reprlib
from typing import Any

from charrnn.config import Config
from charrnn.errors import UsageError

FORMAT = 3
MOST_THREADS = 1024
BYTES, VALUES = 2**23, 500_000  # of a header, at most
Header = dict[str, Any]

# The shape of a header. A type stands for a value of it (a float may be written as an integer), a range for an
# integer in it, a set for one of its words; (X,) is X or null, [X] a list of X, [X, Y] a list of these two,
# {str: X} a dict with any names, and another dict one with just these keys.
N, N1 = range(2**63), range(1, 2**63)
SPECIAL = range(0x110000, 0x110000 + 69)  # numbers beyond Unicode, for symbols that are no characters
MODEL: dict[Any, Any] = {
    "kind": {"model"},
    "format": N1,
    "sha256": str,
    "arrays": {str: str},
    "versions": {"charrnn": str, "numpy": str, "python": str},
    "config": Config,
    "vocabulary": {"size": N1, "symbols": str, "special": [SPECIAL], "start_symbol": N},
    "parameters": N,
    **{"step": N, "epoch": float, "best": {"step": N, "val_loss": (float,)}, "test_loss": (float,)},
}
RUN: dict[Any, Any] = MODEL | {
    "kind": {"run"},
    **{"command": str, "threads": range(1, MOST_THREADS + 1)},
    "corpus": {
        **{"name": str, "files": [[str, (N,), (N,)]], "bytes": N, "characters": N, "symbols": N, "sha256": str},
        **{"val_files": ([str],), "val_sha256": (str,), "split_characters": {"train": N, "val": N, "test": N}},
    },
    "batches": {"batch_size": N1, "seq_length": N1, "steps_per_epoch": N1},
    "plans": [{"from_step": N, "steps": N1, "eval_every": N1, "sample_every": N}],
    **{"finished": bool, "data_position": [N, N], "train_seconds": float, "initial_loss": (float,)},
    **{"symbols_seen": N, "running_loss": {"sum": float, "steps": N}, "nonfinite_streak": N},
    **{"baselines": {"val": {str: float}, "test": {str: float}}, "notes": [str]},
    "history": [
        {"step": N, "epoch": float, "learning_rate": float, "characters_seen": N, "seconds": float}
        | {"train_loss": (float,), "val_loss": (float,), "grad_norm": (float,)}
    ],
    "samples": [{"step": N, "text": str}],
    "nonfinite_events": [{"step": N, "reason": str, "restored": bool}],
    "init_from": ({"file": str, "sha256": (str,), "matched": N, "added": N, "unused": N},),
}


class Refused(Exception):  # noqa: N818
    """Why a file is refused; who knows its name adds that."""


def encode(header: Header) -> bytes:
    """Return the header as it stands in a file, with its format and checksum. Raises ValueError if it is not finite."""
    plain = _plain(header | {"format": FORMAT})
    plain["sha256"] = _checksum(plain)
    return json.dumps(plain, ensure_ascii=False, indent=1).encode()


def fits(data: bytes) -> bool:
    """Tell whether a header is small enough to be read: its values are counted without parsing it."""
    values = 1 + sum(data.count(byte) for byte in (b",", b":", b"[", b"{"))
    return len(data) <= BYTES and values <= VALUES


def decode(data: bytes) -> Header:
    """Return a header in its present shape; its vocabulary is sound too. Raises Refused."""
    if not fits(data):
        raise Refused(f"damaged: its header holds more than {VALUES:,} values, or {BYTES:,} bytes")
    try:
        header = json.loads(data.decode(), parse_int=_int, parse_float=_float, parse_constant=_float)
    except (ValueError, RecursionError):
        raise Refused("damaged: its header is not JSON, or holds a number out of bounds") from None
    version = header.get("format") if isinstance(header, dict) else None
    if type(version) is not int or version < 1:
        raise Refused("not a checkpoint of charrnn: its header names no format")
    if version < FORMAT:
        raise Refused(f"format {version} was never released and is not supported; train the model again")
    if version > FORMAT:
        raise Refused(
            f"format {version} needs a newer charrnn (this version reads formats up to {FORMAT}): "
            f"pip install --upgrade charrnn"
        )
    if header.get("sha256") != _checksum(header):
        raise Refused("damaged: its header does not match its checksum")
    _check(header, MODEL if header.get("kind") == "model" else RUN, "")
    header["config"] = dataclasses.asdict(Config(**header["config"]))
    _check_vocabulary(**header["vocabulary"])
    if header["kind"] == "run" and not header["plans"]:
        raise Refused("damaged: plans in its header is []")
    return dict(header)


def _plain(header: Header) -> Header:
    """Return the header as JSON gives it back, without lone surrogates."""
    text = json.dumps(header, ensure_ascii=False, allow_nan=False)
    # of a file's name these are its bytes (PEP 383): UTF-8 wherever the locale is not
    text = re.sub("[\udc80-\udcff]+", lambda m: _bytes(m[0]), text)
    plain: Header = json.loads(re.sub("[\ud800-\udfff]", lambda m: rf"\\u{ord(m[0]):04x}", text))
    return plain


def _bytes(surrogates: str) -> str:
    text = surrogates.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.replace("\\", "\\\\")


def _checksum(header: Header) -> str:
    rest = {key: value for key, value in header.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _int(digits: str) -> int:
    if len(digits) > 20:  # as long as 2**64; older Pythons would take minutes for a million
        raise ValueError
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits) if len(digits) < 50 else math.inf
    if not math.isfinite(number):
        raise ValueError
    return number


def _check(value: Any, shape: Any, at: str) -> None:
    """Refuse a value that has not the shape (see MODEL)."""
    if isinstance(shape, tuple):
        if value is None:
            return
        (shape,) = shape
    if isinstance(shape, range):
        fits = type(value) is int and value in shape
    elif isinstance(shape, set):
        fits = type(value) is str and value in shape
    elif isinstance(shape, list):
        fits = type(value) is list and len(shape) in (1, len(value))
    elif shape is float:
        fits = type(value) in (int, float)
    else:
        fits = type(value) is (shape if shape in (str, bool) else dict)
    if not fits:
        raise Refused(f"damaged: {at} in its header is {reprlib.repr(value)}")
    if shape is Config:
        try:
            Config(**value)
        except (TypeError, UsageError) as e:
            raise Refused(f"damaged: {at} in its header: {str(e)[:200]}") from None
    elif isinstance(shape, list):
        for i, item in enumerate(value):
            _check(item, shape[i % len(shape)], f"{at}[{i}]")
    elif isinstance(shape, dict) and str in shape:
        for key, item in value.items():
            _check(item, shape[str], f"{at}[{reprlib.repr(key)}]")
    elif isinstance(shape, dict):
        dot = f"{at}." if at else ""
        for key, inner in shape.items():
            if key not in value:
                raise Refused(f"damaged: {dot}{key} is not in its header")
            _check(value[key], inner, dot + key)
        if unknown := value.keys() - shape:
            raise Refused(f"damaged: {dot}{reprlib.repr(min(unknown))} is unknown in a header")


def _check_vocabulary(size: int, symbols: str, special: list[int], start_symbol: int) -> None:
    codes = [*map(ord, symbols), *special]
    if any(a >= b for a, b in itertools.pairwise(codes)):
        raise Refused("damaged: the vocabulary in its header is not in order")
    if size != len(codes):
        raise Refused(f"damaged: vocabulary.size in its header is {size}, not {len(codes)}")
    if start_symbol not in codes:
        raise Refused(
            f"damaged: vocabulary.start_symbol in its header is {start_symbol}, which is not in the vocabulary"
        )
