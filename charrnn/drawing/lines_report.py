"""A report of a run that predicts labels, tags or texts: the page of ``report``, other sections."""

from __future__ import annotations

from typing import NamedTuple

from charrnn.drawing.highlight import escape_inline, read_resource, render_page
from charrnn.drawing.report import (
    head,
    problems_section,
    render_table,
    reproduction_section,
    run_facts,
)
from charrnn.storage.state import State

MAX_SHOWN_LABELS = 30  # of a confusion matrix: those of the most lines
MAX_SHOWN_CHARACTERS = 300  # of a text


class Predictions(NamedTuple):
    """What a model predicts for the lines of a split, as tables; the first row names the columns.

    The confusion matrix has a row for each true label, and no rows if there are no labels. The
    mistakes begin with the worst.
    """

    split: str
    confusion: list[list[str]]
    mistakes: list[list[str]]


def render_lines_report(state: State, found: Predictions | None, missing: str = "") -> str:
    """Return the report of a run as an HTML page, in which everything from a file is escaped.

    ``found`` is what the model predicts; without it, ``missing`` is the reason.
    """
    sections = {"Comparison with simpler methods": measures_section(state)}
    if found is None:
        reason = escape_inline(missing)
        sections["Examples"] = f"<p>Omitted because the text is unavailable: {reason}.</p>"
    else:
        if found.confusion:
            sections["Confusion matrix"] = confusion_section(found)
        sections["Most wrong"] = mistakes_section(found)
    sections["Corpus and model"] = run_facts(state)
    sections["Problems and notes"] = problems_section(state)
    sections["Reproducing this run"] = reproduction_section(state)
    body = head(state)
    for title, section in sections.items():
        body += f"<section>\n<h2>{title}</h2>\n{section}\n</section>\n"
    body += f"<script>\n{read_resource('report.js')}</script>"
    return render_page(state.corpus["name"], body, read_resource("report.css"))


def measures_section(state: State) -> str:
    """Return what was measured at the end of the run, of the model and of simpler methods."""
    if not state.measures:
        return "<p>Nothing has been measured: the run has no split for it.</p>"
    names = list(dict.fromkeys(name for row in state.measures.values() for name in row))
    rows = []
    for method, measures in state.measures.items():
        kind = ' class="model"' if method == "model" else ""
        numbers = [f"{measures[name]:.4f}" if name in measures else "" for name in names]
        width = 100 * min(max(measures.get(names[0], 0), 0), 1)
        start = f'<tr{kind}><th scope="row">{escape_inline(method)}</th>'
        rows.append((start, numbers, f'<i style="width:{width:.1f}%"></i>'))
    titles = [escape_inline(name.replace("_", " ")) for name in names]
    split = "test" if state.corpus["split_characters"]["test"] else "validation"
    return f"<p>Measured on the {split} split.</p>\n" + render_table(
        "<th>method</th>", [*titles, titles[0]], rows
    )


def confusion_section(found: Predictions) -> str:
    """Return the confusion matrix, the right predictions in bold; of many labels a part."""
    (_, *names), *rows = found.confusion
    lines = [sum(map(int, row[1:])) for row in rows]
    common = sorted(range(len(names)), key=lambda i: -lines[i])[:MAX_SHOWN_LABELS]
    shown = sorted(common)
    heads = "".join(f'<th class="number">{escape_inline(names[i])}</th>' for i in shown)
    body = ""
    for i in shown:
        cells = ""
        for j in shown:
            n = escape_inline(rows[i][1 + j]) if rows[i][1 + j] != "0" else ""
            cells += f'<td class="number">{f"<b>{n}</b>" if i == j else n}</td>'
        body += f'<tr><th scope="row">{escape_inline(names[i])}</th>{cells}</tr>\n'
    part = f" The {len(shown)} labels of the most lines, of {len(names):,}."
    return (
        f"<p>The lines of the {escape_inline(found.split)}: a row for each true label, a column "
        f"for each predicted one.{part * (len(shown) < len(names))}</p>\n"
        f'<div class="scroll"><table class="matrix">\n<thead><tr><th></th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def mistakes_section(found: Predictions) -> str:
    """Return the examples that are most wrong, the worst first."""
    titles, *rows = found.mistakes
    if not rows:
        return f"<p>None: every line of the {escape_inline(found.split)} is right.</p>"
    heads = "".join(f"<th>{escape_inline(title)}</th>" for title in titles)
    body = ""
    for row in rows:
        cells = "".join(f'<td lang="" dir="auto">{shorten(text)}</td>' for text in row)
        body += f"<tr>{cells}</tr>\n"
    return (
        f"<p>The lines of the {escape_inline(found.split)} that the model has most wrong.</p>\n"
        f'<table class="texts">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
    )


def shorten(text: str) -> str:
    """Return the beginning of a text, escaped."""
    more = "..." * (len(text) > MAX_SHOWN_CHARACTERS)
    return escape_inline(text[:MAX_SHOWN_CHARACTERS]) + more
