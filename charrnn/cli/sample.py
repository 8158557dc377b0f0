"""``charrnn sample``."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import click

from charrnn.cli.checkpoints import newest
from charrnn.cli.threads import set_threads
from charrnn.errors import SaveError, UsageError


@click.command()
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("-t", "--temp", "--temperature", default=1.0, show_default=True, help="0 takes the likeliest.")
@click.option("-n", "--length", type=click.IntRange(0), default=2000, show_default=True, help="New characters.")
@click.option("-p", "--prime", default="", help="Text to begin with.")
@click.option("--prime-file", help="The same from a file, exactly as it is; - is standard input.")
@click.option("--top-k", type=click.IntRange(1), help="Draw from the k likeliest characters only.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Draw from the likeliest of this share.")
@click.option("--seed", type=click.IntRange(0), help="The same seed, the same text [a new one each time].")
@click.option("--until", metavar="STRING", help="Stop when this has been written.")
@click.option("--num-samples", type=click.IntRange(1), default=1, show_default=True, help="Texts, as one batch.")
@click.option("-0", "--null", is_flag=True, help="Put NUL between them, not an empty line.")
@click.option("--no-echo", is_flag=True, help="Leave the prime out of the output.")
@click.option("--last", is_flag=True, help="Use the last weights, not the best.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What to do with characters of the prime that the model does not know.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads for a single product: two help a model of 512 units or more.",
)
def sample(
    checkpoint: Path | None,
    temp: float,
    length: int,
    prime: str,
    prime_file: str | None,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    until: str | None,
    num_samples: int,
    null: bool,
    no_echo: bool,
    last: bool,
    unknown: str,
    threads: int,
) -> None:
    """Write text from CHECKPOINT.

    Without one the newest run in ./checkpoints is taken, or else the example that comes with charrnn.

    \b
      charrnn sample --temp 0.8 --length 500
      charrnn sample checkpoints/play.npz --prime 'ORSELLA:' --until 'MERIEL:'
      head -20 draft.txt | charrnn sample --prime-file - --seed 7
    """  # noqa: D301
    if prime_file is not None and prime:
        raise UsageError("--prime and --prime-file are two ways to say the same: give one of them")
    if sys.stdout is None:  # the shell's >&-
        raise SaveError("standard output is closed")
    set_threads(threads)

    from charrnn import units
    from charrnn.corpus import decode, read_file
    from charrnn.model import load

    data = read_file(prime_file) if prime_file is not None else prime.encode("utf-8", "surrogateescape")
    path = checkpoint or newest()
    model = load(path, last=last)
    v, by_line = model.vocabulary, model.by == "line"
    begin = data if v.unit == "byte" else decode(data, prime_file or "--prime")
    stop: str | bytes | None = until  # in a locale that is not UTF-8 its bytes come in as they are
    if until is not None:
        stop = until.encode("utf-8", "surrogateescape")
        stop = stop if v.unit == "byte" else decode(stop, "--until")
    seed = secrets.randbits(32) if seed is None else seed
    steps = model.samples(
        num_samples,
        length,
        seed=seed,
        prime=begin,
        unknown=unknown,
        temp=temp,
        top_k=top_k,
        top_p=top_p,
        until=stop,
    )
    click.echo(f"charrnn: {path}, seed {seed}", err=True)
    if unknown == "skip":
        read = v.codes[v.encode(begin, unknown="skip")]
        if left_out := units.begins(units.encode(begin, v.unit)).sum() - units.begins(read).sum():
            click.echo(f"charrnn: left out {left_out} characters of the prime that the model does not know", err=True)
    echo = "" if no_echo else begin if isinstance(begin, str) else begin.decode("latin-1")
    out = sys.stdout.buffer
    last_written = ""

    def write(text: str) -> None:
        nonlocal last_written
        last_written = text[-1:] or last_written
        out.write(text.encode("latin-1") if v.unit == "byte" else text.encode("utf-8", "surrogatepass"))
        out.flush()

    # a line ends itself, unless it was cut, or NUL takes the place of its end
    between = "\0" if null else "" if by_line else "\n\n"

    def ended(text: str) -> str:
        if not by_line:
            return text
        return text.removesuffix("\n") if null else text + "\n" * (not text.endswith("\n"))

    write(echo)
    drawn: list[list[str]] = [[echo] for _ in range(num_samples)]
    for pieces in steps:
        for text, piece in zip(drawn, pieces, strict=True):
            text.append(piece)
        write(pieces[0].removesuffix("\n") if by_line else pieces[0])
    if by_line and not null:
        write("\n")
    for text in drawn[1:]:
        write(between)
        write(ended("".join(text)))
    if sys.stdout.isatty() and last_written != "\n":
        write("\n")
