"""A recipe: the size of the model and the length of the run that suit a text and an effort."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from charrnn.config import PRESETS, Config
from charrnn.errors import UsageError
from charrnn.network import Network
from charrnn.tasks.base import load_task
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import NEWLINE
from charrnn.training.deadline import Deadline
from charrnn.training.parallel import DataParallel, default_workers
from charrnn.workers import Workers

DEFAULT_PRESET = "small"
# With any of these the user has a model in mind: then nothing is chosen by default.
MODEL_OPTIONS = frozenset(
    ["cell", "hidden_size", "num_layers", "seq_length", "batch_size", "optimizer", "learning_rate"]
)
SHOWN_OPTIONS = {
    "hidden_size": "hidden size",
    "batch_size": "batch size",
    "seq_length": "sequence length",
    "learning_rate": "learning rate",
    "dropout": "dropout",
}
# An effort of 1 is the work of a GRU of 256 units that reads 10 million of some 80 symbols.
UNIT_CHARACTERS, UNIT_SIZE, UNIT_VOCABULARY = 10_000_000, 256, 80
SIZE_EXPONENT = 1.85  # of the time per character in the cell, as a function of the hidden size
CHARACTERS_PER_WORD = 100  # at least, for each word of a vocabulary: a guess
SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
BATCH_SIZES, LONG, SHORT = (8, 16, 32, 64), 64, 32  # the last two are sequence lengths
MIN_STEPS = 1000
MIN_EPOCHS, MAX_EPOCHS = 2.5, 6.0
MAX_DROPOUT = 0.5
MAX_LEARNING_RATE = 8e-3  # of 256 units and batches of 64
WEIGHT_DECAY = 0.03
CALIBRATION_SECONDS = 1.0
TRAINING_SHARE = 0.85  # of the time that is left; the rest is for counting and evaluating


class Goal(NamedTuple):
    """How much a user wants to spend: a preset, or the time until a deadline."""

    preset: str | None = None
    deadline: Deadline | None = None


def complete(
    given: dict[str, Any], corpus: Corpus, goal: Goal, workers: int | None, *, has_val_file: bool
) -> tuple[dict[str, Any], str]:
    """Return the options of a run, those that are not given chosen for its text, and a note.

    Without a goal, the preset ``small`` chooses, unless options of the model are given.
    """
    if goal == Goal() and MODEL_OPTIONS & given.keys():
        return given, ""
    config = Config(**given)
    if not load_task(config).is_language_model:
        if goal != Goal():
            raise UsageError(f"--preset and --time know no --predict {config.predict}")
        return given, ""
    held_out = config.test_fraction + (0 if has_val_file else config.val_fraction)
    characters = max(1, round(corpus.characters * (1 - held_out)))
    preset = goal.preset or DEFAULT_PRESET
    effort, purpose = PRESETS[preset], f"preset {preset}"
    V = len(corpus.store.codes)
    if config.unit == "word":
        assert config.max_vocab
        V = min(config.max_vocab, V + characters // CHARACTERS_PER_WORD)
    if goal.deadline:
        speed = measure_speed(config, V, workers)
        seconds = max(goal.deadline.at - time.monotonic(), 0) * TRAINING_SHARE
        effort = seconds * speed / _characters(config.hidden_size, V, 1)
        purpose = f"{speed:,.0f} characters per second with {config.hidden_size} units"
    line_length = math.inf
    if config.documents == "line":
        is_end = corpus.store.codes == NEWLINE
        line_length = corpus.characters / max(1, int(corpus.store.counts[is_end].sum()))
    options = choose_options(characters, V, effort, given, line_length)
    shown = {key: name for key, name in SHOWN_OPTIONS.items() if key in options.keys() - given}
    chosen = [f"{name} {options[key]:g}" for key, name in shown.items()]
    return options, f"chosen for this text and {purpose}: {', '.join(chosen) or 'the steps'}"


def choose_options(
    characters: int, V: int, effort: float, given: Mapping[str, Any], line_length: float = math.inf
) -> dict[str, Any]:
    """Return the options for an effort, on a training split of so many characters.

    V is the size of the vocabulary; ``line_length`` is the mean if every line is a document.

    The hidden size grows with the fourth root of the effort: weights and characters grow alike
    (Hoffmann et al., 2022). Reading a text again brings less than reading more of it, so on a short
    text the model is up to twice as large, as long as it reads the text 2.5 times. No text is read
    more than 6 times, unless it is so short that this would take few steps. ``given`` options are
    kept.
    """
    # the hidden size, and how many characters are read
    by_effort = 1.01 * UNIT_SIZE * math.pow(effort, 0.25)
    smallest = MIN_STEPS * BATCH_SIZES[0] * SHORT
    fits = max(smallest, MIN_EPOCHS * characters)
    sizes = [size for size in SIZES if size <= by_effort]
    larger = [size for size in SIZES if size <= 2 * by_effort]
    sizes += [size for size in larger if _characters(size, V, effort) >= fits]
    H = given.get("hidden_size", max(sizes, default=SIZES[0]))
    read = min(_characters(H, V, effort), max(smallest, MAX_EPOCHS * characters))

    # batches that are small enough for many steps
    per_step = read / MIN_STEPS
    T = given.get("seq_length", LONG if per_step >= BATCH_SIZES[0] * LONG else SHORT)
    fitting = [size for size in BATCH_SIZES if size * min(T, line_length) <= per_step]
    B = given.get("batch_size", max(fitting, default=BATCH_SIZES[0]))
    options = {"hidden_size": H, "batch_size": B, "seq_length": T, **given}
    if not {"max_steps", "epochs"} & given.keys():
        if read > MAX_EPOCHS * characters:
            options["max_steps"] = MIN_STEPS
        else:
            options["epochs"] = float(f"{read / characters:.3g}")

    # a lower learning rate for larger models and smaller batches, and some weight decay
    if "optimizer" not in given:
        scale = math.sqrt(UNIT_SIZE / H * B / BATCH_SIZES[-1])
        options.setdefault("learning_rate", float(f"{MAX_LEARNING_RATE * min(scale, 1):.2g}"))
        options.setdefault("weight_decay", WEIGHT_DECAY)

    # dropout, more of it the more often the text is read
    doublings = math.log2(max(read / characters / MIN_EPOCHS, 1))
    options.setdefault("dropout", min(math.floor(2 * doublings) / 10, MAX_DROPOUT))
    return options


def max_steps(steps_per_epoch: int) -> int:
    """Return the largest number of steps for a text; more of them would only overfit."""
    return max(MIN_STEPS, math.ceil(MAX_EPOCHS * steps_per_epoch))


def _characters(hidden_size: int, V: int, effort: float) -> float:
    """Return how many characters a GRU reads with an effort."""

    def work(H: int, V: int) -> float:
        cell = 3 * UNIT_SIZE**2 * math.pow(H / UNIT_SIZE, SIZE_EXPONENT)
        return cell + V * H  # and the output

    return effort * UNIT_CHARACTERS * work(UNIT_SIZE, UNIT_VOCABULARY) / work(hidden_size, V)


def measure_speed(config: Config, V: int, workers: int | None) -> float:
    """Return how many characters per second a network with random weights trains on."""
    rng = np.random.default_rng(0)
    network = Network(config.cell, V, config.hidden_size, config.num_layers, config.dtype, rng)
    T, B = config.seq_length, config.batch_size
    xs, ys = rng.integers(V, size=(2, T, B))
    hidden_state, steps, started = network.zero_state(B), 0, 0.0
    with Workers(min(workers or default_workers(network, B), B)) as pool:
        parallel = DataParallel(network, T, B, pool, config.optimizer)
        while steps < 2 or time.perf_counter() < started + CALIBRATION_SECONDS:
            parallel.loss_and_grad(xs, ys, hidden_state, None, xs.size)
            parallel.update(1e-3, steps + 1)
            steps += 1
            if steps == 1:  # it starts the workers and allocates memory
                started = time.perf_counter()
        seconds = time.perf_counter() - started
    return (steps - 1) * T * B / seconds
