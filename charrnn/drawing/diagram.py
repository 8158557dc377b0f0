"""The "hello" diagram: a network that reads a short text, as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from charrnn.analysis.trace import Trace
from charrnn.arrays import Array
from charrnn.drawing.highlight import escape_inline, read_resource, render_page

MAX_SHOWN = 16  # numbers in a box; of a longer vector the largest
LARGEST = 6


def render_diagram(
    title: str, trace: Trace, symbols: Sequence[str], names: Sequence[str], backward: bool
) -> str:
    """Return the page: a column per step, from the input at the bottom to the target on top."""
    columns = "".join(_column(trace, t, symbols, names, backward) for t in range(len(trace.ids)))
    legend = (
        "<p>Each column is a step: the one-hot input at the bottom, the hidden state above it, the "
        "scores on top with the probabilities next to them; the target is <b>green</b>. The arrows "
        "to the right are the recurrence.</p>"
    )
    gradients = "<p>Numbers in italics are gradients of the summed loss.</p>" if backward else ""
    body = f'{legend}{gradients}\n<div class="diagram" tabindex="0">\n{columns}</div>'
    return render_page(title, body, read_resource("diagram.css"))


def _column(
    trace: Trace, t: int, symbols: Sequence[str], names: Sequence[str], backward: bool
) -> str:
    target, indices = int(trace.targets[t]), [str(i) for i in range(trace.states.shape[-1])]
    loss = f"loss {trace.loss[t]:.3f}" if target >= 0 else "&nbsp;"
    goal = f"target {_quote(symbols[target])}" if target >= 0 else "no target"

    # from the top: target, scores, layers, input
    parts = [f"<p><b>{goal}</b><br>{loss}</p>"]
    values = [trace.scores[t], trace.p[t], *([trace.dy[t]] if backward else [])]
    heads = ["scores", "p", *(["dy"] if backward else [])]
    parts.append(_box("output", heads, values, symbols, target))
    for layer in reversed(range(len(trace.states))):
        values = list(trace.states[layer, :, t])
        heads = list(names)
        if backward:
            values += list(trace.dstates[layer, :, t])
            heads += [f"d{name}" for name in names]
        parts.append('<p class="up">&uarr;</p>')
        parts.append(_box("hidden", heads, values, indices, -1))
    one_hot = [float(i == trace.ids[t]) for i in range(len(symbols))]
    parts.append('<p class="up">&uarr;</p>')
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
) -> str:
    """Return a table with a column per vector; of many rows those with the largest numbers."""
    n = len(vectors[0])
    shown = list(range(n))
    if n > MAX_SHOWN:
        ranked = sorted(shown, key=lambda i: -abs(float(vectors[min(1, len(vectors) - 1)][i])))
        shown = sorted({*ranked[:LARGEST], *([target] if target >= 0 else [])})
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = ""
    for i in shown:
        mark = ' class="target"' if i == target else ""
        cells = "".join(
            f"<td{' class=gradient' if name[0] == 'd' else ''}>{float(v[i]):.{digits}f}</td>"
            for name, v in zip(heads, vectors, strict=True)
        )
        body += f"<tr{mark}><th>{escape_inline(labels[i])}</th>{cells}</tr>"
    return f'<table class="{kind}"><tr><th></th>{head}</tr>{body}</table>'


def _quote(symbol: str) -> str:
    return f"<code>{escape(symbol)}</code>"
