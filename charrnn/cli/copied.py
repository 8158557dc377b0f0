"""``charrnn copied``."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli.checkpoints import name_of, newest, parted
from charrnn.cli.threads import set_threads
from charrnn.errors import TextError, UsageError, one_line

if TYPE_CHECKING:
    from charrnn.model import Model


@click.command()
@click.argument("paths", metavar="[CHECKPOINT] CORPUS...", nargs=-1, required=True)
@click.option("--sample", "file", metavar="FILE", help="Compare this text, and draw none; - is standard input.")
@click.option("-n", "--length", type=click.IntRange(1), default=10_000, show_default=True, help="Characters to draw.")
@click.option("-t", "--temp", "--temperature", default=1.0, show_default=True, help="0 takes the likeliest.")
@click.option("--seed", type=click.IntRange(0), help="The same seed, the same text [a new one each time].")
@click.option("--top", type=click.IntRange(0), default=5, show_default=True, help="How many of the pieces to list.")
@click.option("--unit", type=click.Choice(["char", "byte"]), help="What is compared [byte for a model of bytes].")
@click.option("--encoding", help="That of CORPUS [the model's, or utf-8].")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON; the README lists its keys.")
@click.pass_context
def copied(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    file: str | None,
    length: int,
    temp: float,
    seed: int | None,
    top: int,
    unit: str | None,
    encoding: str | None,
    as_json: bool,
) -> None:
    """Tell what a sample shares with CORPUS word for word.

    The sample is drawn from CHECKPOINT (what ends in .npz; without one from the newest run in ./checkpoints, or else
    the example that comes with charrnn), or is a text of your own. CORPUS is what the model was trained on: files,
    folders of text files, or - for standard input. The longest pieces that both have are listed, with where they
    stand, and what share of the sample lies in copies of 20, 40 and 80 characters or more.

    \b
      charrnn copied corpus.txt
      charrnn copied checkpoints/play.npz data/play.txt --temp 0.5
      charrnn sample | charrnn copied --sample - corpus.txt
    """  # noqa: D301
    checkpoint, corpus = parted(paths, text=False)
    if not corpus:
        raise UsageError("which text was it trained on? charrnn copied [CHECKPOINT] CORPUS...")
    if [*corpus, file].count("-") > 1:
        raise UsageError("- stands for standard input, which can be read only once")
    for name in ("length", "temp", "seed"):
        if file is not None and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name} is for a sample that is drawn, and --sample brings one")
    set_threads(1)

    from charrnn.copied import compare
    from charrnn.corpus import decode, read, read_file
    from charrnn.model import load

    path = checkpoint or (newest() if file is None else None)
    model = load(path) if path else None
    config: dict[str, Any] = model.header["config"] if model else {}
    unit = unit or ("byte" if config.get("unit") == "byte" else "char")
    if unit == "byte" and encoding:
        raise UsageError(f"bytes have no encoding: unit byte does not go with encoding {encoding}")
    encoding = encoding or config.get("encoding", "utf-8")
    text = read(corpus, name_of(corpus), unit=unit, by="file", encoding=encoding)
    for note in text.notes:
        click.echo(f"charrnn: {note}", err=True)
    if text.skipped:
        click.echo(f"charrnn: left out, not {text.encoding.upper()} text: {len(text.skipped)} files", err=True)
    if file is not None:
        data = read_file(file)
    else:
        assert model
        seed = secrets.randbits(32) if seed is None else seed
        click.echo(f"charrnn: {path}, seed {seed}", err=True)
        data = draw(model, length, temp, seed)
    if not data:
        raise TextError("the sample is empty")
    sample = data if unit == "byte" else decode(data, file or "the sample")
    found = {"checkpoint": path and str(path), "seed": seed, "unit": unit, **compare(sample, text, top)}
    click.echo(json.dumps(found, indent=2) if as_json else readable(found))


def draw(model: Model, length: int, temp: float, seed: int) -> bytes:
    """Draw so many characters: of a model by line or file, as many texts as it takes."""
    text = ""
    for k in range(length):  # a text may be empty
        text += "".join(model.sample(length - len(text), temp=temp, seed=seed + k))
        if len(text) >= length:
            break
    return text.encode("latin-1") if model.vocabulary.unit == "byte" else text.encode("utf-8", "surrogatepass")


def readable(found: dict[str, Any]) -> str:
    what = "bytes" if found["unit"] == "byte" else "characters"
    (first, share), *others = found["shares"].items()
    lines = [
        f"{found['characters']:,} {what} of the sample, {found['corpus']:,} of the corpus",
        f"in copies of {first} {what} or more: {share:.1%} of the sample"
        + "".join(f", of {length}: {share:.1%}" for length, share in others),
    ]
    for copy in found["copies"]:
        where = f"{one_line(copy['file'])}, line {copy['line']:,}, offset {copy['offset']:,}"
        lines.append(f"{copy['length']:,} {what} at {copy['at']:,}: {where}: {copy['text']!r}")
    return "\n".join(lines)
