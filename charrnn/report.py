"""A run on one page: HTML that holds all it needs, to be put on a screen or on paper."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from charrnn import units
from charrnn.errors import CheckpointError, one_line
from charrnn.header import Header
from charrnn.model import Model
from charrnn.neurons import ends_of_documents, gate_saturation
from charrnn.surprise import fragment

TEMPS, LENGTH, SEED = (0.4, 0.7, 1.0, 1.3), 300, 0  # of the samples that are drawn for the page
LINES = 40  # of a model by line, at most
MAP, GATES = 1500, 10_000  # characters of the validation text: for the surprise map, and for the gates
POINTS, SAMPLES = 40, 24  # of a long run, spread evenly
TICKS = 5
# Hangul of letters that join, and those that stand where they join to nothing: these would be drawn over each other.
LETTERS = re.compile("[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|([\u1100-\u1112\u1161-\u1175\u11a8-\u11c2])")

# Measures of the chart are percents, so that its lines stretch with the page and its letters do not.
STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #fff; --soft: #595959; --rule: #d4d4d4; --pane: #f4f4f2;
  --train: #0072b2; --val: #b34700; --base: #595959; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e8e8e6; --back: #15171a; --soft: #abb0b6; --rule: #3c4148; --pane: #202327;
    --train: #6bb8f0; --val: #f0a060; --base: #abb0b6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--back); overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; }
h1, h2, h3, h2 + p { break-after: avoid; }
h2 { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { margin: 1rem 0 .3rem; font-size: 1rem; }
p, figcaption { max-width: 45rem; }
.lead { font-size: 1.2rem; }
pre { margin: 0; padding: .6rem .8rem; background: var(--pane); font: .9rem/1.45 ui-monospace, monospace;
  white-space: pre-wrap; }
code { font: .9em ui-monospace, monospace; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .25rem 1rem; }
dt, figcaption, th { color: var(--soft); }
dd { margin: 0; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .25rem .6rem .25rem 0; text-align: left; font-weight: normal; border-bottom: 1px solid var(--rule); }
thead th { vertical-align: bottom; }
table .n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.own :is(th, td) { color: var(--text); font-weight: bold; }
tbody th { min-width: 6rem; }
table .w { width: 45%; min-width: 5rem; padding-left: .6rem; }
.bar { display: flex; height: .9rem; background: var(--pane); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.bar i { background: var(--base); } .own .bar i { background: var(--val); }
.bar .under { background: var(--train); } .bar .over { background: var(--val); margin-left: auto; }
figure { margin: 1rem 0; break-inside: avoid; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0; padding: 0; list-style: none; }
.legend svg { overflow: visible; width: 1.8rem; height: .7rem; margin-right: .4rem; }
.chart { margin: .8rem 1.8rem 1.6rem 3rem; height: 20rem; }
.chart svg { display: block; width: 100%; height: 100%; overflow: visible; }
svg text { font-size: .8rem; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg line, svg polyline { fill: none; stroke: var(--rule); vector-effect: non-scaling-stroke; }
svg .train { stroke: var(--train); stroke-width: 2.5; fill: none; }
svg .val { stroke: var(--val); stroke-width: 2.5; stroke-dasharray: 7 4; fill: none; }
svg .base { stroke: var(--base); stroke-width: 1.5; stroke-dasharray: 2 4; }
svg circle { stroke-dasharray: none !important; }
svg circle.train, svg circle.val { fill: var(--back); stroke-width: 2; }
svg circle.best { fill: none; stroke: var(--text); stroke-width: 2; }
.point { outline: none; cursor: crosshair; }
.point rect { fill: var(--text); opacity: 0; }
.point:hover rect, .point:focus rect { opacity: .1; }
output { display: block; min-height: 3em; margin-bottom: .5rem; font-variant-numeric: tabular-nums; }
.samples { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.samples section { break-inside: avoid; min-width: 0; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } output, .screen { display: none; }
  pre { border: 1px solid var(--rule); } .chart { height: 14rem; } }
"""

SCRIPT = """
for (const name of ["mouseover", "focusin"])
  document.addEventListener(name, e => {
    const point = e.target.closest && e.target.closest(".point");
    if (point) document.getElementById("values").textContent = point.getAttribute("aria-label");
  });
"""


def page(model: Model, text: str | bytes = "", missing: str = "") -> str:
    """Return the report of a run as one HTML page, which fetches nothing.

    ``text`` is the run's validation text, of which the beginning is shown; where it is empty, ``missing`` says why. The
    samples are drawn with a fixed seed: the same run gives the same page. All that a file or a text says is escaped.

    Raises CheckpointError for an exported model, which holds no run.
    """
    h = model.header
    if h["kind"] != "run":
        raise CheckpointError("weights alone, without the run that a report tells of")
    name = quoted(h["corpus"]["name"])
    sections = {
        "The text and the model": figures(model),
        "How the loss fell": curve(h),
        "What that is worth": ladder(h),
        "From noise to words": training_samples(model),
        "The same model at four temperatures": temperatures(model),
        "What surprises the model": surprise(model, text, missing),
        "The gates": gates(model, text, missing),
        "What went wrong": trouble(h),
        "To make it again": again(h),
    }
    body = "\n".join(f"<section>\n<h2>{title}</h2>\n{section}\n</section>" for title, section in sections.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>{name}, a charrnn report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{name}</h1>\n{lead(h)}\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def quoted(text: object) -> str:
    """Return what stands in a line, with what would break the line, the page or its direction as an escape."""
    return escape(one_line(str(text)))


def verbatim(text: str, unit: str = "char") -> str:
    """Return a text as it is, lines and all; what cannot be seen is an escape.

    Of a model of bytes, whose text comes as a character for each byte, it is read as UTF-8 as far as it is that. A
    letter of Hangul that joins to nothing is shown as one that stands alone.
    """
    if unit == "byte":
        text = text.encode("latin-1").decode("utf-8", "backslashreplace")
    text = LETTERS.sub(lambda m: alone(m[1]) if m[1] else m[0], text)
    # joiners are part of how some scripts and emoji are written, and other blanks of how some texts are
    shown = (
        c if c in "\n\t\u200c\u200d" or c.isprintable() or unicodedata.category(c) == "Zs" else one_line(c)
        for c in text.replace("\r\n", "\n")
    )
    # a line's end right after <pre> does not count, so that one of the text's own does
    return f'<pre lang="" dir="auto">\n{escape("".join(shown))}</pre>'


def alone(letter: str) -> str:
    """Return the letter of Hangul that stands alone, for one that joins to others."""
    return unicodedata.lookup(f"HANGUL LETTER {unicodedata.name(letter).split()[-1]}")


def per(h: Header) -> str:
    """Return what a loss is counted for."""
    return {"byte": "byte", "jamo": "syllable"}.get(h["config"]["unit"], "character")


def both(nats: float | None) -> str:
    """Return a loss in nats and in bits."""
    return "not measured" if nats is None else f"{nats:.3f} nats ({nats / math.log(2):.3f} bits)"


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Return a list of terms, each with its value as HTML."""
    return f"<dl>\n{''.join(f'<dt>{term}</dt><dd>{value}</dd>{chr(10)}' for term, value in rows)}</dl>"


def spread(n: int, most: int) -> list[int]:
    """Return up to ``most`` places of n, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist() if n else []


def lead(h: Header) -> str:
    """Say in a sentence what the run is."""
    c, k, best = h["config"], h["corpus"], h["best"]["val_loss"]
    what = {"gru": "GRU", "lstm": "LSTM"}.get(c["cell"], "vanilla recurrent")
    told = f"A {what} network of {c['num_layers']} &times; {c['hidden_size']} units read {quoted(k['name'])}, "
    told += f"one {'letter' if c['unit'] == 'jamo' else per(h)} at a time, for {h['step']:,} steps"
    if best is not None:
        told += f", and came to a loss of {best:.3f} nats per {per(h)} on text that it had not seen"
        if h["ladder"]:
            count = min(h["ladder"], key=h["ladder"].__getitem__)
            told += f"; the best of the counts beside it, {quoted(count)}, has {h['ladder'][count]:.3f}"
    return f'<p class="lead">{told}.</p>'


def figures(model: Model) -> str:
    """Tell of the text and the model in figures."""
    h = model.header
    c, k, w, plan, parts = h["config"], h["corpus"], h["windows"], h["plans"][-1], h["corpus"]["parts"]
    V, unit = h["vocabulary"]["size"], "bytes" if c["unit"] == "byte" else "characters"
    uniform = math.log(V) * k["symbols"] / max(k["characters"], 1)
    rows = [
        ("files", "<br>".join(quoted(name) for name, *_ in k["files"])),
        ("length", f"{k['characters']:,} {unit}, {k['bytes']:,} bytes" if unit != "bytes" else f"{k['bytes']:,} bytes"),
        ("parts", f"{parts['train']:,} to train on, {parts['val']:,} to validate, {parts['test']:,} to test"),
        ("symbols", f"{V:,} distinct" + (", letters of Hangul one by one" if c["unit"] == "jamo" else "")),
        ("read", f"{c['by']} by {c['by']}, each begun afresh" if c["by"] else "as one text"),
        ("model", f"{c['cell']}, {c['num_layers']} &times; {c['hidden_size']} units, {h['parameters']:,} parameters"),
        ("windows", f"{w['lanes']} lanes side by side, {w['length']} steps, {w['per_epoch']:,} to an epoch"),
        ("optimizer", f"{c['optimizer']}, learning rate {c['learning_rate']:g}, {c['schedule']}"),
        ("dropout", f"{c['dropout']:g}" if c["dropout"] else "none"),
        ("steps", f"{h['step']:,} of {plan['steps']:,}, {h['epoch']:.2f} epochs, {h['seconds']:,.0f} seconds"),
        ("first loss", f"{both(h['first_loss'])}; of a uniform guess it is {uniform:.3f}"),
        ("best validation loss", both(h["best"]["val_loss"]) + f", step {h['best']['step']:,}"),
        ("test loss", both(h["test_loss"])),
    ]
    return pairs(rows) + f"\n<p>Losses are for each {per(h)}.</p>"


def curve(h: Header) -> str:
    """Draw the losses over the steps."""
    history = h["history"]
    losses = [row[name] for row in history for name in ("train_loss", "val_loss") if row[name] is not None]
    if not losses:
        return "<p>No loss has been measured yet.</p>"
    count = min(h["ladder"], key=h["ladder"].__getitem__, default=None)
    base = [] if count is None else [h["ladder"][count]]
    ys, xs = (
        ticks(min(losses + base), max(losses + base)),
        ticks(0, history[-1]["step"], whole=True),
    )
    low, high, end = ys[0], ys[-1], int(history[-1]["step"])

    def x(step: int) -> float:
        return 100.0 * step / end

    def y(loss: float) -> float:
        return 100.0 * (high - loss) / (high - low)

    svg = [f'<line x2="100%" y1="{y(t):.2f}%" y2="{y(t):.2f}%"/>' for t in ys]
    svg += [f'<text x="-8" y="{y(t):.2f}%" dy=".3em" text-anchor="end">{t:g}</text>' for t in ys]
    svg += [
        f'<text x="{100 * t / end:.2f}%" y="100%" dy="1.4em" text-anchor="middle">{t:,.0f}</text>'
        for t in xs
        if t <= end
    ]
    svg += [f'<line class="base" x2="100%" y1="{y(t):.2f}%" y2="{y(t):.2f}%"/>' for t in base]
    svg.append('<svg viewBox="0 0 100 100" preserveAspectRatio="none">')
    legend = []
    for name, label in (("train", "training"), ("val", "validation")):
        rows = [(row["step"], row[f"{name}_loss"]) for row in history]
        drawn = [row for row in rows if row[1] is not None]
        if drawn:
            legend.append(f'<svg aria-hidden="true"><line class="{name}" x2="100%" y1="50%" y2="50%"/></svg>{label}')
        points: list[str] = []
        for step, loss in [*rows, (0, None)]:  # a loss that was not measured leaves a gap
            if loss is not None:
                points.append(f"{x(step):.3f},{y(loss):.3f}")
            elif points:
                svg.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
                points = []
    svg.append("</svg>")
    chosen = spread(len(history), POINTS)
    chosen = sorted({*chosen, *(i for i, row in enumerate(history) if row["step"] == h["best"]["step"])})
    at = [x(history[i]["step"]) for i in chosen]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(at)), 100.0]
    told = ""
    for i, (left, right) in zip(chosen, pairwise(edges), strict=True):
        row = history[i]
        best = row["step"] == h["best"]["step"] and row["val_loss"] is not None
        values = f"Step {row['step']:,}: training {both(row['train_loss'])}, validation {both(row['val_loss'])}"
        values += " (best)" if best else ""
        told = values if best or not told else told
        svg.append(
            f'<g class="point" tabindex="0" role="img" aria-label="{values}">'
            f'<rect x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>'
        )
        for name in ("train", "val"):
            if row[f"{name}_loss"] is not None:
                where = f'cx="{x(row["step"]):.2f}%" cy="{y(row[f"{name}_loss"]):.2f}%"'
                svg.append(f'<circle class="{name}" {where} r="3"/>')
                svg += [f'<circle class="best" {where} r="7"/>'] * (best and name == "val")
        svg.append("</g>")
    if h["best"]["val_loss"] is not None:
        legend.append('<svg aria-hidden="true"><circle class="best" cx="50%" cy="50%" r="5" /></svg>best')
    if count is not None:
        line = '<svg aria-hidden="true"><line class="base" x2="100%" y1="50%" y2="50%"/></svg>'
        legend.append(f"{line}{quoted(count)}, {base[0]:.3f}")
    return (
        f'<figure>\n<ul class="legend">{"".join(f"<li>{item}</li>" for item in legend)}</ul>\n'
        f'<div class="chart"><svg role="group" aria-label="Loss over the steps">\n{chr(10).join(svg)}\n</svg></div>\n'
        f'<output id="values">{told}</output>\n'
        f'<figcaption>Nats per {per(h)} over the steps of training. <span class="screen">Point at a step, or go from '
        "one to the next with Tab, for its values. </span>Where training goes on falling and validation does not, the "
        "model learns its text by heart.</figcaption>\n</figure>"
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return some round numbers from at most ``low`` to at least ``high``."""
    about = max(high - low, abs(high) * 1e-3, 1e-9) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(about))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= about * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def ladder(h: Header) -> str:
    """Set the model's loss beside those of counts."""
    if not h["ladder"]:
        return "<p>The run has no validation part, so there is nothing to hold its loss against.</p>"
    rows = [(quoted(name), loss, h["ladder_test"].get(name), "") for name, loss in h["ladder"].items()]
    if h["best"]["val_loss"] is not None:
        rows.append(("this model", h["best"]["val_loss"], h["test_loss"], ' class="own"'))
    rows.sort(key=lambda row: -row[1])
    most = max(rows[0][1], 1e-9)
    table = "\n".join(
        f'<tr{own}><th scope="row">{name}</th><td class="n">{loss:.3f}</td><td class="n">{loss / math.log(2):.3f}</td>'
        f'<td class="n">{"" if test is None else f"{test:.3f}"}</td>'
        f'<td class="w"><div class="bar"><i style="width:{100 * loss / most:.1f}%"></i></div></td></tr>'
        for name, loss, test, own in rows
    )
    return (
        f"<p>The validation loss per {per(h)} in nats and bits, and the test loss in nats, beside those of a uniform "
        "guess and of counts of so many characters in a row. A model that is worse than the best of them has learned "
        'little.</p>\n<table>\n<thead><tr><th>foretold by</th><th class="n">nats</th><th class="n">bits</th>'
        '<th class="n">test</th><th class="w">less is better</th></tr></thead>\n'
        f"<tbody>\n{table}\n</tbody>\n</table>"
    )


def training_samples(model: Model) -> str:
    """Show the samples that training drew, in order."""
    h = model.header
    if not h["samples"]:
        return "<p>No sample was drawn in training.</p>"
    losses = {row["step"]: row["val_loss"] for row in h["history"]}
    chosen = [h["samples"][i] for i in spread(len(h["samples"]), SAMPLES)]
    drawn = "\n".join(
        f"<section>\n<h3>Step {s['step']:,}"
        + (f", validation loss {losses[s['step']]:.3f}" if losses.get(s["step"]) is not None else "")
        + f"</h3>\n{verbatim(s['text'].removesuffix(chr(10)), model.unit)}\n</section>"
        for s in chosen
    )
    fewer = f", {len(chosen)} of {len(h['samples']):,}" if len(chosen) < len(h["samples"]) else ""
    return f"<p>What it wrote while it learned, in order{fewer}.</p>\n{drawn}"


def temperatures(model: Model) -> str:
    """Show a sample at each of four temperatures."""
    drawn = "\n".join(
        f"<section>\n<h3>Temperature {temp}</h3>\n{verbatim(sampled(model, temp), model.unit)}\n</section>"
        for temp in TEMPS
    )
    return (
        f"<p>The lower the temperature, the safer the choice; at 1 the model draws as it has learned. Drawn with seed "
        f'{SEED}, {LENGTH} {per(model.header)}s at most.</p>\n<div class="samples">\n{drawn}\n</div>'
    )


def sampled(model: Model, temp: float) -> str:
    """Return a sample of 300 characters at most; of a model by line, as many lines as fit."""
    n = LINES if model.by == "line" else 1
    drawn = ["".join(pieces) for pieces in zip(*model.samples(n, LENGTH, seed=SEED, temp=temp), strict=True)]
    lines = (line if line.endswith("\n") or n == 1 else line + "\n" for line in drawn)
    return "".join(lines)[:LENGTH].removesuffix("\n")


def surprise(model: Model, text: str | bytes, missing: str) -> str:
    """Colour the beginning of the validation text by how much each character surprises the model."""
    if not text:
        return absent(missing)
    what = "The beginning of the validation text, which the model has not learned from."
    return f"<p>{what}</p>\n{fragment(model, text[:MAP])}"


def absent(missing: str) -> str:
    """Say why there is no validation text to show."""
    return f"<p>Left out, for want of the validation text: {quoted(missing or 'the run has none')}.</p>"


def gates(model: Model, text: str | bytes, missing: str) -> str:
    """Show how much of the time gates are almost shut or almost open."""
    if not text:
        return absent(missing)
    v = model.vocabulary
    ids = v.table(units.encode(text[:GATES], v.unit))
    ids = ids[ids >= 0]
    shares = gate_saturation(model.stack, ids, v.start_id, ends_of_documents(ids, v, model.by))
    if not shares:
        return "<p>A vanilla network has no gates.</p>"
    rows = [
        f'<tr><th scope="row">{layer}</th><td>{name}</td><td class="n">{under:.1%}</td>'
        f'<td class="n">{over:.1%}</td><td class="w"><div class="bar"><i class="under" style="width:{under:.1%}"></i>'
        f'<i class="over" style="width:{over:.1%}"></i></div></td></tr>'
        for name, share in shares.items()
        for layer, (under, over) in enumerate(share.tolist())
    ]
    return (
        f"<p>The share of the time that a gate is under 0.1, almost shut, and over 0.9, almost open: the mean of a "
        f"layer's units, over {len(ids):,} symbols of the validation text (Karpathy, Johnson and Li, 2015).</p>\n"
        '<table>\n<thead><tr><th>layer</th><th>gate</th><th class="n">&lt; 0.1</th><th class="n">&gt; 0.9</th>'
        f'<th class="w">shut from the left, open from the right</th></tr></thead>\n<tbody>\n{chr(10).join(rows)}\n'
        "</tbody>\n</table>"
    )


def trouble(h: Header) -> str:
    """Tell what was not finite, and what was said at the start."""
    told = [] if h["finished"] else [f"stopped at step {h['step']:,} of {h['plans'][-1]['steps']:,}"]
    for t in h["trouble"]:
        back = "the best weights came back" if t["restored"] else "this window was left out"
        told.append(f"step {t['step']:,}: {quoted(t['what'])}; {back}, and the learning rate was halved")
    wrong = listed(told) or "<p>Nothing: the run is finished, and every loss and gradient was finite.</p>"
    return wrong + (f"\n<h3>Notes</h3>\n{listed([quoted(note) for note in h['notes']])}" if h["notes"] else "")


def listed(items: Sequence[str]) -> str:
    """Return a list, or nothing where there are no items."""
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def again(h: Header) -> str:
    """Tell what the run depends on."""
    k = h["corpus"]
    rows: list[tuple[str, Any]] = [
        ("seed", h["config"]["seed"]),
        ("threads", h["threads"]),
        ("versions", quoted(f"charrnn {h['charrnn']}, NumPy {h['numpy']}, Python {h['python']}")),
        ("text, SHA-256", f"<code>{quoted(k['sha256'])}</code>"),
    ]
    if k["val_files"]:
        rows.append(("validation text", quoted(", ".join(k["val_files"]))))
        rows.append(("its SHA-256", f"<code>{quoted(k['val_sha256'])}</code>"))
    if h["init_from"]:
        rows.append(("began with", quoted(h["init_from"]["file"])))
    rows += [("a longer plan", f"from step {p['from_step']:,}, to {p['steps']:,}") for p in h["plans"][1:]]
    command = verbatim(one_line(h["command"])) if h["command"] else "<p>It was trained from Python, by no command.</p>"
    return (
        f"{command}\n{pairs(rows)}\n<p>The same command, text, number of threads and NumPy give the same weights on "
        "the same machine, bit for bit.</p>"
    )
