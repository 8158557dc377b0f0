"""A page that runs a model in the browser: it writes text, colored by its surprisal.

The page contains the weights as float16, and the JavaScript twins of the modules that sampling
needs, each in a file beside its Python.
"""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path
from string import Template

import numpy as np

from charrnn.analysis.surprisal import SavedModel
from charrnn.drawing.highlight import (
    SURPRISAL_SCALE,
    escape_inline,
    highlight_style,
    html_legend,
    read_resource,
    render_page,
)
from charrnn.errors import NotFiniteError, UsageError
from charrnn.formatting import format_count, format_loss, loss_unit
from charrnn.storage.state import ModelState, State
from charrnn.text.units import UNKNOWN

LENGTH = 1000  # characters that a page writes at a time
PACKAGE = Path(__file__).parent.parent
TWINS = ("network.js", "sampling.js", "text/units.js", "drawing/player.js")  # and that of the cell


def render_player(model: SavedModel, title: str) -> str:
    """Return a self-contained HTML page that runs the model.

    The symbols of the vocabulary are in the page as numbers only, and the title is escaped.

    Raises UsageError for a model of words or a cell without a JavaScript twin, NotFiniteError for a
    weight beyond the range of float16.
    """
    if model.unit == "word":
        raise UsageError("a page runs models of characters, bytes and jamo, but not of words")
    cell, twins = read_twin_of_cell(model), [PACKAGE / name for name in TWINS]
    scripts = [cell, *(path.read_text(encoding="utf-8") for path in twins)]
    body = Template(read_resource("player.html")).substitute(
        summary=model_summary(model.state),
        legend=html_legend(SURPRISAL_SCALE),
        model=json.dumps(page_data(model), separators=(",", ":")),
        script="\n".join(scripts),
    )
    css = highlight_style(SURPRISAL_SCALE) + read_resource("player.css")
    return render_page(title, body, css)


def read_twin_of_cell(model: SavedModel) -> str:
    """Return the JavaScript of the model's cell, from the file beside that of its class."""
    source = Path(inspect.getfile(type(model.network.cell)))
    twin = source.with_suffix(".js")
    if not twin.is_file():
        name = model.state.config.cell
        raise UsageError(
            f"the cell {name} cannot run in a browser; it needs {twin.name} beside {source.name}"
        )
    return twin.read_text(encoding="utf-8")


def page_data(model: SavedModel) -> dict[str, object]:
    """Return what the script needs of a model: numbers, and the weights in base64."""
    v, network = model.vocabulary, model.network
    with np.errstate(over="ignore"):
        weights = network.params.vector.astype("<f2")
    if not np.isfinite(weights).all():
        raise NotFiniteError("a weight is beyond the range of float16, which a page uses")
    return {
        "length": LENGTH,
        "unit": v.unit,
        "codes": v.codes.tolist(),
        "start_id": int(v.start_id[0]),
        "separator_id": v.separator_id(model.documents),
        "unknown_id": v.id(UNKNOWN),
        "hidden_size": network.hidden_size,
        "num_layers": network.num_layers,
        "weights": base64.b64encode(weights.tobytes()).decode("ascii"),
    }


def model_summary(state: ModelState) -> str:
    """Describe the model in two or three sentences, as HTML."""
    config, val_loss = state.config, state.best["val_loss"]
    cell = {"lstm": "An LSTM", "vanilla": "A vanilla RNN"}.get(config.cell)
    layers = format_count(config.num_layers, "layer")
    corpus = f"on {escape_inline(state.corpus['name'])} " if isinstance(state, State) else ""
    sentence = (
        f"{cell or 'A ' + escape_inline(config.cell.upper())} with {layers} of "
        f"{config.hidden_size} hidden units, trained {corpus}for {state.step:,} steps."
    )
    if val_loss is not None:
        sentence += f" Validation loss: {format_loss(val_loss)} per {loss_unit(config.unit)}."
    return f"{sentence} It runs in this page, without a network connection."
