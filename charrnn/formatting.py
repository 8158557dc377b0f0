"""Formatting of losses, counts and untrusted text, the same in all output."""

from __future__ import annotations

import math
import os
import shlex
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from charrnn.errors import SaveError, os_reason

HUGE = 1e6  # of losses: the model has diverged


def format_loss(nats: float | None) -> str:
    """Return a loss in nats and in bits; None is a non-finite loss."""
    if nats is None:
        return "non-finite"
    return f"{format_number(nats, 4)} nats ({format_number(nats / math.log(2), 3)} bits)"


def format_number(x: float, digits: int) -> str:
    """Return a number with some digits after the point; a huge one in scientific notation."""
    return f"{x:.{digits}f}" if abs(x) < HUGE else f"{x:.{digits}g}"


def format_baselines(baselines: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {nats:.3f}" for name, nats in baselines.items()) or "none"


def format_measures(measures: Mapping[str, float]) -> str:
    """Return what was measured of a model's predictions: ``accuracy 0.8412, macro F1 0.5120``."""
    return ", ".join(f"{name.replace('_', ' ')} {x:.4f}" for name, x in measures.items())


def best_baseline(baselines: Mapping[str, float]) -> str | None:
    return min(baselines, key=baselines.__getitem__, default=None)


def loss_unit(unit: str, predict: str = "next") -> str:
    """Return what the losses of a model are per; ``predict`` is as in ``Config``."""
    if predict != "next":
        return "target"
    return "byte" if unit == "byte" else "character"


def format_count(n: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is 1: ``1,200 characters``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def format_workers(workers: int, ranks: int, sync_every: int) -> str:
    """Return the number of workers: ``2 workers``, or ``4 ranks of 2 workers``."""
    text = format_count(workers, "worker")
    if ranks == 1:
        return text
    return f"{ranks} ranks of {text}" + f", averaged every {sync_every} steps" * (sync_every > 1)


def escape_control(text: str) -> str:
    """Escape the characters of a text that would break its line or move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shell_command(*words: Path | str) -> str:
    """Return a command as a shell reads it, all of it printable."""
    return " ".join(map(_shell_quote, map(str, words)))


def file_argument(path: Path | str) -> str:
    """Return a file's name as an argument that is not read as an option."""
    name = str(path)
    return f"./{name}" if name.startswith("-") and name != "-" else name


def _shell_quote(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escapes = {"'": "\\'", "\\": "\\\\"}
    hexadecimal = {c: "".join(f"\\x{b:02x}" for b in os.fsencode(c)) for c in word}
    return (
        "$'"
        + "".join(escapes.get(c) or (c if c.isprintable() else hexadecimal[c]) for c in word)
        + "'"
    )


def save_error(path: Path | str, e: OSError, failure: str = "could not be saved") -> SaveError:
    """Return the error to raise for a failed write."""
    return SaveError(escape_control(f"{path}: {failure} ({os_reason(e)})"))


def display_width(text: str) -> int:
    """Return the width of a text in columns of a terminal."""
    return sum(
        0
        if unicodedata.category(c) in ("Mn", "Me") or "\u1160" <= c <= "\u11ff"  # join the lead
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def standalone_jamo(jamo: str) -> str:
    """Return the character that displays a conjoining jamo alone: ``ㅏ`` for U+1161."""
    return unicodedata.lookup(f"HANGUL LETTER {unicodedata.name(jamo).split()[-1]}")
