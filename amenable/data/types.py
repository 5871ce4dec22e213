"""What an example is: a text, a conversation, a prompt, a ranking of answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from amenable.errors import InputError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn: who speaks (system, user or assistant) and what is said."""

    role: str
    content: str
    trained: bool = field(default=True, compare=False)
    """False makes an assistant's turn in a demonstration context only. It is no part of what was said: two turns that
    differ in it are equal"""


Conversation: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True)
class Text:
    """A document of raw text. `meta` keeps the other columns of its row, here and below."""

    text: str
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstration:
    """A conversation to imitate; it ends with the assistant."""

    messages: Conversation
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant; it ends with the user."""

    messages: Conversation
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Answers to one prompt in somebody's order of preference; a comparison is a ranking of two.

    `ranks[i]` belongs to `completions[i]`: 1 is the best, equal answers share a rank.
    """

    prompt: Conversation
    completions: tuple[str, ...]
    ranks: tuple[float, ...]
    id: str = ""
    annotator: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    margin: float | None = None
    """of a pair: how far the better answer's reward is to be above the other's, in units of reward, any finite number
    (Touvron et al., 2023, eq. 2); rankings of more answers have none"""

    def __post_init__(self) -> None:
        if len(self.completions) != len(self.ranks):
            raise InputError(f"{len(self.completions)} completions and {len(self.ranks)} ranks", self.id or None)
        if self.margin is not None and (len(self.completions) != 2 or not math.isfinite(self.margin)):
            what = f"a margin of {self.margin} for {len(self.completions)} completions"
            raise InputError(what, self.id or None, "a margin is a finite number that belongs to a pair")


@dataclass(frozen=True)
class Labelled:
    """One answer to one prompt, and whether it is wanted (unpaired preference)."""

    prompt: Conversation
    completion: str
    label: bool
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def last_trained(messages: Conversation) -> Conversation:
    """The conversation with all turns of the assistant as context, but for the last of those that are trained."""
    trained = [place for place, message in enumerate(messages) if message.role == "assistant" and message.trained]
    return tuple(
        replace(message, trained=place not in trained[:-1] and message.trained)
        for place, message in enumerate(messages)
    )


def fault(messages: Sequence[Message]) -> str | None:
    """What is wrong with a conversation, or None: it may open with one system message, and then the user speaks."""
    if not messages:
        return "the conversation is empty"
    roles = [message.role for message in messages]
    for role in roles:
        if role not in ROLES:
            return f"unknown role '{role}' (known: {', '.join(ROLES)})"
    if roles.count("system") > 1:
        return "two system messages"
    if "system" in roles[1:]:
        return "the system message is not the first"
    spoken = [role for role in roles if role != "system"]
    if spoken and spoken[0] == "assistant":
        return "the assistant speaks before any user"
    return None
