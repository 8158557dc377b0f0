"""Who follows a training in Python: a progress bar, and a callback."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from charrnn.training.loop import StepResult
from charrnn.training.run import Run


class Progress(NamedTuple):
    """How far a training is after a step; losses are in nats per character."""

    step: int
    steps: int  # of the plan
    epoch: float
    loss: float  # of this step's batch
    val_loss: float | None  # if this step has an evaluation
    sample: str | None  # if this step has one
    characters_per_second: float  # since the training started
    seconds_left: float  # to the end of the plan


class Observer:
    """Shows a bar with ``progress``, and calls ``on_step``; ``has_ended`` once that returns True.

    The bar is that of ``tqdm.auto``, so notebooks get their own.
    """

    def __init__(
        self, run: Run, progress: bool, on_step: Callable[[Progress], object] | None
    ) -> None:
        self.run, self.on_step = run, on_step
        self.started, self.characters, self.has_ended = time.monotonic(), 0, False
        self.bar: Any = None
        if progress:
            from tqdm.auto import tqdm

            total = run.planned_characters
            self.bar = tqdm(total=total, unit="ch", unit_scale=True, dynamic_ncols=True)

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, step: StepResult) -> None:
        self.characters += step.characters
        if self.bar is not None:
            self.bar.total = self.run.planned_characters
            self.bar.set_description_str(f"step {step.step:,}", refresh=False)
            self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
            self.bar.update(step.characters)
        if self.on_step is not None and self.on_step(self.progress(step)) is True:
            self.has_ended = True

    def progress(self, step: StepResult) -> Progress:
        rate = self.characters / max(time.monotonic() - self.started, 1e-9)
        characters_left = self.run.planned_characters - self.run.characters_at_step(step.step)
        row = step.evaluation
        return Progress(
            step=step.step,
            steps=self.run.plan["steps"],
            epoch=self.run.state.epoch,
            loss=step.loss,
            val_loss=row["val_loss"] if row else None,
            sample=step.sample,
            characters_per_second=rate,
            seconds_left=characters_left / max(rate, 1e-9),
        )
