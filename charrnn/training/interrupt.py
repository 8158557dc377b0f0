"""Signals that ask a training to end: it finishes its step, and saves."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from charrnn.storage.output import remove_unfinished

# Ctrl-C, the end of a batch job, of a terminal, and of the CPU time; not all systems have all
STOP_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
    if hasattr(signal, name)
]
REPEATED_SIGNALS = ("SIGHUP", "SIGXCPU")  # come again while the training saves


class StopRequest:
    """Records the first of some signals within its context; then it is true when called.

    After the context, the signals have their former effects, unless the process ends with it. A
    second Ctrl-C raises KeyboardInterrupt, or ends the process, as a second SIGTERM does. A signal
    that is ignored, as under nohup, stays ignored. In another thread than the main one, no signal
    is recorded.
    """

    def __init__(self, signals: list[signal.Signals], process_ends: bool = False) -> None:
        self.signal_number, self.process_ends = 0, process_ends
        is_main = threading.current_thread() is threading.main_thread()
        self._old = {number: signal.getsignal(number) for number in signals if is_main}

    def __call__(self) -> bool:
        return self.signal_number > 0

    def __enter__(self) -> StopRequest:
        for number, handler in self._old.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            if handler is not None and not self.process_ends:
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        self.signal_number = number
        again: Any = signal.SIG_DFL if self.process_ends else signal.default_int_handler
        is_repeated = signal.Signals(number).name in REPEATED_SIGNALS
        signal.signal(number, signal.SIG_IGN if is_repeated else again)


def exit_on_signals() -> None:
    """Let a signal end this process at once, without the files that are not complete yet."""

    def end(number: int, _: object) -> None:
        remove_unfinished()
        os._exit(128 + number)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
