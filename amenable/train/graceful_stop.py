"""Graceful stop: the first Ctrl-C or SIGTERM is a request, the second one interrupts at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class GracefulStop:
    """Context in which the first SIGINT or SIGTERM sets `requested` and calls `notify`; a second one interrupts."""

    def __init__(self, notify: Callable[[], None]):
        self.notify, self.requested = notify, False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> GracefulStop:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
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
            signal.signal(number, handler)
