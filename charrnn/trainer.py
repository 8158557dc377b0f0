"""``charrnn.train``: train a model on a text, from Python."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import difflib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charrnn.blas import limit_threads
from charrnn.config import ARCHITECTURE_OPTIONS, CELL_ALIASES, PRESETS, Config
from charrnn.errors import TextError, UsageError
from charrnn.model import Model, load
from charrnn.storage import checkpoint
from charrnn.storage.lock import lock
from charrnn.storage.output import check_output
from charrnn.storage.state import MAX_WORKERS
from charrnn.tasks.base import load_task
from charrnn.text.corpus import Corpus
from charrnn.training.deadline import Deadline
from charrnn.training.interrupt import StopRequest
from charrnn.training.loop import train_with_saves
from charrnn.training.observer import Observer, Progress
from charrnn.training.recipe import Goal, complete, max_steps
from charrnn.training.run import Run, begin
from charrnn.training.vocabularies import InitialModel

Text = str | bytes | Path
# of train, beyond the fields of Config
KEYWORDS = [
    "val",
    "features",
    "output",
    "force",
    "init_from",
    "preset",
    "seconds",
    "workers",
    "progress",
    "on_step",
]
MAX_NAME_CHARACTERS = 1000  # of a text that may be meant as the name of a file


@np.errstate(all="ignore")
@limit_threads()
def train(
    text: Text | Sequence[Text],
    *,
    val: Text | None = None,
    features: NDArray[Any] | str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    init_from: str | Path | None = None,
    preset: str | None = None,
    seconds: float | None = None,
    workers: int | None = None,
    progress: bool = False,
    on_step: Callable[[Progress], object] | None = None,
    **options: Any,
) -> Model:
    """Train on a text, or on several that are joined; return the model with the best weights.

    A text is a ``str`` (``bytes`` with ``unit="byte"``), or the ``Path`` of a file or a folder.
    ``options`` are the fields of ``charrnn.Config``, the options of ``charrnn train``: ``cell``,
    ``hidden_size``, ``num_layers``, ``max_steps`` and so on. ``val`` is a separate validation text;
    by default a split of ``text`` is used. ``features`` are vectors that the lines are about, an
    array or the name of a file; see docs/captions.md. ``output`` is the checkpoint to write; an
    existing one is replaced only with ``force``. ``init_from`` is a checkpoint or exported model
    with the initial weights; its cell, sizes, unit and dtype are used. What the options leave open,
    a ``preset`` decides (tiny, small, medium or large), or the ``seconds`` that the training may
    take; see ``training.recipe``. Each of the ``workers``, processes of which the first is this
    one, trains on a part of the batch; by default there is one for each core, if each has 16
    sequences or more.

    ``progress`` shows a bar, in a notebook as well. ``on_step`` is called with a ``Progress`` after
    every step; if it returns True, the training ends. Ctrl-C ends it after its step, too: then the
    run is saved and the model so far returned.

    Raises UsageError for an option outside its range or a file that exists, TextError for a text
    that is too short, NotFiniteError after too many non-finite losses, CheckpointError, SaveError.
    """
    if workers is not None and (type(workers) is not int or not 1 <= workers <= MAX_WORKERS):
        raise UsageError(f"invalid workers: {workers!r}; must be an int from 1 to {MAX_WORKERS}")
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds < math.inf):
        raise UsageError(f"invalid seconds: {seconds!r}; must be a positive number")
    if preset is not None and preset not in PRESETS:
        raise UsageError(f"invalid preset: {preset!r}; must be one of {', '.join(PRESETS)}")
    if preset and seconds:
        raise UsageError("preset and seconds are mutually exclusive")
    _check_names(options)
    if features is not None:
        options.setdefault("predict", "text")
        if val is not None:
            raise UsageError("val cannot be combined with features")
    goal = Goal(preset, None if seconds is None else Deadline(time.monotonic() + seconds))
    path = None if output is None else Path(output)
    if path is not None:
        check_output(path, force, option="force=True")
    with contextlib.nullcontext() if path is None else lock(path, "charrnn.train"):
        # the run
        initial_model = None
        if init_from is not None:
            initial_model, options = load_initial_model(init_from, options)
        config = Config(**options)
        corpus = _to_corpus("text", text, config, features)
        val_corpus = None if val is None else _to_corpus("val", val, config)
        run = begin_with_recipe(
            corpus, options, goal, val=val_corpus, initial_model=initial_model, workers=workers
        )

        # its steps
        with StopRequest([signal.SIGINT]) as stop, Observer(run, progress, on_step) as observer:
            for step in train_with_saves(run, path, stop=lambda: stop() or observer.has_ended):
                observer.update(step)
    run.network.params.vector[:] = run.model_weights
    arrays: dict[str, Any] = {"optimizer_state": run.optimizer_state}
    if len(run.counts_data):
        arrays[checkpoint.COUNTS] = run.counts_data
    return Model(run.network, run.vocabulary, run.state, arrays)


def begin_with_recipe(corpus: Corpus, given: dict[str, Any], goal: Goal, **how: Any) -> Run:
    """Return a new run; a recipe chooses the options that are not given. Raises as ``begin``."""
    workers, has_val = how.get("workers"), how.get("val") is not None
    options, note = complete(given, corpus, goal, workers, has_val_file=has_val)
    run = begin(corpus, Config(**options), note=note, **how)
    if goal.deadline:
        goal.deadline.max_steps = max_steps(run.state.batches["steps_per_epoch"])
    run.deadline = goal.deadline
    return run


def _check_names(options: dict[str, Any]) -> None:
    """Raise UsageError for an option that does not exist, with the name that is most like it."""
    names = [f.name for f in dataclasses.fields(Config)]
    for name in options.keys() - set(names):
        similar = difflib.get_close_matches(name, [*names, *KEYWORDS], n=1)
        meant = "learning_rate" if name == "lr" else similar[0] if similar else ""
        hint = f"; did you mean {meant}?" if meant else ""
        raise UsageError(f"unknown option {name!r}{hint}")


def _to_corpus(
    name: str,
    text: Text | Sequence[Text],
    config: Config,
    features: NDArray[Any] | str | Path | None = None,
) -> Corpus:
    """Return a text, several texts or files as a corpus. Raises TextError, UsageError."""
    task, more = load_task(config), {}
    if features is not None:
        more["features"] = features if isinstance(features, np.ndarray) else Path(features)
    texts = [text] if isinstance(text, (str, bytes, Path)) else list(text)
    if not texts:
        raise TextError("there is no text: the list of texts is empty")
    paths = [text for text in texts if isinstance(text, Path)]
    if paths:
        if len(paths) < len(texts):
            raise UsageError("give texts or paths, not both")
        return task.read(paths[0].stem, config, paths=paths, **more)
    strings = [text for text in texts if isinstance(text, str)]
    for text in strings:
        if len(text) < MAX_NAME_CHARACTERS and os.path.isfile(text):  # noqa: PTH113  # any text
            raise UsageError(f"{text!r} would be the text, but is a file; give Path({text!r})")
    if strings and codecs.lookup(config.encoding).name != "utf-8":
        raise UsageError(f"encoding {config.encoding} needs a text of bytes, not a str")
    given = [text for text in texts if not isinstance(text, Path)]
    return task.read(name, config, *given, **more)


def load_initial_model(
    path: str | Path, options: dict[str, Any]
) -> tuple[InitialModel, dict[str, Any]]:
    """Return the initial model of a run, and the run's options with those that it decides.

    Raises CheckpointError, and UsageError if one of these options has another value.
    """
    model = load(path)
    inherited = {name: getattr(model.state.config, name) for name in ARCHITECTURE_OPTIONS}
    for name, value in inherited.items():
        given = options.get(name, value)
        if given != value and CELL_ALIASES.get(str(given)) != value:
            raise UsageError(f"{name} must be {value}, as in the initial model, not {given}")
    if model.config.bidirectional and not options.get("bidirectional"):
        raise UsageError(f"{path}: a bidirectional model; its weights need --bidirectional")
    sha256 = model.state.sha256 or None
    initial_model = InitialModel(
        model.network, model.vocabulary, str(path), sha256, model.state.task
    )
    return initial_model, {**options, **inherited}
