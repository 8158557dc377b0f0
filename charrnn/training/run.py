"""A run: its network, its state and its text; starting, saving and resuming it."""

from __future__ import annotations

import dataclasses
import math
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from platform import python_version
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charrnn.arrays import Array
from charrnn.bidirectional import make_network
from charrnn.cluster import SINGLE, Cluster
from charrnn.config import Config
from charrnn.errors import CheckpointError, UsageError
from charrnn.formatting import format_workers
from charrnn.network import Network
from charrnn.optim import SCHEDULES
from charrnn.storage import checkpoint, ngrams
from charrnn.storage.header import InvalidCheckpoint
from charrnn.storage.state import (
    Baselines,
    Batches,
    CountsRecord,
    ModelState,
    Plan,
    State,
    Versions,
    VocabularyRecord,
)
from charrnn.tasks.base import Predictor, Task, load_task
from charrnn.tasks.split import Splits
from charrnn.text.batches import Position, steps_per_lane
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.deadline import Deadline
from charrnn.training.notes import start_notes
from charrnn.training.parallel import default_workers
from charrnn.training.splits import (
    records_of,
    relative_features,
    text_of,
    with_relative_files,
)
from charrnn.training.vocabularies import (
    InitialModel,
    build_vocabulary,
    match_inputs,
    match_outputs,
)
from charrnn.vectors import Vectors
from charrnn.version import __version__

DEFAULT_CHARACTERS = 10_000_000  # to train on, if neither epochs nor steps are given
MAX_COMMAND_CHARACTERS = 10_000
NO_COUNTS: NDArray[Any] = np.empty(0, np.uint8)
VERSIONS = Versions(charrnn=__version__, numpy=np.__version__, python=python_version())
# The uses of random numbers, each with its generators, ``default_rng([seed, stream, step])``: none
# disturbs another, and a checkpoint needs only the seed and the step.
RngStream = IntEnum("RngStream", ["INIT", "DROPOUT", "SAMPLE", "SHUFFLE"], start=0)


@dataclass
class Run:
    """A model in training: everything that its checkpoint contains, and its text."""

    state: State
    vocabulary: Vocabulary
    splits: Splits
    network: Network  # has the last weights
    best_weights: Array  # before a validation loss: of the last evaluation, or initial
    average_weights: Array  # of some of the last steps of the plan
    optimizer_state: Array  # (moments, n)
    hidden_state: Array  # (L, S, H, B), of the lanes of this rank
    counts_data: NDArray[np.uint8]  # of n-grams; see ``storage.ngrams``
    plan_saved: bool = False
    deadline: Deadline | None = None  # of this invocation: it revises the plan

    @property
    def config(self) -> Config:
        return self.state.config

    @property
    def task(self) -> Task:
        return load_task(self.config)

    @property
    def plan(self) -> Plan:
        return self.state.plans[-1]

    def network_with(self, weights: Array) -> Network:
        """Return a network with a copy of these weights."""
        network = self.network.copy()
        network.params.vector[:] = weights
        return network

    def predictor_with(self, weights: Array) -> Predictor:
        """Return what predicts with a copy of these weights, for a task with a record."""
        assert self.state.task
        network = self.network_with(weights)
        return Predictor(network, self.vocabulary, self.state.task, self.counts_data)

    @property
    def evaluated_weights(self) -> Array:
        """The average of the weights, or the last ones before there is one."""
        return self.average_weights if self.state.num_averaged else self.network.params.vector

    @property
    def model_weights(self) -> Array:
        """The best weights, or the last ones while no validation loss has been measured."""
        is_measured = self.state.best["val_loss"] is not None
        return self.best_weights if is_measured else self.evaluated_weights

    @property
    def model_step(self) -> int:
        """The step of ``model_weights``."""
        best = self.state.best
        return self.state.step if best["val_loss"] is None else best["step"]

    @property
    def is_out_of_patience(self) -> bool:
        """Whether the last evaluations of the plan brought no better validation loss."""
        state, patience = self.state, self.config.patience
        since = max(state.best["step"], self.plan["from_step"])
        return 0 < patience <= sum(row["step"] > since for row in state.history)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        config, state = self.config, self.state
        assert config.learning_rate is not None
        schedule = SCHEDULES[config.lr_schedule](state.step / self.plan["steps"])
        return config.learning_rate * schedule * 0.5 ** len(state.nonfinite_events)

    @property
    def planned_characters(self) -> int:
        """The number of characters that the plan reads; a deadline revises it."""
        return self.characters_at_step(self.plan["steps"])

    def characters_at_step(self, step: int) -> int:
        """Return the number of characters that ``step`` steps read; for documents about."""
        batches, splits = self.state.batches, self.splits
        if splits.document_ends is not None:
            return round(splits.train_characters * step / batches["steps_per_epoch"])
        B, T = batches["batch_size"], batches["seq_length"]
        length = steps_per_lane(len(splits.train), B)
        epochs, rest = divmod(step, batches["steps_per_epoch"])
        symbols = B * (epochs * length + min(rest * T, length))
        return round(symbols / splits.symbols_per_character)


# --- begin, resume, save ---


def begin(
    corpus: Corpus,
    config: Config,
    *,
    val: Corpus | None = None,
    initial_model: InitialModel | None = None,
    workers: int | None = None,
    cluster: Cluster = SINGLE,
    sync_every: int | None = None,
    command: str = "",
    note: str = "",
) -> Run:
    """Return a new run; ``val`` is a separate validation text. Raises TextError.

    Symbols that are not in the vocabulary of ``initial_model`` get new weights. ``note`` is one
    more for the user.
    """
    # the text
    vocabulary, init_from, notes = build_vocabulary(corpus, val, config, initial_model)
    task = load_task(config)
    record, splits = task.record_of(corpus), task.make_splits(corpus, val, config, vocabulary)
    corpus_record, val_record = records_of(corpus, val, splits)

    # the network
    rng = np.random.default_rng([config.seed, RngStream.INIT])
    sizes = checkpoint.network_sizes(len(vocabulary), record)
    network = make_network(config, *sizes, rng, vectors_of(corpus))
    if initial_model:
        inputs = match_inputs(record, vocabulary, initial_model)
        symbols = inputs[: len(initial_model.vocabulary)]
        outputs = match_outputs(record, initial_model.task, symbols)
        network.load_weights_from(initial_model.network, inputs, outputs)
    weights = network.params.vector

    # the state
    batches = splits.fit_batches(config)
    lanes = lanes_per_rank(batches, cluster)
    baselines, counts, counts_data = _count_ngrams(splits, task, len(vocabulary))
    if record:
        counts_data = task.count(corpus)
        record["counts_bytes"] = len(counts_data)
    state = State(
        versions=VERSIONS,
        config=config,
        vocabulary=cast(VocabularyRecord, vocabulary.to_header()),
        parameters=len(weights),
        command=command[:MAX_COMMAND_CHARACTERS],
        workers=min(workers or default_workers(network, lanes, cluster.local_size), lanes),
        ranks=cluster.size,
        sync_every=sync_every if sync_every and cluster.size > 1 else 1,
        corpus=corpus_record,
        val_corpus=val_record,
        batches=batches,
        baselines=baselines,
        counts=counts,
        init_from=init_from,
        task=record,
        features=task.record_features(corpus),
        measures=task.measure_corpus_baselines(corpus),
    )
    state.notes = [*notes, *start_notes(state, splits, corpus, val), *([note] if note else [])]
    optimizer_state = np.zeros(checkpoint.array_shapes(state)["optimizer_state"], config.dtype)
    hidden_state = network.zero_state(state.batches["batch_size"])
    run = Run(
        state=state,
        vocabulary=vocabulary,
        splits=splits,
        network=network,
        best_weights=weights.copy(),
        average_weights=np.zeros_like(weights),
        optimizer_state=optimizer_state,
        hidden_state=hidden_state,
        counts_data=counts_data,
    )
    _add_plan(run)
    return run


def resume(
    path: Path,
    corpus: Corpus | None = None,
    *,
    val: Corpus | None = None,
    workers: int | None = None,
    cluster: Cluster = SINGLE,
    sync_every: int | None = None,
    max_steps: int | None = None,
) -> Run:
    """Return a saved run; texts that are not given are read again, as ``text_of`` does.

    ``workers``, ``sync_every`` and ``max_steps`` replace the recorded ones. Raises CheckpointError,
    also for a changed text, and UsageError for fewer steps than planned.
    """
    loaded, arrays = checkpoint.read_checkpoint(path)
    state = require_run(loaded, path)
    config, vocabulary = state.config, Vocabulary.from_header(state.vocabulary, state.config.unit)

    # the text, which must be the same
    hint = f"; to train on this one from its weights, use --init-from {path} and -o NEW"
    corpus, val = text_of(state, path, corpus, val, hint)

    # check the values that follow from text and options
    for name, array in arrays.items():
        fixed = checkpoint.COUNTS, checkpoint.FEATURES
        if name not in fixed and array.dtype != config.dtype:
            raise CheckpointError(f"{path}: damaged: {name} is {array.dtype}, not {config.dtype}")
    splits = load_task(config).make_splits(corpus, val, config, vocabulary)
    position, steps = _position(state, splits), state.plans[-1]["steps"]
    fits = state.batches == splits.fit_batches(config) and state.data_position == position
    if not fits or state.step > steps:
        reason = "batches, plans or position are inconsistent with the text"
        raise CheckpointError(f"{path}: damaged: {reason}")

    sizes = checkpoint.network_sizes(len(vocabulary), state.task)
    network = make_network(config, *sizes, vectors=vectors_of(corpus))
    network.params.vector[:] = arrays["last_weights"]

    # the state, as this invocation knows it
    state.versions, state.parameters = VERSIONS, len(arrays["last_weights"])
    state.corpus, state.val_corpus = records_of(corpus, val, splits)
    state.features = load_task(config).record_features(corpus)
    state.epoch = state.step / state.batches["steps_per_epoch"]
    lanes, before = lanes_per_rank(state.batches, cluster), _format_workers(state)
    if not workers and state.ranks == cluster.size:
        workers = state.workers
    workers = workers or default_workers(network, lanes, cluster.local_size)
    state.workers, state.ranks = min(workers, lanes), cluster.size
    state.sync_every = (sync_every or state.sync_every) if cluster.size > 1 else 1
    if (now := _format_workers(state)) != before:
        change = f"{now} instead of {before}; results may differ in the last bits"
        state.notes.append(f"from step {state.step:,}: {change}")

    names = "best_weights", "average_weights", "optimizer_state", "hidden_state"
    stored: dict[str, Any] = {name: arrays[name] for name in names}
    run = Run(
        state=state,
        vocabulary=vocabulary,
        splits=splits,
        network=network,
        **stored,
        counts_data=_read_counts(state, arrays, path),
        plan_saved=True,
    )
    state.finished = state.step == steps or run.is_out_of_patience
    if max_steps:
        _extend(run, max_steps)
    return run


def _read_counts(state: State, arrays: dict[str, Array], path: Path) -> NDArray[np.uint8]:
    """Return what was counted, packed. Raises CheckpointError for n-grams that make no sense."""
    packed = arrays.get(checkpoint.COUNTS, NO_COUNTS).astype(np.uint8)
    if state.counts:
        try:
            ngrams.unpack(state.counts, packed, state.vocabulary["size"])
        except InvalidCheckpoint as e:
            raise CheckpointError(f"{path}: {e}") from None
    return packed


def vectors_of(corpus: Corpus) -> Vectors | None:
    """Return the vectors that the lines of a text are about, or None."""
    return getattr(corpus, "vectors", None)


def lanes_per_rank(batches: Batches, cluster: Cluster) -> int:
    """Return the number of lanes of this rank. Raises UsageError if there are too few."""
    lanes = cluster.lanes(batches["batch_size"])
    return int(lanes.stop - lanes.start)


def _format_workers(state: State) -> str:
    return format_workers(state.workers, state.ranks, state.sync_every)


def save(run: Run, path: Path, cluster: Cluster = SINGLE) -> None:
    """Write the checkpoint of the run, on rank 0. Raises SaveError, NotFiniteError, ClusterError.

    Every rank must call it. All must have the same weights.
    """
    cluster.check_same(zlib.crc32(run.network.params.vector.data))
    hidden_state = cluster.gather_lanes(run.hidden_state)
    cluster.from_root(lambda: _write(run, path, hidden_state))


def _write(run: Run, path: Path, hidden_state: Array) -> None:
    arrays: dict[str, Any] = {
        "best_weights": run.best_weights,
        "last_weights": run.network.params.vector,
        "average_weights": run.average_weights,
        "optimizer_state": run.optimizer_state,
        "hidden_state": hidden_state,
    }
    if len(run.counts_data):
        arrays[checkpoint.COUNTS] = run.counts_data
    if run.network.vectors:
        arrays[checkpoint.FEATURES] = run.network.vectors.moments
    corpus, val = with_relative_files(run.state.corpus, path), run.state.val_corpus
    features = relative_features(run.state.features, path)
    val = val and with_relative_files(val, path)
    state = dataclasses.replace(run.state, corpus=corpus, val_corpus=val, features=features)
    checkpoint.write_checkpoint(path, state, arrays)


def require_run(state: ModelState, path: Path) -> State:
    """Return the state of a run. Raises CheckpointError for an exported model."""
    if not isinstance(state, State):
        raise CheckpointError(
            f"{path}: an exported model, which cannot be resumed; "
            f"use --init-from {path} to train from its weights"
        )
    return state


def _count_ngrams(
    splits: Splits, task: Task, V: int
) -> tuple[Baselines, CountsRecord | None, NDArray[np.uint8]]:
    """Return the losses of n-grams and those to keep: only a language model has any."""
    if not task.is_language_model:
        return Baselines(val={}, test={}), None, NO_COUNTS
    baselines, stored = splits.count_ngrams(V)
    return baselines, *ngrams.pack(stored, V)


def _position(state: State, splits: Splits) -> Position:
    """Return the position of the next batch, given the number of steps."""
    steps_per_epoch = state.batches["steps_per_epoch"]
    epoch, batch = divmod(state.step, steps_per_epoch)
    if splits.document_ends is None:
        return Position(epoch, batch * state.batches["seq_length"])
    return Position(epoch, batch) if batch or not epoch else Position(epoch - 1, steps_per_epoch)


def _add_plan(run: Run) -> None:
    """Plan the length of the run, and with it the schedule and the evaluations."""
    config, state = run.config, run.state
    limits = [config.max_steps] if config.max_steps else []
    steps_per_epoch = state.batches["steps_per_epoch"]
    if config.epochs is not None:
        limits.append(max(1, math.ceil(config.epochs * steps_per_epoch)))
    # of the requested batches: a small text, whose batches are smaller, takes no more steps
    per_step: float = config.batch_size * config.seq_length
    if run.splits.document_ends is not None:
        per_step = len(run.splits.train) / steps_per_epoch
    symbols = DEFAULT_CHARACTERS * min(run.splits.symbols_per_character, 1)
    steps = min(limits, default=math.ceil(symbols / per_step))
    eval_every, sample_every = config.eval_every or math.ceil(steps / 20), config.sample_every
    if not run.task.is_language_model:
        sample_every = 0
    elif sample_every is None:
        sample_every = math.ceil(steps / 10)
    plan = Plan(from_step=state.step, steps=steps, eval_every=eval_every, sample_every=sample_every)
    state.plans.append(plan)
    state.num_averaged = 0
    state.finished = state.step >= steps
    run.plan_saved = False


def _extend(run: Run, max_steps: int) -> None:
    """Extend the plan to ``max_steps``. Raises UsageError for fewer steps than planned.

    A run that was stopped early may have its plan again, with new patience.
    """
    planned = run.plan["steps"]
    if max_steps < planned:
        raise UsageError(
            f"--max-steps {max_steps}: must be at least {planned}, the planned length; "
            f"use --stop-after N to stop earlier"
        )
    if max_steps > planned or (run.state.finished and run.state.step < planned):
        run.state.config = dataclasses.replace(run.config, max_steps=max_steps, epochs=None)
        run.state.test_loss = run.state.mixing = None
        _add_plan(run)
