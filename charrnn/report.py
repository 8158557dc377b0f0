"""A report of a run: one self-contained HTML page, for the screen or for paper."""

from __future__ import annotations

import math
from typing import Any

from charrnn import units
from charrnn.drawing.chart import evenly_spaced, render_chart
from charrnn.drawing.page import (
    bullet_list,
    definition_list,
    escape_inline,
    preformatted,
    read_resource,
    render_page,
)
from charrnn.errors import CheckpointError
from charrnn.formatting import (
    best_baseline,
    escape_control,
    format_count,
    format_loss,
    loss_unit,
)
from charrnn.header import Header
from charrnn.model import Model
from charrnn.neurons import ends_of_documents, gate_saturation
from charrnn.shades import render_html

HIGHLIGHT_CHARACTERS = 1500  # of the validation text
GATE_CHARACTERS = 10_000  # of the validation text
REPORT_SAMPLES = 24  # of those generated during training, evenly spaced
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
REPORT_SAMPLE_LENGTH = 300
REPORT_SAMPLE_LINES = 40  # of a model with one document per line
SEED = 0


def render_report(model: Model, text: str | bytes = "", missing: str = "") -> str:
    """Return the report of a run as an HTML page.

    ``text`` is the run's validation text, whose beginning is shown; if it is empty, ``missing``
    says why. Samples are generated with a fixed seed, so the same run gives the same page.
    Everything from a file or a text is escaped.

    Raises CheckpointError for an exported model, which contains no run.
    """
    header = model.header
    if header["kind"] != "run":
        raise CheckpointError("an exported model; a report needs a training checkpoint")
    sections = {
        "Corpus and model": run_facts(model),
        "Loss curves": curves_section(header),
        "Comparison with baselines": baselines_section(header),
        "Samples during training": training_samples(header),
        "Samples at four temperatures": temperature_samples(model),
        "Surprisal per character": surprisal_section(model, text, missing),
        "Gate saturation": gates_section(model, text, missing),
        "Problems and notes": problems_section(header),
        "Reproducing this run": reproduction_section(header),
    }
    body = [f'<p class="summary">{summary(header)}</p>']
    for title, section in sections.items():
        body.append(f"<section>\n<h2>{title}</h2>\n{section}\n</section>")
    body.append(f"<script>\n{read_resource('report.js')}</script>")
    return render_page(header["corpus"]["name"], "\n".join(body), read_resource("report.css"))


def summary(header: Header) -> str:
    """Return what the run is, and its result, in two sentences."""
    config, val_loss = header["config"], header["best"]["val_loss"]
    cell = {"lstm": "An LSTM", "vanilla": "A vanilla RNN"}.get(config["cell"])
    sentence = (
        f"{cell or 'A ' + config['cell'].upper()} with "
        f"{format_count(config['num_layers'], 'layer')} of {config['hidden_size']} hidden units, "
        f"trained on {escape_inline(header['corpus']['name'])} for {header['step']:,} steps."
    )
    if val_loss is None:
        return sentence
    sentence += f" Validation loss: {val_loss:.3f} nats per {loss_unit(config['unit'])}"
    baselines = header["baselines"]["val"]
    name = best_baseline(baselines)
    if name is not None:
        sentence += f" (best baseline: {escape_inline(name)}, {baselines[name]:.3f})"
    return f"{sentence}."


def run_facts(model: Model) -> str:
    """Return the sizes of the corpus and of the model, the options, and the losses."""
    header = model.header
    config, corpus, batches = header["config"], header["corpus"], header["batches"]
    split, best, V = corpus["split_characters"], header["best"], header["vocabulary"]["size"]
    noun, document = loss_unit(config["unit"]), config["documents"]
    layers = format_count(config["num_layers"], "layer")
    uniform = math.log(V) * corpus["symbols"] / max(corpus["characters"], 1)
    rows = [
        ("files", "<br>".join(escape_inline(name) for name, *_ in corpus["files"])),
        ("length", f"{corpus['characters']:,} {noun}s ({corpus['bytes']:,} bytes)"),
        ("training split", f"{split['train']:,} {noun}s"),
        ("validation split", f"{split['val']:,} {noun}s"),
        ("test split", f"{split['test']:,} {noun}s"),
        ("vocabulary", f"{V:,} symbols" + ", Hangul as jamo" * (config["unit"] == "jamo")),
        ("documents", f"one document per {document}" if document else "one continuous text"),
        ("model", f"{config['cell']}, {layers} of {config['hidden_size']} hidden units"),
        ("parameters", f"{header['parameters']:,}"),
        ("batch size", batches["batch_size"]),
        ("sequence length", batches["seq_length"]),
        ("optimizer", f"{config['optimizer']}, learning rate {config['learning_rate']:g}"),
        ("learning-rate schedule", config["lr_schedule"]),
        ("dropout", f"{config['dropout']:g}"),
        ("steps", f"{header['step']:,} of {header['plans'][-1]['steps']:,}"),
        ("steps per epoch", f"{batches['steps_per_epoch']:,}"),
        ("epochs", f"{header['epoch']:.2f}"),
        ("time", f"{header['train_seconds']:,.0f} seconds"),
        ("initial loss", f"{format_loss(header['initial_loss'])}, uniform: {uniform:.4f} nats"),
    ]
    if best["val_loss"] is not None:
        loss = format_loss(best["val_loss"])
        rows.append(("best validation loss", f"{loss}, step {best['step']:,}"))
    if header["test_loss"] is not None:
        rows.append(("test loss", format_loss(header["test_loss"])))
    return f"{definition_list(rows)}\n<p>Losses are per {noun}.</p>"


def curves_section(header: Header) -> str:
    """Plot the training and validation loss."""
    baselines = header["baselines"]["val"]
    name = best_baseline(baselines)
    baseline = None if name is None else (name, baselines[name])
    return (
        f"<figure>\n{render_chart(header['history'], header['best'], baseline)}\n"
        f"<figcaption>Nats per {loss_unit(header['config']['unit'])} at each training step. "
        '<span class="screen">Hover over a step, or use Tab, to see its values. </span>'
        "Where the training loss keeps falling but the validation loss does not, the model is "
        "overfitting.</figcaption>\n</figure>"
    )


def baselines_section(header: Header) -> str:
    """Compare the losses of the model with those of the baselines."""
    val, test = header["baselines"]["val"], header["baselines"]["test"]
    if not val:
        return "<p>This run has no validation split to compare with baselines.</p>"
    rows = [(escape_inline(name), val[name], test.get(name), "") for name in val]
    if header["best"]["val_loss"] is not None:
        rows.append(("model", header["best"]["val_loss"], header["test_loss"], ' class="model"'))
    rows.sort(key=lambda row: -row[1])
    highest = max(rows[0][1], 1e-9)
    cell = '<td class="number">'
    table = "\n".join(
        f'<tr{kind}><th scope="row">{name}</th>{cell}{loss:.3f}</td>{cell}{loss / math.log(2):.3f}'
        f"</td>{cell}{'' if test_loss is None else f'{test_loss:.3f}'}</td>"
        f'<td class="wide"><div class="bar"><i style="width:{100 * loss / highest:.1f}%"></i></div>'
        "</td></tr>"
        for name, loss, test_loss, kind in rows
    )
    return (
        f"<p>Validation loss per {loss_unit(header['config']['unit'])} in nats and in bits, and "
        "test loss in nats, compared with a uniform guess and n-gram models. A model that does not "
        "beat the best n-gram has learned little.</p>\n"
        '<table>\n<thead><tr><th>model</th><th class="number">nats</th><th class="number">bits</th>'
        '<th class="number">test</th><th class="wide">lower is better</th></tr></thead>\n'
        f"<tbody>\n{table}\n</tbody>\n</table>"
    )


def training_samples(header: Header) -> str:
    """Show the samples generated during training, in order."""
    samples = header["samples"]
    if not samples:
        return "<p>No samples were generated during training.</p>"
    chosen = [samples[i] for i in evenly_spaced(len(samples), REPORT_SAMPLES)]
    some = f" ({len(chosen)} of {len(samples):,})" if len(chosen) < len(samples) else ""
    losses = {row["step"]: row["val_loss"] for row in header["history"]}
    sections = [f"<p>Samples generated during training, in order{some}.</p>"]
    for sample in chosen:
        loss = losses.get(sample["step"])
        title = f"Step {sample['step']:,}"
        title += "" if loss is None else f", validation loss {loss:.3f}"
        text = preformatted(sample["text"].removesuffix("\n"), header["config"]["unit"])
        sections.append(f"<section>\n<h3>{title}</h3>\n{text}\n</section>")
    return "\n".join(sections)


def temperature_samples(model: Model) -> str:
    """Show a sample at each of four temperatures."""
    sections = [
        f"<section>\n<h3>Temperature {temp}</h3>\n"
        f"{preformatted(draw_sample(model, temp), model.unit)}\n</section>"
        for temp in TEMPERATURES
    ]
    noun = loss_unit(model.unit)
    return (
        "<p>Lower temperatures make safer choices; 1 samples from the learned distribution. "
        f"Seed {SEED}, at most {REPORT_SAMPLE_LENGTH} {noun}s.</p>\n"
        f'<div class="samples">\n{chr(10).join(sections)}\n</div>'
    )


def draw_sample(model: Model, temp: float) -> str:
    """Return a sample; of a model with one document per line, as many lines as fit."""
    n = REPORT_SAMPLE_LINES if model.by == "line" else 1
    pieces = model.samples(n, REPORT_SAMPLE_LENGTH, seed=SEED, temp=temp)
    texts = ["".join(parts) for parts in zip(*pieces, strict=True)]
    lines = (text if text.endswith("\n") or n == 1 else text + "\n" for text in texts)
    return "".join(lines)[:REPORT_SAMPLE_LENGTH].removesuffix("\n")


def missing_notice(missing: str) -> str:
    """Return why a section without the validation text is empty."""
    reason = escape_inline(missing or "the run has no validation split")
    return f"<p>Omitted because the validation text is unavailable: {reason}.</p>"


def surprisal_section(model: Model, text: str | bytes, missing: str) -> str:
    """Highlight the beginning of the validation text by its surprisal."""
    if not text:
        return missing_notice(missing)
    return (
        "<p>The beginning of the validation text, which was not used for training.</p>\n"
        f"{render_html(model, text[:HIGHLIGHT_CHARACTERS])}"
    )


def gates_section(model: Model, text: str | bytes, missing: str) -> str:
    """Show how often the gates are almost closed or almost open."""
    if not text:
        return missing_notice(missing)
    v = model.vocabulary
    ids = v.ids_of(units.to_codes(text[:GATE_CHARACTERS], v.unit))
    ids = ids[ids >= 0]
    ends = ends_of_documents(ids, v, model.by)
    saturated = gate_saturation(model.stack, ids, v.start_id, ends)
    if not saturated:
        return f"<p>This model's cell ({model.header['config']['cell']}) has no gates.</p>"
    rows = "\n".join(
        f'<tr><th scope="row">{layer}</th><td>{name}</td><td class="number">{closed:.1%}</td>'
        f'<td class="number">{opened:.1%}</td><td class="wide"><div class="bar">'
        f'<i class="closed" style="width:{closed:.1%}"></i>'
        f'<i class="open" style="width:{opened:.1%}"></i></div></td></tr>'
        for name, fractions in saturated.items()
        for layer, (closed, opened) in enumerate(fractions.tolist())
    )
    return (
        "<p>Fraction of time steps at which a gate is below 0.1 (almost closed) or above 0.9 "
        f"(almost open), averaged over the layer's hidden units, for {len(ids):,} symbols of the "
        "validation text (Karpathy, Johnson and Li, 2015).</p>\n"
        '<table>\n<thead><tr><th>layer</th><th>gate</th><th class="number">&lt; 0.1</th>'
        '<th class="number">&gt; 0.9</th><th class="wide">closed from the left, open from the '
        f"right</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )


def problems_section(header: Header) -> str:
    """List what interrupted the run, and the notes on how it began."""
    problems = []
    if not header["finished"]:
        problems.append(f"stopped at step {header['step']:,} of {header['plans'][-1]['steps']:,}")
    for event in header["nonfinite_events"]:
        action = "the best weights were restored" if event["restored"] else "the batch was skipped"
        problems.append(
            f"step {event['step']:,}: {escape_inline(event['reason'])}; {action}, and the learning "
            "rate was halved"
        )
    section = bullet_list(problems) or (
        "<p>None: the run is complete, and all losses and gradients were finite.</p>"
    )
    if header["notes"]:
        section += f"\n<h3>Notes</h3>\n{bullet_list([*map(escape_inline, header['notes'])])}"
    return section


def reproduction_section(header: Header) -> str:
    """Return the command, and everything else that the weights depend on."""
    corpus = header["corpus"]
    versions = "charrnn {charrnn}, NumPy {numpy}, Python {python}".format(**header["versions"])
    rows: list[tuple[str, Any]] = [
        ("seed", header["config"]["seed"]),
        ("threads", header["threads"]),
        ("versions", escape_inline(versions)),
        ("SHA-256 of the corpus", f"<code>{escape_inline(corpus['sha256'])}</code>"),
    ]
    if corpus["val_files"]:
        sha256 = f"<code>{escape_inline(corpus['val_sha256'])}</code>"
        rows.append(("validation files", escape_inline(", ".join(corpus["val_files"]))))
        rows.append(("SHA-256 of the validation files", sha256))
    if header["init_from"]:
        rows.append(("initialized from", escape_inline(header["init_from"]["file"])))
    for plan in header["plans"][1:]:
        rows.append(("extended", f"at step {plan['from_step']:,}, to {plan['steps']:,} steps"))
    command = "<p>Trained through the Python API.</p>"
    if header["command"]:
        command = preformatted(escape_control(header["command"]))
    return (
        f"{command}\n{definition_list(rows)}\n<p>The same command, corpus, number of threads and "
        "NumPy version give the same weights, bit for bit, on the same machine.</p>"
    )
