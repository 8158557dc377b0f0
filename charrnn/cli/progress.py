"""The output of ``charrnn train``, on stderr: a progress bar on a terminal, and lines."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn import formatting as fmt

if TYPE_CHECKING:
    from charrnn.storage.state import Evaluation
    from charrnn.training.loop import StepResult
    from charrnn.training.run import Run

MIN_COPY_WARNING = 60  # characters: too long a passage to be written twice by chance
DIVERGED_RATIO = 1.5  # of the training loss to that of a uniform guess
# of an evaluation, in nats per character; bits are those of the validation loss
COLUMNS = {"step": 9, "epoch": 8, "train": 9, "val": 9, "bits": 8, "ch/s": 10, "left": 9}


class Display:
    """A table of the evaluations, the samples, and on a terminal a bar; ``quiet``: warnings only.

    The head of the table is printed again on every screen.
    """

    def __init__(self, run: Run, quiet: bool) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # a thread of its own, which no command needs
        self.run, self.quiet = run, quiet
        self.is_terminal = sys.stderr.isatty()
        self.screen = shutil.get_terminal_size()
        self.lines_since_head = self.screen.lines
        self.initial = run.characters_at_step(run.state.step)
        self.bar = tqdm(
            total=run.planned_characters,
            initial=self.initial,
            unit="ch",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
            disable=quiet or not self.is_terminal,
        )
        self.started = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def print(self, lines: Iterable[str]) -> None:
        """Print lines. On a terminal they are wrapped between words, except indented ones."""
        if self.quiet:
            return
        for line in lines:
            line = fmt.escape_control(line)
            wraps = self.is_terminal and not line.startswith(" ")
            width = max(self.screen.columns - 1, 20)
            shown = textwrap.wrap(line, width, subsequent_indent="  ") if wraps else [line]
            for part in shown:
                self.bar.write(part, file=sys.stderr)
            self.lines_since_head += len(shown)

    def update(self, step: StepResult) -> None:
        for message in step.messages:
            self.bar.write(fmt.escape_control(f"charrnn: {message}"), file=sys.stderr)
            self.lines_since_head += 1
        if step.step == 1:
            self.print([initial_line(self.run, step.loss)])
        if row := step.evaluation:
            self.print(self.table_lines(row))
            self.bar.total = self.run.planned_characters
        if step.sample:
            self.print(sample_lines(step))
        if self.bar.update(step.characters):  # was drawn now: shown the next time
            self.bar.set_description_str(f"step {step.step:,}", refresh=False)
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)

    def table_lines(self, row: Evaluation) -> Iterator[str]:
        """Yield the row of an evaluation, below the head if that is no longer on the screen."""
        widths = fit_columns(self.screen.columns if self.is_terminal else 80)
        if self.lines_since_head + 2 >= self.screen.lines:
            self.lines_since_head = 0
            names = {"ch/s": "targets/s"} if self.run.state.task else {}
            yield "".join(names.get(name, name).rjust(width) for name, width in widths.items())
        cells = {**evaluation_cells(self.run, row), "left": self.time_left(row)}
        yield "".join(cells[name].rjust(width) for name, width in widths.items())

    def time_left(self, row: Evaluation) -> str:
        """Return the time to the end of the plan, at the rate of this invocation."""
        from tqdm import tqdm

        done = self.run.characters_at_step(row["step"])
        rate = (done - self.initial) / max(time.monotonic() - self.started, 1e-9)
        left = self.run.planned_characters - done
        return str(tqdm.format_interval(left / rate)) if rate > 0 else ""


def fit_columns(columns: int) -> dict[str, int]:
    """Return the columns of the table that fit the terminal, with their widths."""
    widths, total = {}, 0
    for name, width in COLUMNS.items():
        total += width
        if total < columns:
            widths[name] = width
    return widths


def evaluation_cells(run: Run, row: Evaluation) -> dict[str, str]:
    """Return what the table shows of an evaluation; ``*`` marks the best validation loss so far."""
    # the rate of training since the evaluation before
    history = run.state.history
    before = history[-2] if len(history) > 1 else {"characters_seen": 0, "seconds": 0.0}
    characters = row["characters_seen"] - before["characters_seen"]
    seconds = row["seconds"] - before["seconds"]

    train, val = row["train_loss"], row["val_loss"]
    loss = train if val is None else val
    is_best = val is not None and run.state.best["step"] == row["step"]
    return {
        "step": f"{row['step']:,}",
        "epoch": f"{row['epoch']:.2f}",
        "train": format_cell(train),
        "val": f"{format_cell(val)}{'*' if is_best else ' '}",
        "bits": "-" if loss is None else format_cell(loss / math.log(2), 3),
        "ch/s": f"{characters / seconds:,.0f}" if seconds > 0 else "-",
    }


def format_cell(loss: float | None, digits: int = 4) -> str:
    """Return a loss in at most 8 characters; ``-`` for none, or a non-finite one."""
    if loss is None:
        return "-"
    return f"{loss:.{digits}f}" if abs(loss) < 100 else f"{loss:.1e}"


def start_lines(run: Run) -> Iterator[str]:
    config, state, corpus, batches = run.config, run.state, run.state.corpus, run.state.batches
    splits, unit, steps = corpus["split_characters"], fmt.loss_unit(config.unit), run.plan["steps"]
    targets = "targets: " * (state.task is not None)
    distinct = f"{len(run.vocabulary):,} distinct"
    if config.unit in ("jamo", "word"):
        distinct += f" symbols, {run.splits.symbols_per_character:.2f} symbols per character"
    yield (
        f"{corpus['name']}: {fmt.format_count(corpus['characters'], unit)} ({distinct}); "
        f"{targets}{splits['train']:,} for training, {splits['val']:,} for validation, "
        f"{splits['test']:,} for testing"
    )
    yield (
        f"{config.cell} {config.num_layers}x{config.hidden_size}, "
        f"{fmt.format_count(state.parameters, 'parameter')}; "
        f"batch size {batches['batch_size']}, sequence length {batches['seq_length']}; "
        f"{fmt.format_count(steps, 'step')} ({steps / batches['steps_per_epoch']:.1f} epochs); "
        f"{fmt.format_workers(state.workers, state.ranks, state.sync_every)}"
    )
    yield from state.notes
    if baselines := state.baselines["val"]:
        yield f"baseline validation loss, nats per {unit}: {fmt.format_baselines(baselines)}"
    for name, measures in state.measures.items():
        yield f"{name}, {measured_split(run)}: {fmt.format_measures(measures)}"
    if state.step:
        yield f"resumed at step {state.step:,}"


def measured_split(run: Run) -> str:
    return "test split" if run.state.corpus["split_characters"]["test"] else "validation split"


def uniform_loss(run: Run) -> float:
    """Return the loss of a uniform guess, in nats per character."""
    return run.splits.symbols_per_character * math.log(run.network.num_outputs)


def initial_line(run: Run, loss: float) -> str:
    ratio = f"{run.splits.symbols_per_character:.2f}"
    times = "" if ratio == "1.00" else f"{ratio} "  # symbols per character
    uniform = f"{times}ln {run.network.num_outputs} = {uniform_loss(run):.3f}"
    return f"initial loss {loss:.3f} (uniform: {uniform})"


def sample_lines(step: StepResult) -> Iterator[str]:
    assert step.sample is not None
    yield f"sample at step {step.step:,}:"
    for line in step.sample.removesuffix("\n").split("\n"):
        yield f"  | {line}"


def end_lines(run: Run, path: Path, corpus: Sequence[str]) -> Iterator[str]:
    """Yield the losses of a finished run, its warnings, and the command that samples from it."""
    from charrnn.training.loop import LOWER_LR_HINT, overfit_loss
    from charrnn.training.samples import longest_copy

    state = run.state
    baselines, best, test_loss = state.baselines, state.best, state.test_loss
    # the losses
    best_loss, losses = fmt.format_loss(best["val_loss"]), []
    if best["val_loss"] is not None and (baselines["val"] or state.task):
        losses.append(f"best validation loss {best_loss} at step {run.model_step:,}")
    if test_loss is not None:
        losses.append(f"test loss of the best weights {fmt.format_loss(test_loss)}")
    yield "; ".join(losses) or f"training loss {fmt.format_loss(state.history[-1]['train_loss'])}"
    val = ("validation", baselines["val"], best["val_loss"])
    for split, of_split, loss in (val, ("test", baselines["test"], test_loss)):
        if of_split and loss is not None:
            yield (
                f"{split} loss, nats per {fmt.loss_unit(run.config.unit)}: "
                f"{fmt.format_baselines(of_split)}, model {loss:.3f}"
            )

    for name, measures in state.measures.items():
        yield f"{name}, {measured_split(run)}: {fmt.format_measures(measures)}"
    if state.mixing and state.mixing["mixed_loss"] is not None:
        mixed, counts = (fmt.format_loss(state.mixing[k]) for k in ("mixed_loss", "counts_loss"))
        yield f"test loss if mixed with n-grams that learn {mixed}; of these alone {counts}"

    # the end, and warnings
    if run.is_out_of_patience and state.step < run.plan["steps"]:
        evaluations = fmt.format_count(run.config.patience, "evaluation")
        yield (
            f"stopped early at step {state.step:,} of {run.plan['steps']:,}: no better validation "
            f"loss in {evaluations} (--patience)"
        )
    train_loss = state.history[-1]["train_loss"]
    if train_loss is not None and train_loss > DIVERGED_RATIO * uniform_loss(run):
        yield (
            f"the training diverged: its loss is above that of a uniform guess, "
            f"{uniform_loss(run):.3f}; {LOWER_LR_HINT}"
        )
    if state.nonfinite_events:
        events = fmt.format_count(len(state.nonfinite_events), "non-finite event")
        yield f"{events}; the learning rate was halved each time; {LOWER_LR_HINT}"
    if (loss := overfit_loss(run)) is not None:
        yield (
            f"the model is overfitting: validation loss rose from {best_loss} "
            f"(step {run.model_step:,}) to {fmt.format_loss(loss)} while training loss fell; "
            f"use --dropout, a smaller model or fewer steps"
        )
    if not state.task and (n := longest_copy(run)) >= MIN_COPY_WARNING:
        yield (
            f"the last sample repeats {n:,} characters of the training text verbatim; "
            f"to measure how much is copied:"
        )
        yield f"  {fmt.shell_command('charrnn', 'overlap', path, *map(fmt.file_argument, corpus))}"

    verb, command = ("predict", "predict") if state.task else ("sample from it", "sample")
    yield f"saved {path}; {verb} with:"
    files = [path, Path(str(state.features["file"][0]))] if state.features else [path]
    yield f"  {fmt.shell_command('charrnn', command, *map(fmt.file_argument, files))}"
