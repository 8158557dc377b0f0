from __future__ import annotations

import io
import os
import re
import secrets
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count, Number, flag
from charrnn.cli.interactive import Session, run_session
from charrnn.cli.streams import print_message, stdout
from charrnn.config import MAX_COUNT
from charrnn.errors import UnknownCharacterError, UsageError
from charrnn.formatting import format_count
from charrnn.storage.state import MAX_WORKERS

if TYPE_CHECKING:
    from charrnn.model import Model

MAX_BATCH = 1024  # texts


@click.command()
@common.temp_option(metavar="T")
@common.length_option(
    type=Count(0, MAX_COUNT), default=2000, help="Number of characters to generate."
)
@click.option("-p", "--prime", metavar="TEXT", help="Text to prime the model with.")
@click.option(
    "--prime-file",
    metavar="FILE",
    help="Read the prime from a file, unchanged; - is standard input.",
)
@click.option(
    "--top-k", type=Count(1), metavar="K", help="Sample only from the K most likely characters."
)
@click.option(
    "--top-p",
    type=Number(0, 1, min_open=True),
    metavar="P",
    help="Nucleus sampling: sample only from the most likely characters whose probabilities add "
    "up to P.",
)
@common.mix_option(
    default=False,
    help="Mix the network with the n-grams of its training text.  [default: no-mix]",
)
@common.sample_seed_option
@click.option("--until", metavar="STRING", help="Stop once this string has been generated.")
@click.option(
    "--num-samples",
    type=Count(1, MAX_COUNT),
    default=1,
    help="Number of texts to generate, in batches of up to 1,024.",
)
@flag(
    *("-i", "--interactive"),
    help="Continue each line that is typed; :help lists the commands.",
)
@flag("-0", "--null", help="Separate the texts with NUL instead of an empty line.")
@flag("--no-echo", help="Do not print the prime.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip"]),
    default="error",
    help="How to treat unknown characters in the prime.",
)
@click.option(
    "--workers",
    type=Count(1, MAX_WORKERS),
    default=1,
    help="Number of processes that share 32 texts or more; for fewer texts, threads per matrix "
    "product, of which 2 are faster from 512 hidden units on.",
)
@model_argument(last=True)
def sample(
    model_file: ModelFile,
    length: int,
    prime: str | None,
    prime_file: str | None,
    seed: int | None,
    until: str | None,
    num_samples: int,
    interactive: bool,
    null: bool,
    no_echo: bool,
    unknown: str,
    workers: int,
    **options: Any,
) -> None:
    """Generate text with the model in CHECKPOINT.

    \b
      charrnn sample --temp 0.8 --length 500
      charrnn sample checkpoints/play.npz --prime 'ORSELLA:' --until 'MERIEL:'
      head -20 draft.txt | charrnn sample --prime-file - --seed 7
      charrnn sample --interactive
    """  # noqa: D301
    if prime_file is not None and prime is not None:
        raise UsageError("--prime and --prime-file are mutually exclusive")
    if interactive and (null or no_echo or num_samples > 1 or prime is not None or prime_file):
        raise UsageError("--interactive takes its primes from the terminal, one text at a time")
    out = stdout().buffer
    common.set_threads(workers)
    from charrnn.text.files import read_file

    # the prime, and the texts in batches
    data = read_file(prime_file, raw=True) if prime_file is not None else prime or ""
    seed = secrets.randbits(32) if seed is None else seed
    model = model_file.load(f"seed {seed}")
    options |= {"unknown": unknown, "workers": workers}
    if interactive:
        run_session(Session(model, length, seed, {**options, "until": until}))
        return
    text = to_model_text(model, data, prime_file or "--prime")
    if unknown == "error":
        check_escapes(model, prime)
    if prime_file != "-" and has_input():
        print_message("charrnn: standard input is ignored; to prime with it: --prime-file -")
    if until is not None:
        options["until"] = to_model_text(model, until, "--until")
    options["prime"] = text
    batches = (
        (n, model.sample_batch(n, length, seed=[seed, k] if k else seed, **options))
        for k, n in enumerate(batch_sizes(num_samples))
    )
    if unknown == "skip":
        is_unknown = model.vocabulary.read(text).is_unknown
        if is_unknown.any():
            count = format_count(int(is_unknown.sum()), "unknown character")
            print_message(f"charrnn: skipped {count} in the prime")

    # write the texts, each piece as it is generated
    echo = "" if no_echo else text if isinstance(text, str) else text.decode("latin-1")
    encoding, last = "latin-1" if model.unit == "byte" else "utf-8", ""
    by_line = model.documents == "line"
    for piece in lay_out(batches, echo, by_line, null):
        out.write(piece.encode(encoding, "surrogatepass"))
        out.flush()
        last = piece[-1:] or last
    if sys.stdout.isatty() and last != "\n":
        out.write(b"\n")


def check_escapes(model: Model, prime: str | None) -> None:
    r"""Raise UnknownCharacterError for a ``\n`` or ``\t`` that the shell has not replaced."""
    escape = re.search(r"\\[nt]", prime or "")
    if escape and model.unit != "byte" and "\\" not in model.vocabulary.symbols:
        raise UnknownCharacterError(
            f"--prime has a backslash, which is not in the model's vocabulary; for a newline or a "
            f"tab, quote it for the shell as $'...{escape[0]}...'"
        )


def has_input() -> bool:
    """Return whether a file or a pipe with data is standard input."""
    try:
        mode = os.fstat(0).st_mode
        if stat.S_ISFIFO(mode):
            is_readable = bool(select.select([0], [], [], 0)[0])
            return is_readable and bool(cast(io.BufferedReader, sys.stdin.buffer).peek(1))
        return stat.S_ISREG(mode) and os.fstat(0).st_size > 0
    except (OSError, ValueError, AttributeError):  # closed, or a system without select
        return False


def to_model_text(model: Model, data: bytes | str, name: str) -> str | bytes:
    """Return a file or an argument as the model reads it. Raises TextError."""
    from charrnn.text.files import decode_bytes

    if isinstance(data, str):  # bytes that are not in the locale arrive as surrogates
        data = data.encode("utf-8", "surrogateescape")
    return data if model.unit == "byte" else decode_bytes(data, name, mask=model.mask)


def batch_sizes(num_samples: int) -> Iterator[int]:
    """Yield the sizes of the batches that generate this many texts, in bounded memory."""
    for start in range(0, num_samples, MAX_BATCH):
        yield min(MAX_BATCH, num_samples - start)


def lay_out(
    batches: Iterable[tuple[int, Iterator[tuple[str, ...]]]], echo: str, by_line: bool, null: bool
) -> Iterator[str]:
    """Yield the output: of each batch the first text, piece by piece, and then its others.

    ``batches`` are the number of texts and their pieces; each text begins with ``echo``. They are
    separated by an empty line, or with ``null`` by NUL. A model of lines ends each text with a
    newline: one that was cut gets it, too.
    """
    end = "\n" if by_line and not null else ""
    separator = "\0" if null else "" if by_line else "\n\n"
    ending = "\n" if by_line else ""  # of a text that was not cut
    before = ""
    for n, pieces in batches:
        others = [[echo] for _ in range(n - 1)]
        yield before + echo
        for first, *rest in pieces:
            yield first.removesuffix(ending)
            for text, piece in zip(others, rest, strict=True):
                text.append(piece)
        yield end
        for text in others:
            yield separator + "".join(text).removesuffix(ending) + end
        before = separator
