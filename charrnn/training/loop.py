"""The training loop: truncated backpropagation through time, evaluations, samples, saves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from charrnn.arrays import Array
from charrnn.cluster import SINGLE, Cluster
from charrnn.errors import NotFiniteError, SaveError, WorkerError
from charrnn.network import Network
from charrnn.optim import clip, decay
from charrnn.storage import ngrams
from charrnn.storage.state import MAX_LOSS, Evaluation, Mixing
from charrnn.tasks.split import Split
from charrnn.text.batches import Batch, Position, contiguous_batches, document_batches
from charrnn.training.deadline import Deadline
from charrnn.training.mixing import estimate_seconds, fit_mixing
from charrnn.training.parallel import DataParallel
from charrnn.training.run import RngStream, Run, save
from charrnn.training.samples import log_sample, thin
from charrnn.workers import Workers

MAX_NONFINITE_STREAK = 3  # batches, until the best weights are restored
MAX_NONFINITE_EVENTS = 10  # until the run gives up
AVERAGED_FRACTION = 0.3  # of the plan, at its end
MAX_AVERAGED = 128  # steps of these, evenly spaced, whose weights are averaged
LOWER_LR_HINT = "try a lower --learning-rate or --clip-norm"
MAX_HISTORY_ROWS = 10_000  # in a header; beyond this, every second row is dropped
SAVE_INTERVAL_SECONDS = 60.0
SAVE_DURATION_FACTOR = 100.0  # of the interval to the duration: saving takes at most 1% of the time
OVERFIT_RATIO = 1.05  # of the last validation loss to the best one


class StepResult(NamedTuple):
    """The result of one step, with the evaluation and the sample that the plan has for it."""

    step: int
    characters: int  # in this batch
    loss: float  # mean over the batch, nats per character; if non-finite there was no update
    evaluation: Evaluation | None
    sample: str | None
    messages: tuple[str, ...] = ()  # non-finite values and failed saves, and how each was handled


def train_with_saves(
    run: Run,
    path: Path | None,
    *,
    stop_after: int | None = None,
    save_every: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    cluster: Cluster = SINGLE,
) -> Iterator[StepResult]:
    """Train; save to ``path`` at the start, every ``save_every`` seconds and at the end.

    The default interval is 60 s, or 100 times the duration of the last save if that is longer.
    ``stop_after`` more steps end this invocation, or ``stop`` once it returns True; the plan stays.
    A failed save is reported and tried again. Raises NotFiniteError, after a save, and SaveError if
    the first or the last save fails.
    """
    interval = SAVE_INTERVAL_SECONDS if save_every is None else save_every
    saved_step, due = run.state.step, time.monotonic() + interval

    def save_now() -> None:
        nonlocal interval, saved_step, due
        started = time.monotonic()
        try:
            if path:
                save(run, path, cluster)
            run.plan_saved, saved_step = True, run.state.step
        finally:
            due = time.monotonic()
            if save_every is None:
                interval = max(SAVE_INTERVAL_SECONDS, SAVE_DURATION_FACTOR * (due - started))
            due += interval

    # a new plan is saved immediately, to find out now if the folder cannot be written
    if not run.plan_saved:
        save_now()
    last = run.state.step + stop_after if stop_after else math.inf

    # train, and save when it is due
    try:
        for step in train_steps(run, cluster):
            if cluster.agree("save", time.monotonic() >= due):
                try:
                    save_now()
                except SaveError as e:
                    last_save = f"the last successful save is step {saved_step:,}"
                    message = f"{e}; {last_save}; will retry in {interval:.0f} s"
                    step = step._replace(messages=(*step.messages, message))
            yield step
            if (step.step >= last and cluster.in_sync) or cluster.agree("stop", stop()):
                break
    except (NotFiniteError, WorkerError) as e:
        # another rank does not know of a worker's end: it cannot take part in a save
        if isinstance(e, NotFiniteError) or not (e.is_partial or cluster.size > 1):
            save_now()
        raise

    # save the last steps
    if saved_step != run.state.step:
        save_now()


def train_steps(run: Run, cluster: Cluster = SINGLE) -> Iterator[StepResult]:
    """Train to the end of the plan, one batch at a time; the run may be saved after each step.

    Truncated backpropagation through time (Williams and Peng, 1990): the hidden state is carried
    from batch to batch, the gradient is not. The loss is the mean over the batch.

    A batch with a non-finite loss or gradient is skipped and halves the learning rate. After three
    in a row, or if a weight or the validation loss is non-finite, the best weights are restored,
    and optimizer state and hidden state are reset. The tenth event raises NotFiniteError.
    """
    state, splits, network = run.state, run.splits, run.network
    B, T = state.batches["batch_size"], state.batches["seq_length"]

    # the batches, from the position on
    position, lanes = Position(*state.data_position), cluster.lanes(B)
    if splits.document_ends is None:
        batches = contiguous_batches(splits.train, B, T, position, lanes)
    else:
        start, seed = int(run.vocabulary.start_id[0]), [run.config.seed, RngStream.SHUFFLE]
        is_caption = network.vectors is not None and run.config.predict == "text"
        how = B, T, position, start, seed, lanes, splits.targets, network.PADDING, not is_caption
        batches = document_batches(splits.train, splits.document_ends, *how)

    with Workers(state.workers) as workers:
        options = run.config.optimizer, run.config.dropout > 0
        width = lanes.stop - lanes.start
        parallel = DataParallel(network, T, width, workers, *options, cluster)
        parallel.optimizer_state[:] = run.optimizer_state
        run.optimizer_state = parallel.optimizer_state
        if run.deadline:
            run.deadline.start(state.step)
        messages = [workers.message] if workers.message else []
        for batch in batches:
            if state.finished:
                return
            if len(state.nonfinite_events) >= MAX_NONFINITE_EVENTS:
                raise NotFiniteError(
                    f"giving up at step {state.nonfinite_events[-1]['step']:,} after "
                    f"{MAX_NONFINITE_EVENTS} non-finite events (losses, gradients, weights or "
                    f"validation losses); {LOWER_LR_HINT}"
                )
            yield _train_step(run, batch, parallel, messages)
            messages = [text for text in [cluster.slow_message()] if text]


@np.errstate(all="ignore")  # non-finite values are handled
def _train_step(run: Run, batch: Batch, parallel: DataParallel, messages: list[str]) -> StepResult:
    state, config, p, cluster = run.state, run.config, run.network.params.vector, parallel.cluster
    started = time.perf_counter()

    # reset the hidden state of lanes that start a document or the text, draw the dropout masks
    if batch.reset.any():
        run.hidden_state[..., batch.reset] = 0
    masks = _draw_masks(run, len(batch.xs), parallel) if config.dropout else None

    # forward, backward, clip
    ratio = run.splits.symbols_per_character
    loss = ratio * parallel.loss_and_grad(
        batch.xs, batch.ys, run.hidden_state, masks, batch.num_targets
    )
    norm = clip(run.network.grads.vector, config.clip_norm, config.clip_value)
    lr = run.learning_rate

    # count the step
    characters_before = round(state.symbols_seen / ratio)
    state.step += 1
    state.symbols_seen += batch.num_targets
    state.data_position = batch.position
    state.epoch = state.step / state.batches["steps_per_epoch"]
    state.finished = state.step >= run.plan["steps"]

    # what is due after this step
    eval_every, sample_every = run.plan["eval_every"], run.plan["sample_every"]
    eval_due = state.finished or state.step % eval_every == 0
    sample_due = sample_every and (state.step == 1 or state.step % sample_every == 0)
    sync_due = eval_due or sample_due or state.step % cluster.sync_every == 0

    # update the weights, unless the loss or the gradient is non-finite
    is_finite = loss <= MAX_LOSS and norm <= MAX_LOSS
    if is_finite:
        resets = [event["step"] for event in state.nonfinite_events if event["restored"]]
        decay(p, lr, config.weight_decay)
        parallel.update(lr, state.step - max(resets, default=0))
    losses = cluster.average([p, run.optimizer_state], loss if is_finite else math.nan, sync_due)
    if not math.isfinite(sum(losses)):
        messages.append(_recover(run, f"loss {loss:.4g}, gradient norm {norm:.4g}"))
    elif losses:
        if not math.isfinite(p @ p):  # cheaper than looking at each weight
            reason = "the weights became non-finite in this update"
            messages.append(_recover(run, reason, restore=True))
        state.nonfinite_streak = 0
        state.running_loss["sum"] += sum(losses)
        state.running_loss["steps"] += len(losses)
        state.initial_loss = losses[0] if state.initial_loss is None else state.initial_loss
        _average(run, cluster.sync_every)
    state.train_seconds += time.perf_counter() - started

    # evaluate and sample
    evaluation = sample = None
    if eval_due:
        evaluation, more = _evaluate(run, norm, lr, parallel)
        messages += more
    if sample_due or (sample_every and state.finished):
        sample = cluster.from_root(lambda: log_sample(run))
    characters = round(state.symbols_seen / ratio) - characters_before
    return StepResult(state.step, characters, loss, evaluation, sample, tuple(messages))


def _average(run: Run, sync_every: int) -> None:
    """Let the weights of a step enter the average, if it is the turn of this step.

    Polyak and Juditsky, 1992; of the last steps, as Izmailov et al., 2018.
    """
    state, plan, average = run.state, run.plan, run.average_weights
    length = AVERAGED_FRACTION * (plan["steps"] - plan["from_step"])
    interval = math.ceil(length / MAX_AVERAGED) * sync_every  # all ranks have the same weights then
    if state.step > plan["steps"] - length and state.step % interval == 0:
        state.num_averaged += 1
        average += (run.network.params.vector - average) / state.num_averaged


def _draw_masks(run: Run, T: int, parallel: DataParallel) -> Array:
    """Draw the dropout masks of a step for all lanes; return those of this rank."""
    rng = np.random.default_rng([run.config.seed, RngStream.DROPOUT, run.state.step])
    B, out = run.state.batches["batch_size"], parallel.masks
    if out.shape[1] == T and out.shape[3] == B:
        return run.network.dropout_masks(rng, T, B, 1 - run.config.dropout, out)
    masks = run.network.dropout_masks(rng, T, B, 1 - run.config.dropout)
    return masks[..., parallel.cluster.lanes(B)]


def _recover(run: Run, reason: str, *, restore: bool = False) -> str:
    """Halve the learning rate, reset the hidden state, and return a message.

    At the third non-finite batch in a row, or with ``restore``, restore the best weights.
    """
    state = run.state
    run.hidden_state[:] = 0
    state.nonfinite_streak += 1
    restore = restore or state.nonfinite_streak >= MAX_NONFINITE_STREAK
    state.nonfinite_events.append({"step": state.step, "reason": reason, "restored": restore})
    message, halved = f"step {state.step:,}: {reason}", f"to {run.learning_rate:.2g}"
    if not restore:
        return f"{message}; skipped this batch and halved the learning rate {halved}"
    run.network.params.vector[:] = run.best_weights
    run.optimizer_state[:] = 0
    state.num_averaged = 0
    state.nonfinite_streak = 0
    restored = f"restored the weights of step {state.best['step']:,}, reset the optimizer"
    return f"{message}; {restored} and halved the learning rate {halved}"


def _evaluate(
    run: Run, norm: float, lr: float, parallel: DataParallel
) -> tuple[Evaluation, list[str]]:
    """Measure the validation loss, at the end the test loss; return the row and messages.

    Before the end, a deadline revises the plan.
    """
    state, splits, cluster = run.state, run.splits, parallel.cluster
    started, messages = time.monotonic(), []

    # the validation loss, and the best weights
    val_loss = None
    if len(splits.val.ids):
        val_loss = _validate(run, parallel)
        if not math.isfinite(val_loss):
            messages.append(_recover(run, f"validation loss {val_loss}", restore=True))
            val_loss = None
    best_loss = state.best["val_loss"]
    is_best = val_loss is not None and (best_loss is None or val_loss < best_loss)
    if is_best or not len(splits.val.ids):
        run.best_weights[:] = run.evaluated_weights
        state.best = {"step": state.step, "val_loss": val_loss}

    # the row of the history
    running = state.running_loss
    row: Evaluation = {
        "step": state.step,
        "epoch": state.epoch,
        "train_loss": running["sum"] / running["steps"] if running["steps"] else None,
        "val_loss": val_loss,
        "grad_norm": norm if math.isfinite(norm) else None,
        "learning_rate": lr,
        "characters_seen": round(state.symbols_seen / splits.symbols_per_character),
        "seconds": round(state.train_seconds, 6),
    }
    state.history = thin(state.history, MAX_HISTORY_ROWS, state.best["step"])
    state.history.append(row)
    state.running_loss = {"sum": 0.0, "steps": 0}

    # the end, when the validation loss no longer improves: what is measured for the best weights
    state.finished = state.finished or run.is_out_of_patience
    if state.finished:
        best = run.network_with(run.model_weights)
        if len(splits.test.ids):
            test_loss = cluster.from_root(lambda: _loss(best, splits.test, parallel.workers))
            state.test_loss = test_loss if math.isfinite(test_loss) else None
        if state.task:
            state.measures |= cluster.from_root(lambda: _measure(run))
        elif len(splits.val.ids) and state.best["val_loss"] is not None:
            state.mixing = cluster.from_root(lambda: _fit_mixing(run, best, parallel.workers))
    elif run.deadline:
        _revise_plan(run, run.deadline, time.monotonic() - started, parallel)
    return row, messages


def _revise_plan(run: Run, deadline: Deadline, eval_seconds: float, parallel: DataParallel) -> None:
    """Give the plan the number of steps for which there is time."""
    splits, workers = run.splits, parallel.workers

    def closing_seconds() -> float:
        # the validation split is read three times, the test split twice
        test_seconds = eval_seconds * len(splits.test.ids) / max(len(splits.val.ids), 1)
        mixing_seconds = estimate_seconds(run.network, splits, run.optimizer_state, workers)
        return 3 * eval_seconds + 2 * test_seconds + mixing_seconds

    run.plan["steps"] = deadline.revise(run.state, eval_seconds, closing_seconds)


def _validate(run: Run, parallel: DataParallel) -> float:
    """Return the validation loss of the average of the weights, or of the last ones without it.

    At the end of the plan the average is dropped if the last weights are better.
    """
    state, val = run.state, run.splits.val

    def measure() -> float:
        return _loss(run.network_with(run.evaluated_weights), val, parallel.workers)

    loss, num_averaged = parallel.cluster.from_root(measure), state.num_averaged
    if state.finished and num_averaged:
        state.num_averaged = 0
        last_loss = parallel.cluster.from_root(measure)
        if loss <= last_loss:
            state.num_averaged = num_averaged
        else:
            loss = last_loss
    return float(loss)


def _measure(run: Run) -> dict[str, dict[str, float]]:
    """Fit the weights of the mixture, and return what a model with a task reaches."""
    predictor, splits = run.predictor_with(run.model_weights), run.splits
    predictor.record["weights"] = run.task.fit_weights(predictor, splits.val)
    return run.task.measure_split(predictor, splits.test if len(splits.test.ids) else splits.val)


def _fit_mixing(run: Run, best: Network, workers: Workers) -> Mixing:
    assert run.state.counts
    counts = ngrams.unpack(run.state.counts, run.counts_data, len(run.vocabulary))
    return fit_mixing(best, counts, run.splits, run.optimizer_state, workers)


def _loss(network: Network, split: Split, workers: Workers) -> float:
    """Return the loss of a split, in nats per character."""
    return float(split.scores(network, workers)[0].sum() / split.characters)


def overfit_loss(run: Run) -> float | None:
    """Return the last validation loss, in nats per character, if the model is overfitting, or None.

    It is more than 1.05 times the best one then, and the training loss has fallen since that.
    """
    history, best_loss = run.state.history, run.state.best["val_loss"]
    best, last = next(row for row in history if row["step"] >= run.model_step), history[-1]
    val_loss, train_loss, best_train_loss = last["val_loss"], last["train_loss"], best["train_loss"]
    if best_loss is None or val_loss is None or train_loss is None or best_train_loss is None:
        return None
    overfits = val_loss > OVERFIT_RATIO * best_loss and train_loss < best_train_loss
    return val_loss if overfits else None
