"""A run that ends in time: its plan has as many steps as there is time for.

The speed of a machine changes while other programs run, so the plan is revised all along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from charrnn.config import MAX_COUNT
from charrnn.storage.state import State


class Deadline:
    """The end of a run, ``at`` on the clock of ``time.monotonic`` or after ``max_steps``."""

    def __init__(self, at: float) -> None:
        self.at, self.max_steps = at, MAX_COUNT  # the second one of the plan
        self._closing_seconds = 0.0
        self._since, self._step = at, -1

    def start(self, step: int) -> None:
        """Measure the time per step from now on."""
        self._since, self._step = time.monotonic(), step

    def revise(
        self, state: State, eval_seconds: float, closing_seconds: Callable[[], float]
    ) -> int:
        """Return the number of steps for the plan, after an evaluation of ``eval_seconds``.

        ``closing_seconds`` returns how long the end of the run takes; it is called once.
        """
        now, plan = time.monotonic(), state.plans[-1]
        step_seconds = (now - eval_seconds - self._since) / max(state.step - self._step, 1)
        step_seconds += eval_seconds / plan["eval_every"]
        if len(state.history) == 1:
            self._closing_seconds = closing_seconds()
        self.start(state.step)
        seconds_left = self.at - self._since - self._closing_seconds
        steps = state.step + max(1, round(seconds_left / step_seconds))
        return max(min(steps, self.max_steps), state.step + 1)
