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

FORMAT = 2
MOST_THREADS = 1024
BYTES, VALUES = 2**23, 500_000  # of a header, at most
Header = dict[str, Any]

# The shape of a header. A type stands for a value of it (a float may be written as an integer), a range for an
# integer in it, a set for one of its words; (X,) is X or null, [X] a list of X, [X, Y] a list of these two,
# {str: X} a dict with any names, and another dict one with just these keys.
N, N1 = range(2**63), range(1, 2**63)
PRIVATE = range(0x110000, 0x110000 + 69)  # numbers beyond Unicode, for symbols that are no characters
MODEL: dict[Any, Any] = {
    "kind": {"model"},
    "format": N1,
    "sha256": str,
    "arrays": {str: str},
    "charrnn": str,
    "config": Config,
    "vocabulary": {"size": N1, "symbols": str, "private": [PRIVATE], "start": N},
    "parameters": N,
    **{"step": N, "epoch": float, "best": {"step": N, "val_loss": (float,)}, "test_loss": (float,)},
}
RUN: dict[Any, Any] = MODEL | {
    "kind": {"run"},
    **{"numpy": str, "python": str, "command": str, "threads": range(1, MOST_THREADS + 1)},
    "corpus": {
        **{"name": str, "files": [[str, (N,), (N,)]], "bytes": N, "characters": N, "symbols": N, "sha256": str},
        **{"val_files": ([str],), "val_sha256": (str,), "parts": {"train": N, "val": N, "test": N}},
    },
    "windows": {"lanes": N1, "length": N1, "per_epoch": N1},
    "plans": [{"from_step": N, "steps": N1, "eval_every": N1, "sample_every": N}],
    **{"finished": bool, "position": [N, N], "seconds": float, "first_loss": (float,), "read": N, "streak": N},
    **{"recent": {"loss": float, "steps": N}, "ladder": {str: float}, "ladder_test": {str: float}, "notes": [str]},
    "history": [
        {"step": N, "epoch": float, "learning_rate": float, "characters": N, "seconds": float}
        | {"train_loss": (float,), "val_loss": (float,), "grad_norm": (float,)}
    ],
    "samples": [{"step": N, "text": str}],
    "trouble": [{"step": N, "what": str, "restored": bool}],
    "init_from": ({"file": str, "sha256": (str,), "matched": N, "added": N, "unused": N},),
}
# What format 1 had otherwise, and what it had not.
OLD: dict[str, Any] = {
    "vocabulary": {"size": N1, "symbols": str, "start": str},
    "corpus": {**{k: v for k, v in RUN["corpus"].items() if k != "symbols"}, "files": [str]},
    "recent": [float],
}
NEW = {"sha256", "arrays", "read", "trouble", "streak", "init_from", "ladder_test"}


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
    if version > FORMAT:
        raise Refused(
            f"written in format {version} by a newer charrnn; this one reads up to {FORMAT}: "
            f"pip install --upgrade charrnn"
        )
    if (version > 1 or "sha256" in header) and header.get("sha256") != _checksum(header):
        raise Refused("damaged: its header does not match its checksum")
    shape = MODEL if header.get("kind") == "model" else RUN
    if version == 1:
        shape = {key: OLD.get(key, value) for key, value in shape.items() if key not in NEW}
    _check(header, shape, "", version > 1)
    if version == 1:
        header = _upgraded(header)
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


def _check(value: Any, shape: Any, at: str, exact: bool) -> None:
    """Refuse a value that has not the shape (see MODEL); with ``exact`` also a key that is not in it."""
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
            _check(item, shape[i % len(shape)], f"{at}[{i}]", exact)
    elif isinstance(shape, dict) and str in shape:
        for key, item in value.items():
            _check(item, shape[str], f"{at}[{reprlib.repr(key)}]", exact)
    elif isinstance(shape, dict):
        dot = f"{at}." if at else ""
        for key, inner in shape.items():
            if key not in value:
                raise Refused(f"damaged: {dot}{key} is not in its header")
            _check(value[key], inner, dot + key, exact)
        if exact and (unknown := value.keys() - shape):
            raise Refused(f"damaged: {dot}{reprlib.repr(min(unknown))} is unknown in a header")


def _check_vocabulary(size: int, symbols: str, private: list[int], start: int, **_: object) -> None:
    codes = [*map(ord, symbols), *private]
    if any(a >= b for a, b in itertools.pairwise(codes)):
        raise Refused("damaged: the vocabulary in its header is not in order")
    if size != len(codes):
        raise Refused(f"damaged: vocabulary.size in its header is {size}, not {len(codes)}")
    if start not in codes:
        raise Refused(f"damaged: vocabulary.start in its header is {start}, which is not in the vocabulary")


def _upgraded(header: Header) -> Header:
    """Bring a header of format 1, whose shape has been checked, to the present one."""
    h = _plain(header)
    start = h["vocabulary"]["start"]
    if len(start) != 1:
        raise Refused(f"damaged: vocabulary.start in its header is {reprlib.repr(start)}")
    h["vocabulary"] |= {"private": [], "start": ord(start)}
    if h["kind"] == "run":
        k, recent, history = h["corpus"], h["recent"], h["history"]
        k |= {"files": [[name, None, None] for name in k["files"]], "symbols": k["characters"]}
        h["recent"] = {"loss": math.fsum(recent), "steps": len(recent)}
        h["read"] = history[-1]["characters"] if history else 0
        h |= {"trouble": [], "streak": 0, "init_from": None, "ladder_test": {}}
    return h
