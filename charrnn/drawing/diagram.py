"""The "hello" diagram: a network that reads a short text, as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from charrnn.analysis.trace import Trace
from charrnn.arrays import Array
from charrnn.cells.base import Cell
from charrnn.drawing.highlight import escape_inline, read_resource, render_page

MAX_SHOWN = 16  # numbers in a box; of a longer vector the largest
LARGEST = 6


def render_diagram(
    title: str, trace: Trace, symbols: Sequence[str], cell: Cell[Any], backward: bool
) -> str:
    """Return the page: a column per step, from the input at the bottom to the target on top."""
    columns = "".join(_column(trace, t, symbols, cell, backward) for t in range(len(trace.ids)))
    legend = (
        "<p>Each column is a step: the one-hot input at the bottom, the hidden state above it, the "
        "scores on top with the probabilities next to them; the target is <b>green</b>. The arrows "
        "to the right are the recurrence.</p>"
    )
    gradients = (
        "<p>Numbers in italics are gradients of the summed loss; they flow back down and "
        "to the left.</p>"
    )
    legend += gradients if backward else ""
    kind = "diagram backward" if backward else "diagram"
    body = f'{legend}\n<div class="{kind}" tabindex="0">\n{columns}</div>'
    return render_page(title, body, read_resource("diagram.css"))


def _column(trace: Trace, t: int, symbols: Sequence[str], cell: Cell[Any], backward: bool) -> str:
    target, indices = int(trace.targets[t]), [str(i) for i in range(trace.states.shape[-1])]
    goal = "no target<br>&nbsp;"
    if target >= 0:
        goal = f"<b>target {_quote(symbols[target])}</b><br>loss {trace.loss[t]:.3f}"
    up = f'<p class="up">{"&uarr;&darr;" if backward else "&uarr;"}</p>'

    # from the top: target, scores, layers, input
    parts = [f"<p>{goal}</p>"]
    values = [trace.scores[t], trace.p[t], *([trace.dy[t]] if backward else [])]
    heads = ["scores", "p", *(["dy"] if backward else [])]
    parts.append(_box("output", heads, values, symbols, target, rank_by=1))
    for layer in reversed(range(len(trace.states))):
        values = list(trace.states[layer, :, t])
        heads = list(cell.STATE_NAMES)
        if backward:
            values += list(trace.dstates[layer, :, t])
            values += list(trace.da[layer, t].reshape(len(cell.BLOCK_NAMES), -1))
            heads += [f"d{name}" for name in cell.STATE_NAMES]
            heads += [f"da {block}".strip() for block in cell.BLOCK_NAMES]
        parts.append(up)
        parts.append(_box("hidden", heads, values, indices, -1))
    one_hot = [float(i == trace.ids[t]) for i in range(len(symbols))]
    parts.append('<p class="up">&uarr;</p>')  # x has no gradient: it is given
    parts.append(_box("input", ["x"], [one_hot], symbols, -1, digits=0))
    parts.append(f"<p>input {_quote(symbols[trace.ids[t]])}</p>")
    return f'<section class="step">\n{"".join(parts)}</section>\n'


def _box(
    kind: str,
    heads: Sequence[str],
    vectors: Sequence[Array | list[float]],
    labels: Sequence[str],
    target: int,
    digits: int = 2,
    rank_by: int = 0,
) -> str:
    """Return a table with a column per vector; of many rows those with the largest in one."""
    n = len(vectors[0])
    shown = list(range(n))
    if n > MAX_SHOWN:
        ranked = sorted(shown, key=lambda i: -abs(float(vectors[rank_by][i])))
        shown = sorted({*ranked[:LARGEST], *([target] if target >= 0 else [])})
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = ""
    for i in shown:
        mark = ' class="target"' if i == target else ""
        cells = "".join(
            f"<td{' class=gradient' if name[0] == 'd' else ''}>"
            f"{round(float(v[i]), digits) + 0.0:.{digits}f}</td>"
            for name, v in zip(heads, vectors, strict=True)
        )
        body += f"<tr{mark}><th>{escape_inline(labels[i])}</th>{cells}</tr>"
    return f'<table class="{kind}"><tr><th></th>{head}</tr>{body}</table>'


def _quote(symbol: str) -> str:
    return f"<code>{escape(symbol)}</code>"
