"""``charrnn eval``."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli.checkpoints import newest, parted
from charrnn.cli.threads import set_threads
from charrnn.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from charrnn.model import Model
    from charrnn.training import Run


@click.command("eval")
@click.argument("paths", nargs=-1, metavar="[CHECKPOINT] FILE...")
@click.option("--part", type=click.Choice(["val", "test"]), help="Score this part of the run's own text, not a file.")
@click.option("--adapt", is_flag=True, help="Go on learning while reading; the model's file stays as it is.")
@click.option("--adapt-lr", type=click.FloatRange(0), default=0.1, show_default=True, help="Its learning rate.")
@click.option("--last", is_flag=True, help="Use the last weights, not the best.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each file, on a line of its own.")
def evaluate(paths: tuple[str, ...], part: str | None, adapt: bool, adapt_lr: float, last: bool, as_json: bool) -> None:
    """Tell how well CHECKPOINT foresees each FILE.

    - is standard input. Without a checkpoint (a name that ends in .npz) the newest run in ./checkpoints is taken, or
    else the example. Losses are for each character, of a model of bytes for each byte.

    \b
      charrnn eval draft.txt
      charrnn eval checkpoints/play.npz --part test
      cat data/play.txt | charrnn eval - --json
    """  # noqa: D301
    checkpoint, files = parted(paths, text=False)
    path = checkpoint or newest()
    if bool(files) == bool(part):
        raise UsageError("name a FILE (- is standard input), or give --part val or --part test")
    set_threads(1)

    from charrnn.corpus import read_text
    from charrnn.model import load

    model = load(path, last=last)
    click.echo(f"charrnn: {path}", err=True)
    rate = adapt_lr if adapt else None
    for file in files or [""]:
        if part:
            row = of_part(path, model, part, rate)
        else:
            row = of_text(model, file, read_text(file, model.unit, model.encoding), rate)
        click.echo(json.dumps(row) if as_json else readable(row))


def of_text(model: Model, name: str, text: str | bytes, adapt: float | None) -> dict[str, Any]:
    began = time.perf_counter()
    nats = model.score(text, unknown="cost", adapt=adapt)
    return figures(name, float(nats.sum()), len(nats), text, time.perf_counter() - began, {})


def of_part(path: Path, model: Model, part: str, adapt: float | None) -> dict[str, Any]:
    """Score a part as training did: to the very same loss."""
    from charrnn.training import losses

    run = trained(path, model)
    began = time.perf_counter()
    nats = losses(run, model.stack, part, adapt)
    if not len(nats):
        raise UsageError(f"{path}: the run has no {part} part")
    seconds = time.perf_counter() - began
    counts = model.header["ladder" if part == "val" else "ladder_test"]
    return figures(f"{part} part", float(nats.sum()), run.parts[part], own(run, model, part), seconds, counts)


def trained(path: Path, model: Model) -> Run:
    """Return the run of a model, if its text is still where it was and what it was. Raises CheckpointError."""
    from charrnn.corpus import read
    from charrnn.training import Run

    if model.header["kind"] != "run":
        raise CheckpointError(f"{path}: weights alone, which do not tell what they were trained on")
    corpus = model.header["corpus"]
    how: dict[str, Any] = {"unit": model.unit, "by": model.by, "encoding": model.encoding}
    names = [name for name, *_ in corpus["files"]]
    if "standard input" in names:
        raise CheckpointError(f"{path}: trained on standard input, which is gone")
    text, val = (read(paths, **how) if paths else None for paths in (names, corpus["val_files"]))
    assert text
    run = Run.restore(path, text, val=val)
    run.threads = 1
    return run


def own(run: Run, model: Model, part: str) -> str | bytes:
    """Return the text of a part."""
    text = run.vocabulary.decode(run.val if part == "val" else run.test)
    return text.encode("latin-1") if model.unit == "byte" else text


def figures(
    name: str, nats: float, characters: int, text: str | bytes, seconds: float, counts: dict[str, float]
) -> dict[str, Any]:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    each = nats / max(characters, 1)
    return {
        "file": name,
        "characters": characters,
        "bytes": len(data),
        "nats": each,
        "bits": each / math.log(2),
        "bits_per_byte": nats / math.log(2) / max(len(data), 1),
        "perplexity": math.exp(each),
        "characters_per_second": characters / seconds,
        "counts": counts,
    }


def readable(row: dict[str, Any]) -> str:
    line = (
        f"{row['file']}: {row['nats']:.4f} nats ({row['bits']:.3f} bits) per character, "
        f"{row['bits_per_byte']:.3f} bits per byte, perplexity {row['perplexity']:.2f}; "
        f"{row['characters']:,} characters, {row['characters_per_second']:,.0f} a second"
    )
    if row["counts"]:
        name = min(row["counts"], key=row["counts"].__getitem__)
        line += f"; {name} {row['counts'][name]:.3f}, model {row['nats']:.3f}"
    return line
