"""Incremental detokenization: text token by token, without partial characters, cut at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
DECODE_WINDOW = 16
"""tokens after which the window that is decoded again starts later"""


class IncrementalDetokenizer:
    """Text of ids that arrive one by one.

    A token may end inside a character: such a part is held back until the rest arrives. Only the last few tokens are
    decoded each time.
    """

    def __init__(self, decode: Decode):
        self.decode = decode
        self.ids: list[int] = []
        self.text = ""
        self.start = 0  # ids[start:] is the window that is decoded
        self.clean = 0  # the last index where a character began
        self.known = ""  # the part of the window's text that is in self.text

    def push(self, token: int, stop: Sequence[str] = ()) -> bool:
        """Append a token; cut the text at the first stop string and return True if there is one."""
        self.ids.append(token)
        window = self.decode(self.ids[self.start :])
        settled = window[: max(len(window.rstrip("\ufffd")), len(window) - 3)]
        before = len(self.text)
        self.text += settled[len(self.known) :]
        self.known = settled
        if settled == window:
            self.shift()
        return self.cut(stop, before)

    def shift(self) -> None:
        """Start a long window later, where a character begins."""
        if len(self.ids) - self.start > DECODE_WINDOW:
            self.start = self.clean
            self.known = self.decode(self.ids[self.start :])
        self.clean = len(self.ids)

    def cut(self, stop: Sequence[str], before: int) -> bool:
        """Cut the text where the first stop string that ends after index `before` begins; return True if any does."""
        starts = [self.text.find(string, max(0, before - len(string) + 1)) for string in stop]
        starts = [start for start in starts if start >= 0]
        if starts:
            self.text = self.text[: min(starts)]
        return bool(starts)

    def stable_length(self, stop: Sequence[str]) -> int:
        """Count the characters that cannot become part of a stop string."""
        longest = max((len(string) for string in stop), default=0)
        for held in range(min(longest - 1, len(self.text)), 0, -1):
            if any(string.startswith(self.text[-held:]) for string in stop):
                return len(self.text) - held
        return len(self.text)
