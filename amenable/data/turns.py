"""Conversations from the values of a column: lists of messages, hh-rlhf transcripts, plain text.

    [{role, content[, weight, train]}]  or  [{from, value}] (ShareGPT); a single object is a message
    \n\nHuman: ... \n\nAssistant: ...                        hh-rlhf
    other text                                               a user's message, or a completion

`weight: 0` or `train: false` excludes an assistant's message from the loss. Weights other than 0 and 1 are an error, as
in OpenAI's fine-tuning format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amenable.data.record import InvalidRow, kind, text_of
from amenable.data.types import Conversation, Message

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def conversation(value: Any, column: str) -> Conversation:
    """Read messages, a transcript, or a user's text."""
    if not isinstance(value, str):
        return turns(value, column)
    if not value.strip():
        raise InvalidRow(f"{column} is empty")
    if not is_transcript(value):
        return (Message("user", value),)
    messages = transcript(value)
    return messages[:-1] if messages[-1] == Message("assistant", "") else messages  # the completion goes there


def turns(value: Any, column: str) -> Conversation:
    """Read a list of messages."""
    if not isinstance(value, list):
        raise InvalidRow(f"{column} is {kind(value)}, not a list of messages")
    entries = [entry for entry in value if entry is not None]
    return tuple(message(entry, f"message {i} of {column}") for i, entry in enumerate(entries, start=1))


def message(value: Any, name: str) -> Message:
    """Read a message; `name` is its name in errors."""
    if not isinstance(value, Mapping):
        raise InvalidRow(f"{name} is {kind(value)}, not an object")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if not isinstance(role, str) or role not in SPEAKERS:
        raise InvalidRow(f"unknown role {role!r} in {name} (known: {', '.join(SPEAKERS)})")
    text = text_of(content, f"the content of {name}")
    return Message(SPEAKERS[role], text, SPEAKERS[role] != "assistant" or is_trained(value, name))


def is_trained(turn: Mapping[str, Any], name: str) -> bool:
    """Return False for an assistant's message that `weight` or `train` excludes from the loss."""
    marks = {key: turn[key] for key in ("weight", "train") if key in turn}
    for key, mark in marks.items():
        if not isinstance(mark, int | float) or mark not in (0, 1):
            raise InvalidRow(f"{key} of {name} is {mark!r}; known are 0 and 1 (weight), false and true (train)")
    if len(set(map(bool, marks.values()))) > 1:
        raise InvalidRow(f"weight and train of {name} contradict each other")
    return all(marks.values())


def reply(value: Any, name: str, transcripts: bool = False) -> tuple[Conversation, str]:
    """Split a completion (text, a message, or messages that end with it) into (messages before, text).

    transcripts: text may be a whole hh-rlhf dialogue.
    """
    if not isinstance(value, str | list | Mapping):
        raise InvalidRow(f"{name} is {kind(value)}, not text")
    if isinstance(value, str) and not (transcripts and is_transcript(value)):
        return (), value
    if isinstance(value, str):
        messages = transcript(value)
    else:
        messages = (message(value, name),) if isinstance(value, Mapping) else turns(value, name)
    if not messages or messages[-1].role != "assistant":
        raise InvalidRow(f"{name} does not end with the assistant")
    return messages[:-1], messages[-1].content


def is_transcript(value: str) -> bool:
    """Return True for a dialogue in the format of hh-rlhf."""
    return value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(value: str) -> Conversation:
    """Read a dialogue of hh-rlhf: blank line, "Human:" or "Assistant:", content."""
    pieces = TURN.split(value)[1:]
    roles = ["user" if name == "Human" else "assistant" for name in pieces[::2]]
    return tuple(Message(role, content.strip()) for role, content in zip(roles, pieces[1::2]))


def common_start(first: str, second: str) -> int:
    """Count the characters of the common beginning of two texts, up to the end of a word in both."""
    end = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    while end and not all(ends_word(text, end) for text in (first, second)):
        end -= 1
    return end


def ends_word(text: str, end: int) -> bool:
    """Return True if no word continues across index `end` of the text."""
    return end == len(text) or text[end - 1].isspace() or text[end].isspace()


def holds(conversation: Conversation, part: Conversation) -> bool:
    """Return True if `conversation` contains the consecutive messages `part`; user texts may have more paragraphs."""

    def same(mine: Message, other: Message) -> bool:
        more = mine.role == "user" and f"\n\n{other.content}\n\n" in f"\n\n{mine.content}\n\n"
        return mine.role == other.role and (more or mine.content == other.content)

    starts = range(len(conversation) - len(part) + 1)
    return any(all(map(same, conversation[start:], part)) for start in starts)
