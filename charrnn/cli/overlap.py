from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli import common
from charrnn.cli.choice import choose, split_arguments
from charrnn.cli.common import Count
from charrnn.cli.streams import print_lines, print_message, stdout
from charrnn.config import MAX_COUNT
from charrnn.errors import TextError, UsageError
from charrnn.formatting import format_count, loss_unit

if TYPE_CHECKING:
    from charrnn.model import Model


@click.command()
@click.argument("paths", metavar="[CHECKPOINT] CORPUS...", nargs=-1, required=True)
@click.option(
    "--sample",
    "sample_file",
    metavar="FILE",
    help="Use this text as the sample instead of generating one; - is standard input.",
)
@common.length_option(
    type=Count(1, MAX_COUNT), default=10_000, help="Number of characters to generate."
)
@common.temp_option()
@common.sample_seed_option
@click.option("--top", type=Count(0), default=5, help="Number of copied passages to list.")
@click.option(
    "--unit",
    type=click.Choice(["char", "byte"]),
    help="Unit of comparison [byte for byte models, otherwise char].",
)
@click.option("--encoding", help="Encoding of CORPUS [the model's, otherwise utf-8].")
@common.json_option(help="Print JSON; docs/memorization.md lists the keys.")
@click.pass_context
def overlap(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    sample_file: str | None,
    length: int,
    temp: float,
    seed: int | None,
    top: int,
    unit: str | None,
    encoding: str | None,
    as_json: bool,
) -> None:
    """Report which passages of a sample occur verbatim in CORPUS.

    The sample is generated from CHECKPOINT, or read with --sample. CORPUS is the training text:
    files, folders of text files, or - for standard input. The output gives the fraction of the
    sample that lies in verbatim copies of at least 20, 40 and 80 characters, and lists the
    longest copies with their positions.

    CHECKPOINT is a file, or the name of one in ./checkpoints. Without it, the newest trained
    checkpoint in ./checkpoints is used, or the bundled example.

    \b
      charrnn overlap corpus.txt
      charrnn overlap checkpoints/play.npz data/play.txt --temp 0.5
      charrnn sample | charrnn overlap --sample - corpus.txt
    """  # noqa: D301
    checkpoint, corpus = split_arguments(paths, required=False)
    if not corpus:
        raise UsageError("missing CORPUS, the training text to compare with")
    common.check_stdin_once([*corpus, sample_file])
    for name in ("length", "temp", "seed"):
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and sample_file is not None:
            raise UsageError(f"--{name} cannot be combined with --sample")
    stdout()
    from tqdm import tqdm

    from charrnn.analysis.overlap import find_overlap
    from charrnn.model import load
    from charrnn.text.corpus import Corpus
    from charrnn.text.files import decode_bytes, read_file

    # the unit and the encoding of the model, if there is one
    model_file = choose(checkpoint) if checkpoint or sample_file is None else None
    model = load(model_file.path) if model_file else None
    unit = unit or ("byte" if model and model.unit == "byte" else "char")
    if unit == "byte" and encoding:
        raise UsageError(f"unit byte cannot be combined with an encoding ({encoding})")
    encoding = encoding or (model.encoding if model else "utf-8")

    # read the corpus
    mask = model.mask if model else None
    how: dict[str, Any] = {"unit": unit, "encoding": encoding, "mask": mask}
    text = Corpus(common.default_run_name(corpus), paths=corpus, documents="file", **how)
    for note in text.notes:
        print_message(f"charrnn: {note}")
    if text.skipped:
        print_message(f"charrnn: skipped in folders: {', '.join(text.skipped)}")

    # read or generate the sample
    if sample_file is not None:
        data = read_file(sample_file, raw=unit == "byte")
    else:
        assert model
        assert model_file
        seed = secrets.randbits(32) if seed is None else seed
        model_file.announce(f"seed {seed}")
        data = generate(model, length, temp, seed)
    if not data:
        raise TextError("the sample is empty")
    name = sample_file or "the sample"
    sample = data if unit == "byte" else decode_bytes(data, name, mask=mask)

    # compare them
    with tqdm(
        total=len(text.store), unit="ch", unit_scale=True, leave=False, delay=1, disable=None
    ) as bar:
        result = find_overlap(sample, text, top, bar.update)
    result = {
        "checkpoint": model_file and str(model_file.path),
        "seed": seed,
        "unit": unit,
        **result,
    }
    if as_json:
        print_lines(*common.format_json(result, indent=2).split("\n"))
    else:
        print_lines(*format_overlap(result))


def generate(model: Model, length: int, temp: float, seed: int) -> bytes:
    """Generate ``length`` characters: several texts, if the model ends them earlier."""
    text = ""
    for k in range(length):  # a text may be empty
        text += "".join(model.sample(length - len(text), temp=temp, seed=seed + k))
        if len(text) >= length:
            break
    return text.encode("latin-1" if model.unit == "byte" else "utf-8", "surrogatepass")


def format_overlap(result: dict[str, Any]) -> list[str]:
    noun = loss_unit(result["unit"])
    sample, corpus = result["characters"], result["corpus_characters"]
    (first, fraction), *others = result["copied_fraction"].items()
    lines = [
        f"sample: {format_count(sample, noun)}; corpus: {format_count(corpus, noun)}",
        f"copied verbatim: {fraction:.1%} of the sample in passages of at least {first} {noun}s"
        + "".join(f", {fraction:.1%} of {length}" for length, fraction in others),
    ]
    for copy in result["copies"]:
        source = f"{copy['file']} line {copy['line']:,} (offset {copy['offset']:,})"
        lines.append(
            f"{format_count(copy['length'], noun)} at sample offset {copy['sample_offset']:,}, "
            f"from {source}: {copy['text']!r}"
        )
    return lines
