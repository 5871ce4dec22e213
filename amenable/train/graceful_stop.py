"""Graceful stop: the first Ctrl-C or SIGTERM is a request, the second one interrupts at once.

On Windows, where SIGTERM ends a process at once, Ctrl-Break asks another process to stop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def stop_signals() -> list[int]:
    """Return the signals that ask for a stop on this system."""
    names = ("SIGINT", "SIGTERM", *(("SIGBREAK",) if sys.platform == "win32" else ()))
    return [int(getattr(signal, name)) for name in names]


def creation_flags() -> int:
    """Return subprocess.Popen's `creationflags` for a process that `request_stop` can reach."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def request_stop(process: subprocess.Popen[Any]) -> None:
    """Ask a process, begun with `creation_flags`, to save and stop."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.terminate()


class GracefulStop:
    """Context in which the first of the stop signals sets `requested` and calls `notify`; a second one interrupts."""

    def __init__(self, notify: Callable[[], None]):
        self.notify, self.requested = notify, False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulStop:
        try:
            for number in stop_signals():
                self.previous[number] = signal.signal(number, self.handle)
        except ValueError:  # not the main thread, which alone gets signals
            self.previous = {}
        return self

    def handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.notify()

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
