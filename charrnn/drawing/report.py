"""A report of a run: one self-contained HTML page, for the screen or for paper."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

from charrnn import formatting
from charrnn.analysis.neurons import gate_saturation
from charrnn.analysis.surprisal import SavedModel
from charrnn.drawing.chart import evenly_spaced, render_chart
from charrnn.drawing.figures import loss_curve
from charrnn.drawing.highlight import escape_inline, read_resource, render_html, render_page
from charrnn.errors import CheckpointError
from charrnn.formatting import escape_control, format_count, format_loss, loss_unit
from charrnn.storage.checkpoint import network_sizes
from charrnn.storage.state import State
from charrnn.text.batches import document_ends
from charrnn.text.files import display_name

HIGHLIGHT_CHARACTERS = 1500  # of the validation text
GATE_CHARACTERS = 10_000  # of the validation text
HEAD_SAMPLES, HEAD_LINES, HEAD_CHARACTERS = 4, 4, 160  # on the first screen
REPORT_SAMPLES = 24  # of those generated during training, evenly spaced
BASELINE_TITLES = ("validation,<br>nats", "validation,<br>bits", "test,<br>nats", "lower is better")
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
REPORT_SAMPLE_LENGTH = 300
REPORT_SAMPLE_LINES = 40  # of a model with one document per line
SEED = 0
NETWORK_OPTIONS = ("bidirectional", "generative", "attention")

# Conjoining jamo that form a syllable, or (the group) one that joins to nothing: a browser draws
# such jamo on top of each other.
JAMO = re.compile(
    "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|([\u1100-\u1112\u1161-\u1175\u11a8-\u11c2])"
)
ZERO_WIDTH_JOINERS = "\u200c\u200d"  # some scripts and emoji are written with them


def render_report(model: SavedModel, text: str | bytes = "", missing: str = "") -> str:
    """Return the report of a run as an HTML page.

    ``text`` is the run's validation text, whose beginning is shown; if it is empty, ``missing`` is
    the reason. Samples are generated with a fixed seed, so the same run gives the same page.
    Everything from a file or a text is escaped.

    Raises CheckpointError for an exported model, which contains no run.
    """
    state = model.state
    if not isinstance(state, State):
        raise CheckpointError("an exported model; a report needs a training checkpoint")
    reason = escape_inline(missing or "the run has no validation split")
    omitted = f"<p>Omitted because the validation text is unavailable: {reason}.</p>"
    sections = {
        "Comparison with baselines": baselines_section(state),
        "Samples at four temperatures": temperature_samples(model),
        "Surprisal per character": surprisal_section(model, text) if text else omitted,
        "Samples during training": training_samples(state),
        "Corpus and model": run_facts(state),
        "Gate saturation": gates_section(model, text) if text else omitted,
        "Problems and notes": problems_section(state),
        "Reproducing this run": reproduction_section(state),
    }
    body = head(state)
    for title, section in sections.items():
        body += f"<section>\n<h2>{title}</h2>\n{section}\n</section>\n"
    body += f"<script>\n{read_resource('report.js')}</script>"
    return render_page(state.corpus["name"], body, read_resource("report.css"))


def head_html(state: State) -> str:
    """Return the first screen of the report as an element for a notebook, without scripts."""
    page = render_page(state.corpus["name"], head(state), read_resource("report.css"))
    style = "width:100%;height:38rem;border:0"
    return f'<iframe sandbox="" style="{style}" srcdoc="{escape(page)}"></iframe>'


def head(state: State) -> str:
    """Return the first screen: the result, and samples from noise to words next to the curves."""
    samples = state.samples
    chosen = [samples[i] for i in evenly_spaced(len(samples), HEAD_SAMPLES)]
    cards = ""
    for sample in chosen:
        lines = sample["text"].removesuffix("\n")[:HEAD_CHARACTERS].split("\n")[:HEAD_LINES]
        text = preformatted("\n".join(lines), state.config.unit)
        cards += f"<section>\n<h3>Step {sample['step']:,}</h3>\n{text}\n</section>\n"
    title = "<h2>From noise to words</h2>\n" if len(chosen) > 1 else ""
    left = "" if state.task else f"<div>\n{title}{cards}</div>\n"  # tasks have no samples
    return (
        f'<p class="summary">{summary(state)}</p>\n'
        f'<div class="head">\n{left}'
        f"<div>\n<h2>Loss</h2>\n{curves_section(state)}\n</div>\n</div>\n"
    )


def preformatted(text: str, unit: str = "char") -> str:
    """Return a text as ``<pre>``, its lines and blanks unchanged and invisible characters escaped.

    With unit ``byte`` the text has a character for each byte; it is decoded where it is UTF-8.
    """
    if unit == "byte":
        text = text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")
    separate = formatting.standalone_jamo
    text = JAMO.sub(lambda match: separate(match[1]) if match[1] else match[0], text)
    shown = ""
    for c in text.replace("\r\n", "\n"):
        kept = c in f"\n\t{ZERO_WIDTH_JOINERS}" or unicodedata.category(c) == "Zs"
        shown += c if kept else escape_control(c)
    # a parser drops a newline right after <pre>: this one, so that the text keeps its own
    return f'<pre lang="" dir="auto">\n{escape(shown)}</pre>'


def definition_list(rows: Iterable[tuple[str, object]]) -> str:
    items = "\n".join(f"<dt>{term}</dt><dd>{value}</dd>" for term, value in rows)
    return f"<dl>\n{items}\n</dl>"


def bullet_list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def render_table(
    head: str, titles: Sequence[str], rows: Iterable[tuple[str, list[str], str]]
) -> str:
    """Return a table; each row is given as its first cells, its numbers and its bar."""
    heads = "".join(f'<th class="number">{title}</th>' for title in titles[:-1])
    body = ""
    for start, numbers, bar in rows:
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        body += f'{start}{cells}<td class="wide"><div class="bar">{bar}</div></td></tr>\n'
    return (
        f'<table>\n<thead><tr>{head}{heads}<th class="wide">{titles[-1]}</th></tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>"
    )


def summary(state: State) -> str:
    """Describe the run and its result in two sentences."""
    config, val_loss, baselines = state.config, state.best["val_loss"], state.baselines
    cell = {"lstm": "An LSTM", "vanilla": "A vanilla RNN"}.get(config.cell)
    layers = format_count(config.num_layers, "layer")
    sentence = (
        f"{cell or 'A ' + config.cell.upper()} with {layers} of {config.hidden_size} hidden "
        f"units, trained on {escape_inline(state.corpus['name'])} for {state.step:,} steps."
    )
    if val_loss is None:
        return sentence
    noun = loss_unit(config.unit, config.predict)
    sentence += f" Validation loss: {val_loss:.3f} nats per {noun}"
    if name := formatting.best_baseline(baselines["val"]):
        sentence += f" (best baseline: {escape_inline(name)}, {baselines['val'][name]:.3f})"
    return f"{sentence}."


def run_facts(state: State) -> str:
    config, corpus, batches = state.config, state.corpus, state.batches
    split, best, V = corpus["split_characters"], state.best, state.vocabulary["size"]
    noun, document = loss_unit(config.unit, config.predict), config.documents
    layers = format_count(config.num_layers, "layer")
    uniform = math.log(network_sizes(V, state.task)[1])
    if not state.task:
        uniform = uniform * corpus["symbols"] / max(corpus["characters"], 1)
    kinds = "".join(f", {name}" for name in NETWORK_OPTIONS if getattr(config, name))
    texts = f"one document per {document}" if document else "one continuous text"
    length = format_count(corpus["characters"], loss_unit(config.unit))
    names = [escape_inline(display_name(name)) for name, *_ in corpus["files"]]
    if corpus["num_files"] > len(names):
        names.append(f"and {corpus['num_files'] - len(names):,} more")
    rows = [
        ("files", "<br>".join(names)),
        ("length", f"{length} ({corpus['bytes']:,} bytes)"),
        ("training split", f"{split['train']:,} {noun}s"),
        ("validation split", f"{split['val']:,} {noun}s"),
        ("test split", f"{split['test']:,} {noun}s"),
        ("vocabulary", f"{V:,} symbols" + ", Hangul as jamo" * (config.unit == "jamo")),
        ("documents", "lines, each read on its own" if state.task else texts),
        ("model", f"{config.cell}, {layers} of {config.hidden_size} hidden units{kinds}"),
        ("parameters", f"{state.parameters:,}"),
        ("batch size", batches["batch_size"]),
        ("sequence length", batches["seq_length"]),
        ("optimizer", f"{config.optimizer}, learning rate {config.learning_rate:g}"),
        ("learning-rate schedule", config.lr_schedule),
        ("dropout", f"{config.dropout:g}"),
        ("steps", f"{state.step:,} of {state.plans[-1]['steps']:,}"),
        ("steps per epoch", f"{batches['steps_per_epoch']:,}"),
        ("epochs", f"{state.epoch:.2f}"),
        ("time", f"{state.train_seconds:,.0f} seconds"),
        ("initial loss", f"{format_loss(state.initial_loss)}, uniform: {uniform:.4f} nats"),
    ]
    if best["val_loss"] is not None:
        loss = format_loss(best["val_loss"])
        rows.append(("best validation loss", f"{loss}, step {best['step']:,}"))
    if state.test_loss is not None:
        rows.append(("test loss", format_loss(state.test_loss)))
    if state.mixing and state.mixing["mixed_loss"] is not None:
        rows.append(("mixed with n-grams", format_loss(state.mixing["mixed_loss"])))
        rows.append(("n-grams that learn", format_loss(state.mixing["counts_loss"])))
    return f"{definition_list(rows)}\n<p>Losses are per {noun}.</p>"


def curves_section(state: State) -> str:
    return (
        f"<figure>\n{render_chart(loss_curve('', state))}\n"
        f"<figcaption>Nats per {loss_unit(state.config.unit, state.config.predict)} at each "
        "training step. "
        '<span class="screen">Hover over a step, or use Tab, to see its values. </span>'
        "Where the training loss keeps falling but the validation loss does not, the model is "
        "overfitting.</figcaption>\n</figure>"
    )


def baselines_section(state: State) -> str:
    val, test = state.baselines["val"], state.baselines["test"]
    if not val:
        return "<p>This run has no validation split to compare with baselines.</p>"
    losses = [(escape_inline(name), val[name], test.get(name), "") for name in val]
    if state.best["val_loss"] is not None:
        losses.append(("model", state.best["val_loss"], state.test_loss, ' class="model"'))
    losses.sort(key=lambda row: -row[1])
    highest = max(losses[0][1], 1e-9)
    rows = []
    for name, loss, test_loss, kind in losses:
        numbers = [f"{loss:.3f}", f"{loss / math.log(2):.3f}"]
        numbers.append("" if test_loss is None else f"{test_loss:.3f}")
        bar = f'<i style="width:{100 * loss / highest:.1f}%"></i>'
        rows.append((f'<tr{kind}><th scope="row">{name}</th>', numbers, bar))
    return (
        f"<p>Losses per {loss_unit(state.config.unit)}, compared with a uniform guess and n-gram "
        "models. A model that does not beat the best n-gram has learned little.</p>\n"
        + render_table("<th>model</th>", BASELINE_TITLES, rows)
    )


def training_samples(state: State) -> str:
    if not (samples := state.samples):
        return "<p>No samples were generated during training.</p>"
    chosen = [samples[i] for i in evenly_spaced(len(samples), REPORT_SAMPLES)]
    count = f" ({len(chosen)} of {len(samples):,})" if len(chosen) < len(samples) else ""
    losses = {row["step"]: row["val_loss"] for row in state.history}
    section = f"<p>Samples generated during training, in order{count}.</p>\n"
    section += '<div class="samples">'
    for sample in chosen:
        loss = losses.get(sample["step"])
        title = f"Step {sample['step']:,}"
        title += "" if loss is None else f", validation loss {loss:.3f}"
        text = preformatted(sample["text"].removesuffix("\n"), state.config.unit)
        section += f"\n<section>\n<h3>{title}</h3>\n{text}\n</section>"
    return f"{section}\n</div>"


def temperature_samples(model: SavedModel) -> str:
    """Return a sample per temperature; with one document per line, as many lines as fit."""
    n = REPORT_SAMPLE_LINES if model.documents == "line" else 1
    sections = ""
    for temp in TEMPERATURES:
        pieces = model.sample_batch(n, REPORT_SAMPLE_LENGTH, seed=SEED, temp=temp)
        text = ""
        for line in map("".join, zip(*pieces, strict=True)):
            text += line if line.endswith("\n") or n == 1 else line + "\n"
        body = preformatted(text[:REPORT_SAMPLE_LENGTH].removesuffix("\n"), model.unit)
        sections += f"<section>\n<h3>Temperature {temp}</h3>\n{body}\n</section>\n"
    return (
        "<p>Lower temperatures make safer choices; 1 samples from the learned distribution. "
        f"Seed {SEED}, at most {REPORT_SAMPLE_LENGTH} {loss_unit(model.unit)}s.</p>\n"
        f'<div class="samples">\n{sections}</div>'
    )


def surprisal_section(model: SavedModel, text: str | bytes) -> str:
    beginning = "The beginning of the validation text, which was not used for training."
    return f"<p>{beginning}</p>\n{render_html(model, text[:HIGHLIGHT_CHARACTERS])}"


def gates_section(model: SavedModel, text: str | bytes) -> str:
    v = model.vocabulary
    ids = v.read(text[:GATE_CHARACTERS]).ids
    ids = ids[ids >= 0]
    ends = document_ends(ids, v.separator_id(model.documents))
    saturated = gate_saturation(model.network, ids, v.start_id, ends)
    if not saturated:
        return f"<p>This model's cell ({model.state.config.cell}) has no gates.</p>"
    rows = []
    for name, fractions in saturated.items():
        for layer, (closed, opened) in enumerate(fractions.tolist()):
            bar = f'<i class="closed" style="width:{closed:.1%}"></i>'
            bar += f'<i class="open" style="width:{opened:.1%}"></i>'
            start = f'<tr><th scope="row">{layer}</th><td>{name}</td>'
            rows.append((start, [f"{closed:.1%}", f"{opened:.1%}"], bar))
    titles = ("&lt; 0.1", "&gt; 0.9", "closed from the left, open from the right")
    return (
        "<p>Fraction of time steps at which a gate is below 0.1 (almost closed) or above 0.9 "
        f"(almost open), averaged over the layer's hidden units, for {len(ids):,} symbols of the "
        "validation text (Karpathy, Johnson and Li, 2015).</p>\n"
        + render_table("<th>layer</th><th>gate</th>", titles, rows)
    )


def problems_section(state: State) -> str:
    """List interruptions and non-finite values, and the notes from the start of the run."""
    problems = []
    if not state.finished:
        problems.append(f"stopped at step {state.step:,} of {state.plans[-1]['steps']:,}")
    for event in state.nonfinite_events:
        action = "the best weights were restored" if event["restored"] else "the batch was skipped"
        problem = f"step {event['step']:,}: {escape_inline(event['reason'])}; {action}"
        problems.append(f"{problem}, and the learning rate was halved")
    none = "<p>None: the run is complete, and all losses and gradients were finite.</p>"
    section = bullet_list(problems) or none
    if state.notes:
        section += f"\n<h3>Notes</h3>\n{bullet_list([*map(escape_inline, state.notes)])}"
    return section


def reproduction_section(state: State) -> str:
    """Return the command, and everything else that the weights depend on."""
    corpus = state.corpus
    versions = "charrnn {charrnn}, NumPy {numpy}, Python {python}".format(**state.versions)
    rows: list[tuple[str, object]] = [
        ("seed", state.config.seed),
        ("workers", state.workers),
        ("versions", escape_inline(versions)),
        ("SHA-256 of the corpus", f"<code>{escape_inline(corpus['sha256'])}</code>"),
    ]
    if val := state.val_corpus:
        names = ", ".join(display_name(name) for name, *_ in val["files"])
        rows.append(("validation files", escape_inline(names)))
        sha256 = f"<code>{escape_inline(val['sha256'])}</code>"
        rows.append(("SHA-256 of the validation files", sha256))
    if state.init_from:
        rows.append(("initialized from", escape_inline(state.init_from["file"])))
    for plan in state.plans[1:]:
        rows.append(("extended", f"at step {plan['from_step']:,}, to {plan['steps']:,} steps"))
    python = "<p>Trained through the Python API.</p>"
    command = preformatted(escape_control(state.command)) if state.command else python
    return (
        f"{command}\n{definition_list(rows)}\n<p>The same command, corpus, number of workers and "
        "NumPy version give the same weights, bit for bit, on the same machine.</p>"
    )
