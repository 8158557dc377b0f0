"""``charrnn show``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.common import (
    Count,
    ModelFile,
    model_argument,
    stdout,
    supports_color,
    write_output,
)
from charrnn.errors import TextError, UsageError
from charrnn.formatting import escape_control

if TYPE_CHECKING:
    from charrnn.model import Model

MAX_PROBED_CHARACTERS = 100_000  # that --probe and --gates read
TOP_NEURONS = 10
BOOLEAN_PROPERTIES = ("quote", "comment")


def parse_neuron(value: str) -> tuple[int, int]:
    """Return layer and index of ``LAYER:INDEX``."""
    match = re.fullmatch("([0-9]+):([0-9]+)", value)
    if not match:
        raise click.BadParameter(f"{value!r} must be LAYER:INDEX, for example 0:17")
    return int(match[1]), int(match[2])


@click.command()
@click.option(
    "-n", "--length", type=Count(1), default=5000, help="Maximum number of characters to show."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a self-contained HTML page instead.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="When to use colors. Without colors, a line of marks is printed below each line. auto: "
    "on terminals that support them.",
)
@click.option(
    "--neuron",
    type=parse_neuron,
    metavar="LAYER:INDEX",
    help="Highlight by the activation of one hidden unit (-1 to 1) instead of by surprisal.",
)
@click.option(
    "--probe",
    type=click.Choice(["line-position", "indent", "depth", *BOOLEAN_PROPERTIES]),
    help="List the ten hidden units that best predict this property on their own, and highlight "
    "by the best one.",
)
@click.option(
    "--gates",
    is_flag=True,
    help="Print how often each gate is nearly closed or nearly open, instead of the text.",
)
@model_argument("FILE")
def show(
    model_file: ModelFile,
    files: list[str],
    length: int,
    html: Path | None,
    color: str,
    neuron: tuple[int, int] | None,
    probe: str | None,
    gates: bool,
) -> None:
    """Print FILE with each character highlighted by how surprising the model finds it.

    FILE may be - for standard input. Surprisal is -log2 of the character's probability given the
    characters before it, in bits.

    \b
      charrnn show draft.txt
      charrnn show checkpoints/play.npz draft.txt --html surprisal.html
      head -5 kernel.c | charrnn show - --color always | less -R
      charrnn show kernel.c --probe indent
    """  # noqa: D301
    if len(files) != 1:
        raise UsageError(f"give one FILE, not {len(files)} (- for standard input)")
    if (neuron is not None) + (probe is not None) + gates > 1 or (gates and html):
        raise UsageError(
            "--neuron, --probe and --gates are mutually exclusive, "
            "and --gates cannot be combined with --html"
        )
    out = stdout()
    from charrnn.text.files import read_text

    model = model_file.load()
    text = read_text(files[0], model.unit, model.encoding)
    if gates:
        click.echo("\n".join(format_saturation(model, text)), file=out)
        return
    if probe is not None:
        from charrnn.analysis.neurons import rank_neurons

        sample, v = text[:MAX_PROBED_CHARACTERS], model.vocabulary
        ranking = rank_neurons(model.network, v, sample, probe, model.documents)
        best = ranking[:TOP_NEURONS]
        click.echo("\n".join(format_ranking(best, probe)) + "\n", file=out)
        neuron = best[0][:2]
    name = "standard input" if files[0] == "-" else files[0]
    title = f"{name}, surprisal under {model_file.path}"
    if neuron is not None:
        title = f"hidden unit {neuron[0]}:{neuron[1]} of {model_file.path} on {name}"
    if html is not None:
        from charrnn.drawing.highlight import render_html, render_page

        write_output(html, render_page(title, render_html(model, text, length, neuron)).encode())
        return
    for line in highlight(model, text, length, neuron, title, color_depth(color)):
        out.buffer.write(line.encode())


def format_saturation(model: Model, text: str | bytes) -> Iterator[str]:
    """Yield a table of how often each gate is below 0.1 and above 0.9.

    Raises TextError if no character of the text is known, UsageError if there are no gates.
    """
    from charrnn.analysis.neurons import gate_saturation
    from charrnn.text.batches import document_ends

    v = model.vocabulary
    ids = v.encode(text[:MAX_PROBED_CHARACTERS], unknown="skip")
    if not len(ids):
        raise TextError("none of the text's characters is in the model's vocabulary")
    ends = document_ends(ids, v.separator_id(model.documents))
    fractions = gate_saturation(model.network, ids, v.start_id, ends)
    if not fractions:
        raise UsageError(f"this model's cell ({model.state.config.cell}) has no gates")
    yield "layer\tgate\tunder 0.1\tover 0.9"
    for layer in range(model.network.num_layers):
        for gate, of_layer in fractions.items():
            under, over = of_layer[layer]
            yield f"{layer}\t{gate}\t{under:.3f}\t{over:.3f}"


def format_ranking(best: Sequence[tuple[int, int, float]], probe: str) -> Iterator[str]:
    measure = "balanced accuracy" if probe in BOOLEAN_PROPERTIES else "R²"
    yield f"neuron\t{measure}, {probe}"
    for layer, index, value in best:
        yield f"{layer}:{index}\t{value:.3f}"


def highlight(
    model: Model,
    text: str | bytes,
    length: int,
    neuron: tuple[int, int] | None,
    title: str,
    depth: int,
) -> Iterator[str]:
    """Return the lines of the highlighted text; print its caption and legend on stderr."""
    from charrnn.analysis import surprisal
    from charrnn.drawing import highlight

    scored = surprisal.score_text(model, text[:length])
    values, scale = scored.bits, highlight.SURPRISAL_SCALE
    if neuron is not None:
        values, scale = (
            surprisal.activation(model, text[:length], *neuron),
            highlight.ACTIVATION_SCALE,
        )
    caption = highlight.caption(text, length, scored.bits)
    click.echo(f"charrnn: {escape_control(title)}: {caption}", err=True)
    click.echo(highlight.render_legend(scale, depth), err=True, color=True)
    columns = shutil.get_terminal_size().columns
    return highlight.render_lines(scored.characters, values.tolist(), scale, depth, columns)


def color_depth(color: str) -> int:
    """Return the bits of the colors that standard output can show: 24, 8, 4 or 0."""
    if color == "never" or (color == "auto" and not supports_color()):
        return 0
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return 24
    return 8 if "256color" in os.environ.get("TERM", "") else 4
