from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli.choice import choose, find_checkpoint
from charrnn.cli.common import (
    file_option,
    flag,
    force_option,
    format_json,
    json_option,
    write_output,
)
from charrnn.cli.streams import print_lines, stdout
from charrnn.errors import UsageError
from charrnn.storage.output import check_output

if TYPE_CHECKING:
    from charrnn.analysis.trace import Trace
    from charrnn.arrays import Array
    from charrnn.cells.base import Cell

MAX_SHOWN = 16  # numbers of a vector; of a longer one the largest
LARGEST = 5  # of a longer one
PER_LINE, LABEL_WIDTH, NUMBER_WIDTH = 8, 14, 8  # of a terminal of 80 columns


@click.command()
@click.argument("arguments", metavar="[CHECKPOINT] TEXT", nargs=-1, required=True)
@flag("--backward", help="Show the gradients that flow back, too: dy, dh and da.")
@json_option(help="Print one JSON object per step.")
@file_option("--html", help="Write the diagram as an HTML page.")
@force_option
def trace(
    arguments: tuple[str, ...],
    backward: bool,
    as_json: bool,
    html: Path | None,
    force: bool,
) -> None:
    """Print every number of a model while it reads TEXT.

    For each character: its one-hot vector, the hidden state of each layer, the scores and
    probabilities of all symbols, the target (the next character) and its loss in nats. The model
    starts from the zero state, and the last character has no target. Of a vector of more than 16
    numbers only the largest are shown. Default: the newest trained checkpoint in ./checkpoints.

    \b
      charrnn trace hello hell
      charrnn trace hello hell --backward --html hello.html
    """  # noqa: D301
    if len(arguments) > 2:
        raise UsageError("give one TEXT; one of several words needs quotes")
    if as_json and html is not None:
        raise UsageError("--json and --html are mutually exclusive")
    *checkpoint, text = arguments
    model_file = choose(find_checkpoint(checkpoint[0]) if checkpoint else None)
    if html is not None:
        check_output(html, force, [model_file.path])
    stdout()
    from charrnn.analysis import trace as analysis
    from charrnn.drawing.highlight import symbol_labels
    from charrnn.text.masks import mask_text

    model = model_file.load()
    source = text.encode("utf-8", "surrogateescape") if model.unit == "byte" else text
    source = mask_text(source, model.mask)
    ids = model.vocabulary.encode(source, advice="leave it out of TEXT")
    result, cell = analysis.trace(model.network, ids), model.network.cell
    symbols = symbol_labels(model.vocabulary)
    if html is not None:
        from charrnn.drawing.diagram import render_diagram

        page = render_diagram(f"{text} in {model_file.path.name}", result, symbols, cell, backward)
        write_output(html, page.encode("utf-8", "backslashreplace"))
    elif as_json:
        print_lines(*(format_json(row) for row in rows(result, symbols, cell, backward)))
    else:
        for t in range(len(result.ids)):
            print_lines(*format_step(result, t, symbols, cell, backward))


def rows(
    trace: Trace, symbols: list[str], cell: Cell[Any], backward: bool
) -> Iterator[dict[str, Any]]:
    """Yield what JSON shows of each step; of the states a list of layers."""
    names = list(enumerate(cell.STATE_NAMES))
    for t, target in enumerate(trace.targets.tolist()):
        row: dict[str, Any] = {"step": t + 1, "input": symbols[trace.ids[t]], "symbols": symbols}
        row["x"] = [int(i == trace.ids[t]) for i in range(len(symbols))]
        row |= {name: trace.states[:, s, t].tolist() for s, name in names}
        row |= {"scores": trace.scores[t].tolist(), "p": trace.p[t].tolist()}
        row["target"] = symbols[target] if target >= 0 else None
        row["loss"] = trace.loss[t] if target >= 0 else None
        if backward:
            row["dy"] = trace.dy[t].tolist()
            row |= {f"d{name}": trace.dstates[:, s, t].tolist() for s, name in names}
            row["da"] = trace.da[:, t].tolist()
        yield row


def format_step(
    trace: Trace, t: int, symbols: list[str], cell: Cell[Any], backward: bool
) -> Iterator[str]:
    """Yield the lines of a step."""
    V, target, is_last = len(symbols), int(trace.targets[t]), trace.targets[t] < 0
    layers = range(len(trace.states))

    def name_of(state: str, layer: int) -> str:
        return f"{state} layer {layer}" if len(layers) > 1 else state

    yield f"step {t + 1}: input {symbols[trace.ids[t]]!r}"
    yield from format_vector("x", [float(i == trace.ids[t]) for i in range(V)], symbols, digits=0)
    for layer in layers:
        for s, state in enumerate(cell.STATE_NAMES):
            yield from format_vector(name_of(state, layer), trace.states[layer, s, t])
    yield from format_vector("scores", trace.scores[t], symbols)
    yield from format_vector("p", trace.p[t], symbols)
    if is_last:
        best = int(trace.p[t].argmax())
        yield f"  no target; the most likely symbol is {symbols[best]!r}, p {trace.p[t, best]:.3f}"
    else:
        yield (
            f"  target {symbols[target]!r}, p {trace.p[t, target]:.3f}, "
            f"loss -ln p = {trace.loss[t]:.3f}"
        )
    if backward:
        yield from format_vector("dy", trace.dy[t], symbols)
        for layer in reversed(layers):
            for s, state in enumerate(cell.STATE_NAMES):
                yield from format_vector(f"d{name_of(state, layer)}", trace.dstates[layer, s, t])
            blocks = trace.da[layer, t].reshape(len(cell.BLOCK_NAMES), -1)
            for block, da in zip(cell.BLOCK_NAMES, blocks, strict=True):
                yield from format_vector(name_of(f"da {block}".strip(), layer), da)
    yield ""


def format_vector(
    name: str, values: Array | list[float], labels: list[str] | None = None, digits: int = 3
) -> Iterator[str]:
    """Yield the lines of a vector: its numbers below their labels, or the largest of many."""
    numbers = [round(float(value), digits) + 0.0 for value in values]  # no -0.000
    labels = labels or [str(i) for i in range(len(numbers))]
    if len(numbers) > MAX_SHOWN:
        largest = sorted(range(len(numbers)), key=lambda i: -abs(numbers[i]))[:LARGEST]
        shown = "  ".join(f"{labels[i]} {numbers[i]:.{digits}f}" for i in largest)
        yield f"  {name:<{LABEL_WIDTH - 2}}{shown}  ..."
        return
    for start in range(0, len(numbers), PER_LINE):
        cells = numbers[start : start + PER_LINE]
        heads = labels[start : start + PER_LINE]
        yield f"{'':<{LABEL_WIDTH}}" + "".join(head.rjust(NUMBER_WIDTH) for head in heads)
        shown = "".join(f"{x:.{digits}f}".rjust(NUMBER_WIDTH) for x in cells)
        yield f"  {name if not start else '':<{LABEL_WIDTH - 2}}{shown}"
