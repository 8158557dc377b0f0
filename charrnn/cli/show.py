"""``charrnn show``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrnn.cli.checkpoints import newest, parted
from charrnn.cli.threads import set_threads
from charrnn.errors import SaveError, TextError, UsageError, one_line, unsaved

if TYPE_CHECKING:
    from charrnn.arrays import Array
    from charrnn.model import Model

MEASURED = 100_000  # characters that --find and --gates read


@click.command()
@click.argument("paths", nargs=-1, metavar="[CHECKPOINT] FILE")
@click.option("-n", "--length", type=click.IntRange(1), default=5000, show_default=True, help="Characters, at most.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page instead, which needs no other file.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; without them a line of marks stands under each line. auto: on a terminal that has any.",
)
@click.option("--neuron", metavar="LAYER:INDEX", help="Shade by a hidden unit's activation, -1 to 1, not by bits.")
@click.option(
    "--find",
    type=click.Choice(["line-position", "indent", "depth", "quote", "comment"]),
    help="List the ten units that foretell this best, each alone, and shade by the first.",
)
@click.option("--gates", is_flag=True, help="Tell how often the gates are nearly closed or open; show no text.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw --gates too, as a picture.")
def show(
    paths: tuple[str, ...],
    length: int,
    html: Path | None,
    color: str,
    neuron: str | None,
    find: str | None,
    gates: bool,
    plot: Path | None,
) -> None:
    """Show what surprises CHECKPOINT in FILE; - is standard input.

    Bits are -log2 of the probability that the model gave to the character, from those before it. Without a checkpoint
    (a name that ends in .npz) the newest run in ./checkpoints is taken, or else the example.

    \b
      charrnn show draft.txt
      charrnn show checkpoints/play.npz draft.txt --html surprise.html
      head -5 kernel.c | charrnn show - --color always | less -R
      charrnn show kernel.c --find indent
    """  # noqa: D301
    checkpoint, files = parted(paths)
    path = checkpoint or newest()
    if len(files) != 1:
        raise UsageError(f"give one FILE to show, not {len(files)}; - is standard input")
    if (neuron is not None) + (find is not None) + gates > 1 or (gates and html):
        raise UsageError("--neuron, --find and --gates are three things to look at, and --gates has no page: give one")
    if plot and not gates:
        raise UsageError("--plot draws what --gates tells, and goes with it")
    if sys.stdout is None:  # the shell's >&-
        raise SaveError("standard output is closed")
    unit = None if neuron is None else parsed(neuron)
    set_threads(1)

    from charrnn import shades, surprise
    from charrnn.corpus import read_text
    from charrnn.model import load

    model = load(path)
    text = read_text(files[0], model.unit, model.encoding)
    if gates:
        rows, shares = open_and_closed(model, text)
        if plot:
            from charrnn import plots

            names = [f"layer {layer}, {gate}" for layer, gate in rows]
            plots.write(plots.heat(shares, names, ["under 0.1", "over 0.9"], "share of the time"), plot)
        click.echo("layer\tgate\tunder 0.1\tover 0.9")
        for (layer, gate), (under, over) in zip(rows, shares, strict=True):
            click.echo(f"{layer}\t{gate}\t{under:.3f}\t{over:.3f}")
        return
    if find is not None:
        from charrnn.neurons import rank_neurons

        best = rank_neurons(model.stack, model.vocabulary, text[:MEASURED], find, model.by)[:10]
        click.echo(f"unit\t{'balanced accuracy' if find in ('quote', 'comment') else 'R²'}, {find}")
        click.echo("\n".join(f"{layer}:{index}\t{score:.3f}" for layer, index, score in best) + "\n")
        unit = best[0][:2]
    name = "standard input" if files[0] == "-" else files[0]
    what = f"{name}, as {path} reads it" if unit is None else f"unit {unit[0]}:{unit[1]} of {path}, reading {name}"
    if html is not None:
        page = shades.page(surprise.fragment(model, text, length, unit), what)
        try:
            html.write_text(page, encoding="utf-8", newline="\n")
        except OSError as e:
            raise unsaved(html, e) from None
        click.echo(f"{html} written, {html.stat().st_size:,} bytes", err=True)
        return
    r = surprise.reading(model, text[:length])
    values, scale, bits = r.bits, shades.SURPRISE, colours(color)
    if unit:
        values, scale = surprise.activation(model, text[:length], *unit), shades.UNIT
    click.echo(f"charrnn: {one_line(what)}: {surprise.told(text, length, r.bits)}", err=True)
    click.echo(shades.legend(scale, bits), err=True, color=True)
    for line in shades.terminal(r.characters, values.tolist(), scale, bits, shutil.get_terminal_size().columns):
        sys.stdout.buffer.write(line.encode())


def parsed(neuron: str) -> tuple[int, int]:
    layer, _, index = neuron.partition(":")
    try:
        return int(layer), int(index)
    except ValueError:
        raise UsageError(f"--neuron takes LAYER:INDEX, 0:17 for instance, not {neuron!r}") from None


def open_and_closed(model: Model, text: str | bytes) -> tuple[list[tuple[int, str]], list[Array]]:
    """Return layer and gate of each row, and the shares of the time that it is under 0.1 and over 0.9, (2,)."""
    from charrnn.neurons import ends_of_documents, gate_saturation

    ids = model.vocabulary.encode(text[:MEASURED], unknown="skip")
    if not len(ids):
        raise TextError("the text holds no character that the model knows")
    ends = ends_of_documents(ids, model.vocabulary, model.by)
    shares = gate_saturation(model.stack, ids, model.vocabulary.start_id, ends)
    if not shares:
        raise UsageError("the cell of this model has no gates")
    rows = [(layer, gate) for layer in range(model.stack.num_layers) for gate in shares]
    return rows, [shares[gate][layer] for layer, gate in rows]


def colours(color: str) -> int:
    """Return the bits of the colours that standard output can show: 24, 8, 4 or none."""
    term = os.environ.get("TERM", "dumb")
    if color == "never" or (
        color == "auto" and (os.environ.get("NO_COLOR") or term == "dumb" or not sys.stdout.isatty())
    ):
        return 0
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return 24
    return 8 if "256color" in term else 4
