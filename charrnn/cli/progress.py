"""The output of ``charrnn train``, on stderr: a progress bar on a terminal, and lines."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn import formatting as fmt

if TYPE_CHECKING:
    from charrnn.training.loop import StepResult
    from charrnn.training.run import Run

MIN_COPY_WARNING = 60  # characters: too long a passage to be written twice by chance


class Display:
    """A bar on a terminal, and lines; ``quiet`` leaves only the warnings."""

    def __init__(self, run: Run, quiet: bool) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # a thread of its own, which no command needs
        self.run, self.quiet = run, quiet
        self.bar = tqdm(
            total=run.characters_at_step(run.plan["steps"]),
            initial=run.characters_at_step(run.state.step),
            unit="ch",
            unit_scale=True,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def print(self, lines: Iterable[str]) -> None:
        if not self.quiet:
            for line in lines:
                self.bar.write(fmt.escape_control(line), file=sys.stderr)

    def update(self, step: StepResult) -> None:
        for message in step.messages:
            self.bar.write(fmt.escape_control(f"charrnn: {message}"), file=sys.stderr)
        if step.step == 1 or step.evaluation or step.sample:
            self.print(step_lines(self.run, step))
        if self.bar.update(step.characters):  # was drawn now: shown the next time
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)


def start_lines(run: Run) -> Iterator[str]:
    config, state, corpus, batches = run.config, run.state, run.state.corpus, run.state.batches
    splits, unit, steps = corpus["split_characters"], fmt.loss_unit(config.unit), run.plan["steps"]
    distinct = f"{len(run.vocabulary):,} distinct"
    if config.unit == "jamo":
        distinct += f" symbols, {run.splits.symbols_per_character:.2f} symbols per character"
    yield (
        f"{corpus['name']}: {fmt.format_count(corpus['characters'], unit)} ({distinct}); "
        f"{splits['train']:,} for training, {splits['val']:,} for validation, "
        f"{splits['test']:,} for testing"
    )
    yield (
        f"{config.cell} {config.num_layers}x{config.hidden_size}, "
        f"{fmt.format_count(state.parameters, 'parameter')}; "
        f"batch size {batches['batch_size']}, sequence length {batches['seq_length']}; "
        f"{fmt.format_count(steps, 'step')} ({steps / batches['steps_per_epoch']:.1f} epochs); "
        f"{fmt.format_threads(state.threads)}"
    )
    yield from state.notes
    if baselines := state.baselines["val"]:
        yield f"baseline validation loss, nats per {unit}: {fmt.format_baselines(baselines)}"
    if state.step:
        yield f"resumed at step {state.step:,}"


def step_lines(run: Run, step: StepResult) -> Iterator[str]:
    if step.step == 1:
        V, ratio = len(run.vocabulary), run.splits.symbols_per_character
        times = "" if f"{ratio:.2f}" == "1.00" else f"{ratio:.2f} "  # symbols per character
        uniform = f"{times}ln {V} = {ratio * math.log(V):.3f}"
        yield f"initial loss {step.loss:.3f} (uniform: {uniform})"
    if row := step.evaluation:
        val = "" if row["val_loss"] is None else f"  validation {fmt.format_loss(row['val_loss'])}"
        norm = "non-finite" if row["grad_norm"] is None else f"{row['grad_norm']:.2f}"
        yield (
            f"step {row['step']:6,}  epoch {row['epoch']:5.2f}  "
            f"training {fmt.format_loss(row['train_loss'])}{val}  "
            f"gradient norm {norm}  learning rate {row['learning_rate']:.2g}"
        )
    if step.sample:
        yield f"sample at step {step.step:,}:"
        for line in step.sample.removesuffix("\n").split("\n"):
            yield f"  | {line}"


def end_lines(run: Run, path: Path, corpus: Sequence[str]) -> Iterator[str]:
    """Yield the losses of a finished run, its warnings, and the command that samples from it."""
    from charrnn.training.loop import LOWER_LR_HINT, longest_copy, overfit_loss

    state = run.state
    baselines, best, test_loss = state.baselines, state.best, state.test_loss
    # the losses
    best_loss, losses = fmt.format_loss(best["val_loss"]), []
    if baselines["val"]:
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

    # warnings
    if state.nonfinite_events:
        events = fmt.format_count(len(state.nonfinite_events), "non-finite event")
        yield f"{events}; the learning rate was halved each time; {LOWER_LR_HINT}"
    if (loss := overfit_loss(run)) is not None:
        yield (
            f"the model is overfitting: validation loss rose from {best_loss} "
            f"(step {run.model_step:,}) to {fmt.format_loss(loss)} while training loss fell; "
            f"use --dropout, a smaller model or fewer steps"
        )
    if (n := longest_copy(run)) >= MIN_COPY_WARNING:
        command = fmt.shell_command("charrnn", "overlap", path, *map(fmt.file_argument, corpus))
        yield (
            f"the last sample repeats {n:,} characters of the training text verbatim; "
            f"to measure how much is copied: {command}"
        )

    sample = fmt.shell_command("charrnn", "sample", fmt.file_argument(path))
    yield f"saved {path}; sample from it with: {sample}"
