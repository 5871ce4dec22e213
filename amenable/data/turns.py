"""Conversations out of the values of a column: lists of messages, hh-rlhf transcripts, plain text.

    [{role, content[, weight, train]}]  or  [{from, value}]  as ShareGPT has it; one such object alone is one message
    \n\nHuman: ... \n\nAssistant: ...                        as hh-rlhf has it
    anything else                                            what a user says, or an answer

`weight: 0` or `train: false` makes an assistant's message context: it is not trained. Other weights than 0 and 1 are an
error, as in the fine-tuning format of OpenAI that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amenable.data.record import Unusable, kind, text_of
from amenable.data.types import Conversation, Message

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def conversation(value: Any, column: str) -> Conversation:
    """Messages, a transcript, or text that a user says."""
    if not isinstance(value, str):
        return turns(value, column)
    if not value.strip():
        raise Unusable(f"{column} is empty")
    if not is_transcript(value):
        return (Message("user", value),)
    messages = transcript(value)
    return messages[:-1] if messages[-1] == Message("assistant", "") else messages  # where the answer goes


def turns(value: Any, column: str) -> Conversation:
    """A list of messages."""
    if not isinstance(value, list):
        raise Unusable(f"{column} is {kind(value)}, not a list of messages")
    entries = [entry for entry in value if entry is not None]
    return tuple(message(entry, f"message {place} of {column}") for place, entry in enumerate(entries, start=1))


def message(value: Any, name: str) -> Message:
    """One turn."""
    if not isinstance(value, Mapping):
        raise Unusable(f"{name} is {kind(value)}, not an object")
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if not isinstance(role, str) or role not in SPEAKERS:
        raise Unusable(f"unknown role {role!r} in {name} (known: {', '.join(SPEAKERS)})")
    text = text_of(content, f"the content of {name}")
    return Message(SPEAKERS[role], text, SPEAKERS[role] != "assistant" or is_trained(value, name))


def is_trained(turn: Mapping[str, Any], name: str) -> bool:
    """True for an assistant's message that is trained, false for one that is context."""
    marks = {key: turn[key] for key in ("weight", "train") if key in turn}
    for key, mark in marks.items():
        if not isinstance(mark, int | float) or mark not in (0, 1):
            raise Unusable(f"{key} of {name} is {mark!r}; known are 0 and 1 (weight), false and true (train)")
    if len(set(map(bool, marks.values()))) > 1:
        raise Unusable(f"weight and train of {name} contradict each other")
    return all(marks.values())


def reply(value: Any, name: str, transcripts: bool = False) -> tuple[Conversation, str]:
    """Split an answer, that is text, a message, or messages that end with it, into (the messages before it, its text).

    transcripts: text may be a whole hh-rlhf dialogue.
    """
    if not isinstance(value, str | list | Mapping):
        raise Unusable(f"{name} is {kind(value)}, not text")
    if isinstance(value, str) and not (transcripts and is_transcript(value)):
        return (), value
    if isinstance(value, str):
        messages = transcript(value)
    else:
        messages = (message(value, name),) if isinstance(value, Mapping) else turns(value, name)
    if not messages or messages[-1].role != "assistant":
        raise Unusable(f"{name} does not end with the assistant")
    return messages[:-1], messages[-1].content


def is_transcript(value: str) -> bool:
    """True for a dialogue as hh-rlhf writes it."""
    return value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(value: str) -> Conversation:
    """hh-rlhf: blank line, "Human:" or "Assistant:", and the words."""
    pieces = TURN.split(value)[1:]
    roles = ["user" if name == "Human" else "assistant" for name in pieces[::2]]
    return tuple(Message(role, content.strip()) for role, content in zip(roles, pieces[1::2]))


def common_start(first: str, second: str) -> int:
    """Count the characters that two texts begin with alike, up to the end of a word in both."""
    end = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    while end and not all(ends_word(text, end) for text in (first, second)):
        end -= 1
    return end


def ends_word(text: str, end: int) -> bool:
    """True for a place in a text across which no word goes on."""
    return end == len(text) or text[end - 1].isspace() or text[end].isspace()


def holds(conversation: Conversation, part: Conversation) -> bool:
    """True where a conversation has the messages of another in a row; a user's text may have further paragraphs."""

    def same(mine: Message, other: Message) -> bool:
        more = mine.role == "user" and f"\n\n{other.content}\n\n" in f"\n\n{mine.content}\n\n"
        return mine.role == other.role and (more or mine.content == other.content)

    places = range(len(conversation) - len(part) + 1)
    return any(all(map(same, conversation[start:], part)) for start in places)
