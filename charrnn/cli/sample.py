"""``charrnn sample``."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from charrnn.cli.common import Count, ModelFile, model_argument, set_threads, stdout
from charrnn.errors import UsageError
from charrnn.formatting import format_count

if TYPE_CHECKING:
    from charrnn.model import Model


@click.command()
@click.option(
    "-t",
    "--temp",
    "--temperature",
    default=1.0,
    metavar="T",
    help="Sampling temperature; 0 always picks the most likely character.",
)
@click.option(
    "-n", "--length", type=Count(0), default=2000, help="Number of characters to generate."
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
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Nucleus sampling: sample only from the most likely characters whose probabilities add "
    "up to P.",
)
@click.option(
    "--seed", type=Count(0), help="Random seed; the same seed gives the same text [random]."
)
@click.option("--until", metavar="STRING", help="Stop once this string has been generated.")
@click.option(
    "--num-samples", type=Count(1), default=1, help="Number of texts to generate, in one batch."
)
@click.option(
    "-0", "--null", is_flag=True, help="Separate the texts with NUL instead of an empty line."
)
@click.option("--no-echo", is_flag=True, help="Do not print the prime.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip"]),
    default="error",
    help="How to treat unknown characters in the prime.",
)
@click.option(
    "--threads",
    type=Count(1),
    default=1,
    help="Threads per matrix product; 2 is faster for models with 512 hidden units or more.",
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
    null: bool,
    no_echo: bool,
    unknown: str,
    threads: int,
    **options: Any,
) -> None:
    """Generate text with the model in CHECKPOINT.

    \b
      charrnn sample --temp 0.8 --length 500
      charrnn sample checkpoints/play.npz --prime 'ORSELLA:' --until 'MERIEL:'
      head -20 draft.txt | charrnn sample --prime-file - --seed 7
    """  # noqa: D301
    if prime_file is not None and prime is not None:
        raise UsageError("--prime and --prime-file are mutually exclusive")
    out = stdout().buffer
    set_threads(threads)
    from charrnn.text.files import read_file

    # in a locale that is not UTF-8, the bytes of an argument come in as surrogates
    data = read_file(prime_file) if prime_file is not None else to_bytes(prime or "")
    seed = secrets.randbits(32) if seed is None else seed
    model = model_file.load(f"seed {seed}")
    text = to_model_text(model, data, prime_file or "--prime")
    pieces = model.sample_batch(
        num_samples,
        length,
        seed=seed,
        prime=text,
        unknown=unknown,
        until=None if until is None else to_model_text(model, to_bytes(until), "--until"),
        **options,
    )
    if unknown == "skip" and (skipped := count_unknown(model, text)):
        count = format_count(skipped, "unknown character")
        click.echo(f"charrnn: skipped {count} in the prime", err=True)
    echo = "" if no_echo else text if isinstance(text, str) else text.decode("latin-1")
    TextWriter(out, model).write_texts(pieces, num_samples, echo, null)


def to_bytes(argument: str) -> bytes:
    return argument.encode("utf-8", "surrogateescape")


def to_model_text(model: Model, data: bytes, name: str) -> str | bytes:
    """Return bytes for a byte model, otherwise the text that they encode. Raises TextError."""
    from charrnn.text.files import decode_bytes

    return data if model.unit == "byte" else decode_bytes(data, name)


def count_unknown(model: Model, text: str | bytes) -> int:
    """Return how many characters of a text are not in the model's vocabulary."""
    from charrnn.text import units

    v = model.vocabulary
    _, _, is_unknown = v.lookup(units.to_codes(text, v.unit))
    return int(is_unknown.sum())


class TextWriter:
    """Writes generated texts: the first as it is generated, the others after it."""

    def __init__(self, out: BinaryIO, model: Model) -> None:
        self.out, self.by_line, self.last = out, model.documents == "line", ""
        self.encoding = "latin-1" if model.unit == "byte" else "utf-8"

    def write(self, text: str) -> None:
        self.last = text[-1:] or self.last
        self.out.write(text.encode(self.encoding, "surrogatepass"))
        self.out.flush()

    def write_texts(
        self, pieces: Iterator[tuple[str, ...]], num_samples: int, echo: str, null: bool
    ) -> None:
        """Write the texts, each after ``echo``, separated by an empty line or with ``null`` by NUL.

        A model of lines ends each text with a newline: one that was cut gets it, too.
        """
        end = "\n" if self.by_line and not null else ""
        separator = "\0" if null else "" if self.by_line else "\n\n"
        others = [[echo] for _ in range(num_samples - 1)]
        self.write(echo)
        for first, *rest in pieces:
            self.write(self.without_newline(first))
            for text, piece in zip(others, rest, strict=True):
                text.append(piece)
        self.write(end)
        for text in others:
            self.write(separator + self.without_newline("".join(text)) + end)
        if sys.stdout.isatty() and self.last != "\n":
            self.write("\n")

    def without_newline(self, text: str) -> str:
        return text.removesuffix("\n") if self.by_line else text
