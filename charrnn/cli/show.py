from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli import common
from charrnn.cli.choice import ModelFile, model_argument
from charrnn.cli.common import Count, expand_folders, file_option, flag
from charrnn.cli.show_alignment import show_alignments
from charrnn.cli.show_picture import Shown, parse_grid, show_pictures
from charrnn.cli.streams import print_lines, print_message, stdout, supports_color
from charrnn.config import MAX_COUNT
from charrnn.errors import TextError, UsageError
from charrnn.storage.output import check_output

if TYPE_CHECKING:
    from charrnn.analysis.surprisal import Learned
    from charrnn.model import Model

MAX_PROBED_CHARACTERS = 100_000  # that --probe and --gates read
TOP_NEURONS = 10
BOOLEAN_PROPERTIES = ("quote", "comment")


def parse_neuron(value: str) -> tuple[int, int]:
    match = re.fullmatch("([0-9]+):([0-9]+)", value)
    if not match:
        raise click.BadParameter(f"{value!r} must be LAYER:INDEX, for example 0:17")
    return int(match[1]), int(match[2])


@click.command()
@common.length_option(
    type=Count(1, MAX_COUNT), default=5000, help="Maximum number of characters to show."
)
@file_option("--html", help="Write a self-contained HTML page instead.")
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
@common.mix_option(
    default=False,
    help="Mix the network with the n-grams of its training text.  [default: no-mix]",
)
@common.adapt_option
@flag(
    "--gates",
    help="Print how often each gate is nearly closed or nearly open, instead of the text.",
)
@file_option("--features", help="Of a captioner with attention: a .npy file of regions.")
@click.option("--row", type=Count(0), help="The row of the features to show, counted from 0 [0].")
@file_option("--image", help="With --html: the picture of the row; PNG, JPEG, GIF or WebP.")
@click.option(
    "--grid",
    type=parse_grid,
    metavar="ROWSxCOLUMNS",
    help="How the regions lie, row by row [a square].",
)
@common.force_option
@model_argument("[FILE]")
def show(
    model_file: ModelFile,
    files: list[str],
    length: int,
    html: Path | None,
    color: str,
    neuron: tuple[int, int] | None,
    probe: str | None,
    mix: bool,
    adapt: bool,
    gates: bool,
    features: Path | None,
    row: int | None,
    image: Path | None,
    grid: tuple[int, int] | None,
    force: bool,
) -> None:
    """Print FILE with each character highlighted by how surprising the model finds it.

    FILE may be - for standard input. Surprisal is -log2 of the character's probability given the
    characters before it, in bits.

    Of a model with attention, a heat map for each line shows which characters of the text it looks
    at (columns) while it writes what stands after the TAB, or its own answer (rows).

    Of a captioner with attention, a map of the regions of a picture for each character that it
    writes about it, or of those of its line in FILE. With --image, they are over the picture.

    \b
      charrnn show draft.txt
      charrnn show checkpoints/play.npz draft.txt --html surprisal.html
      head -5 kernel.c | charrnn show - --color always | less -R
      charrnn show kernel.c --probe indent
      charrnn show looking.npz --features regions.npy --row 7
    """  # noqa: D301
    if not files and not features:
        raise UsageError("missing text file (use - for standard input)")
    if len(files) > 1:
        raise UsageError(f"give one FILE, not {len(files)} (- for standard input)")
    if (neuron is not None) + (probe is not None) + gates > 1 or (gates and html):
        raise UsageError(
            "--neuron, --probe and --gates are mutually exclusive, "
            "and --gates cannot be combined with --html"
        )
    if mix and adapt:
        raise UsageError("--mix and --adapt are mutually exclusive: here the n-grams do not learn")
    shown = Shown(features, row, image, grid)
    shown.check(html)
    stdout()
    if html is not None:
        inputs = [*files, *(str(path) for path in (features, image) if path)]
        check_output(html, force, [model_file.path, *inputs])
    from charrnn.analysis.surprisal import Learned
    from charrnn.tasks.base import require_language_model
    from charrnn.text.files import display_name, read_text

    model = model_file.load(any_task=True)
    if model.config.attention and (neuron is not None or probe or mix or adapt or gates):
        raise UsageError("--neuron, --probe, --mix, --adapt and --gates need a language model")
    if features or model.state.features:
        how = shown, length, html, color_depth(color)
        show_pictures(model, model_file.path, files, *how)
        return
    name = display_name(files[0])
    if model.config.attention:
        title = f"{name}, attention of {model_file.path}"
        show_alignments(model, files, length, html, color_depth(color), title)
        return
    require_language_model(model.config, str(model_file.path))
    texts = [
        read_text(f, model.unit, model.encoding, model.mask) for f in expand_folders(files, model)
    ]
    text = texts[0][:0].join(texts)  # type: ignore[arg-type]  # all of one type
    if gates:
        print_lines(*format_saturation(model, text))
        return
    title = f"{name}, surprisal under {model_file.path}"
    if probe is not None:
        neuron = print_ranking(model, text, probe)
    if neuron is not None:
        title = f"hidden unit {neuron[0]}:{neuron[1]} of {model_file.path} on {name}"
    learned = Learned(
        model.static_mixture if mix else None, model.adaptive_network() if adapt else None
    )
    show_text(model, text, title, length, html, color_depth(color), neuron, learned)


def print_ranking(model: Model, text: str | bytes, probe: str) -> tuple[int, int]:
    """Print the hidden units that best predict a property; return the best one."""
    from charrnn.analysis.neurons import rank_neurons

    sample, v = text[:MAX_PROBED_CHARACTERS], model.vocabulary
    ranking = rank_neurons(model.network, v, sample, probe, model.documents)
    measure = "balanced accuracy" if probe in BOOLEAN_PROPERTIES else "R²"
    rows = [f"{layer}:{index}\t{value:.3f}" for layer, index, value in ranking[:TOP_NEURONS]]
    print_lines(f"neuron\t{measure}, {probe}", *rows, "")
    layer, index, _ = ranking[0]
    return layer, index


def show_text(
    model: Model,
    text: str | bytes,
    title: str,
    length: int,
    html: Path | None,
    depth: int,
    neuron: tuple[int, int] | None,
    learned: Learned,
) -> None:
    """Print a text highlighted by surprisal or by a hidden unit, or write it as a page."""
    from charrnn.analysis import surprisal
    from charrnn.drawing import highlight

    if html is not None:
        page = highlight.render_page(
            title, highlight.render_html(model, text, length, neuron, learned)
        )
        common.write_output(html, page.encode("utf-8", "backslashreplace"))
        return

    # the caption and the legend on stderr, the text on stdout
    scored = surprisal.score_text(model, text[:length], learned)
    values, scale = scored.bits, highlight.SURPRISAL_SCALE
    if neuron is not None:
        values = surprisal.activation(model, text[:length], *neuron)
        scale = highlight.ACTIVATION_SCALE
    caption = highlight.caption(text, length, scored.bits)
    print_message(f"charrnn: {title}: {caption}")
    sys.stderr.write(f"{highlight.render_legend(scale, depth if sys.stderr.isatty() else 0)}\n")
    how = scale, depth, shutil.get_terminal_size().columns
    for line in highlight.render_lines(scored.characters, values.tolist(), *how):
        stdout().write(line)


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


def color_depth(color: str) -> int:
    """Return the bits of the colors that standard output can show: 24, 8, 4 or 0."""
    if color == "never" or (color == "auto" and not supports_color()):
        return 0
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return 24
    return 8 if "256color" in os.environ.get("TERM", "") else 4
