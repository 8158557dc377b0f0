"""Train on the splits of published results: ``python bench/published.py tinyshakespeare.txt``.

The losses are those of the network alone, in nats per character. Each split and each configuration
is that of the program named in SPLITS; what is not given there is charrnn's default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import click
from quality import charrnn, identify

SEQ_LENGTH = 50  # of char-rnn, which cuts its streams into batches of this length


class Split(NamedTuple):
    """A split, the options to train with, and the published losses of validation and test."""

    name: str
    published: str
    options: str
    streams: int = 1  # of each of which the end is for validation


SPLITS = {
    "cd": Split(
        "tensorflow-char-rnn: last 10% for validation and test; its LSTM",
        "1.4668, 1.6842",
        "--cell lstm --num-layers 2 --hidden-size 128 --seq-length 10 --batch-size 20 "
        "--learning-rate 0.002 --clip-norm 5 --max-steps 60000",
    ),
    "cr": Split(
        "char-rnn: the end of each of 50 streams; at most 240,321 parameters",
        "1.3939",
        "--test-fraction 0 --hidden-size 236 --dropout 0.1 --batch-size 32 --learning-rate 0.006 "
        "--max-steps 5000",
        streams=50,
    ),
    "ng": Split(
        "nanoGPT: last 10% for validation; any model",
        "1.4697 on a GPU",
        "--val-fraction 0.1 --test-fraction 0 --hidden-size 768 --dropout 0.2 --batch-size 32 "
        "--learning-rate 0.003 --max-steps 1960",
    ),
    "ng-defaults": Split(
        "the same, the defaults", "1.88 on a CPU", "--val-fraction 0.1 --test-fraction 0"
    ),
}


def cut_streams(text: Path, streams: int, folder: Path) -> list[str | Path]:
    """Write the first 95% and the rest of each stream; return the arguments to train on them."""
    characters = text.read_bytes().decode()
    length = len(characters) // (streams * SEQ_LENGTH) * SEQ_LENGTH
    end = int(length // SEQ_LENGTH * 0.95) * SEQ_LENGTH
    parts = [characters[i * length : (i + 1) * length] for i in range(streams)]
    files = folder / "streams-train.txt", folder / "streams-val.txt"
    for file, piece in zip(files, (slice(end), slice(end, None)), strict=True):
        file.write_bytes("".join(part[piece] for part in parts).encode())
    return [files[0], "--val-file", files[1]]


@click.command()
@click.argument("text", type=click.Path(path_type=Path))
@click.option("--only", multiple=True, type=click.Choice([*SPLITS]), help="Which splits.")
@click.option("--folder", default=Path("checkpoints"), type=click.Path(path_type=Path))
@click.option("--seed", default=0)
def main(text: Path, only: tuple[str, ...], folder: Path, seed: int) -> None:
    """Train on the splits of TEXT, a copy of tinyshakespeare, and print a table."""
    if identify(text) != "tinyshakespeare":
        raise click.BadParameter("this is not tinyshakespeare")
    folder.mkdir(exist_ok=True)
    click.echo("| split | published | validation, test | seconds |\n|---|---|---|---:|")
    for name in only or SPLITS:
        split, path = SPLITS[name], folder / f"{name}-{seed}.npz"
        files = cut_streams(text, split.streams, folder) if split.streams > 1 else [text]
        options = ["-o", path, "--force", "--quiet", "--seed", str(seed), *split.options.split()]
        charrnn("train", *files, *options)
        state = json.loads(charrnn("info", path, "--json"))
        losses = [state["best"]["val_loss"], state["test_loss"]]
        shown = ", ".join(f"{loss:.4f}" for loss in losses if loss is not None)
        seconds = f"{state['train_seconds']:.0f}"
        click.echo(f"| {split.name} | {split.published} | {shown} | {seconds} |")


if __name__ == "__main__":
    main()
