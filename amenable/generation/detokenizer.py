"""Text that grows token by token: never half a character, and cut at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]
DECODE_WINDOW = 16
"""tokens after which the window that is decoded anew starts later"""


class GrowingText:
    """The text of ids that come one by one.

    A token may end inside a character: what could still change is held back until the rest of it comes. Only the last
    few tokens are decoded each time.
    """

    def __init__(self, decode: Decode):
        self.decode = decode
        self.ids: list[int] = []
        self.text = ""
        self.start = 0  # the window that is decoded is ids[start:]
        self.clean = 0  # the last place where no character was open
        self.known = ""  # how much of the window's text is in self.text

    def push(self, token: int, stop: Sequence[str] = ()) -> bool:
        """Add a token; True once the text holds a stop string, from which on it is then cut off."""
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
        """Start the window later, where a character begins, once it has grown long."""
        if len(self.ids) - self.start > DECODE_WINDOW:
            self.start = self.clean
            self.known = self.decode(self.ids[self.start :])
        self.clean = len(self.ids)

    def cut(self, stop: Sequence[str], before: int) -> bool:
        """Cut the text where the first stop string begins, if one ends after place `before`."""
        places = [self.text.find(string, max(0, before - len(string) + 1)) for string in stop]
        found = [place for place in places if place >= 0]
        if found:
            self.text = self.text[: min(found)]
        return bool(found)

    def sure(self, stop: Sequence[str]) -> int:
        """How many characters can't be part of a stop string that is still to be completed."""
        longest = max((len(string) for string in stop), default=0)
        for held in range(min(longest - 1, len(self.text)), 0, -1):
            if any(string.startswith(self.text[-held:]) for string in stop):
                return len(self.text) - held
        return len(self.text)
