"""Types of examples: texts, conversations, prompts, rankings of completions."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from amenable.errors import InputError

ROLES = ("system", "developer", "user", "assistant", "tool")
INSTRUCTING = ("system", "developer")
"""roles of the message that comes before the conversation, if there is one"""
ANSWERED = ("user", "tool")
"""roles of messages that the assistant answers"""


@dataclass(frozen=True)
class ToolCall:
    """Call of a tool by the assistant."""

    name: str
    arguments: str
    """JSON object, as text"""
    id: str = ""


@dataclass(frozen=True)
class Message:
    """Turn of a conversation: role (one of ROLES) and content."""

    role: str
    content: str
    trained: bool = field(default=True, compare=False)
    """False excludes an assistant's turn of a demonstration from the loss; ignored when messages are compared"""
    reasoning: str = ""
    """the assistant's thinking before the content, where it is not a block of the content"""
    tool_calls: tuple[ToolCall, ...] = ()
    """tools that the assistant calls after the content"""
    tool_call_id: str = ""
    """id of the call that a tool's message answers"""
    name: str = ""
    """name of the tool that a tool's message is of"""
    tools: str = ""
    """JSON schemas of the tools that the assistant may call, a list as text; in a conversation's first message only"""


Conversation: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True)
class Text:
    """Document of raw text. `meta` holds the unused columns of its row, here and below."""

    text: str
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstration:
    """Conversation to imitate; ends with the assistant."""

    messages: Conversation
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """Conversation to complete; ends with the user."""

    messages: Conversation
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabeledCompletion:
    """Completion of a prompt with a label: True where it is desirable."""

    prompt: Conversation
    completion: str
    label: bool
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Completions of a prompt with an annotator's ranks; a comparison is a ranking of two.

    `ranks[i]` belongs to `completions[i]`: 1 is the best, equal completions share a rank.
    """

    prompt: Conversation
    completions: tuple[str, ...]
    ranks: tuple[float, ...]
    id: str = ""
    annotator: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    margin: float | None = None
    """target reward difference of a pair, any finite number (Touvron et al., 2023, eq. 2); None for longer rankings"""

    def __post_init__(self) -> None:
        if len(self.completions) != len(self.ranks):
            raise InputError(f"{len(self.completions)} completions and {len(self.ranks)} ranks", self.id or None)
        if self.margin is not None and (len(self.completions) != 2 or not math.isfinite(self.margin)):
            problem = f"a margin of {self.margin} for {len(self.completions)} completions"
            raise InputError(problem, self.id or None, "a margin is a finite number that belongs to a pair")


E = TypeVar("E", Demonstration, Ranking, LabeledCompletion)


def example_to_json(example: Demonstration | Ranking | LabeledCompletion) -> str:
    """Return an example as JSON, for `example_from_json`; values that JSON has not, such as dates, as text."""
    return json.dumps(asdict(example), ensure_ascii=False, default=str)


def example_from_json(kind: type[E], content: str | bytes) -> E:
    """Return the example of a type that `example_to_json` wrote."""
    fields: dict[str, Any] = json.loads(content)
    for name in {"messages", "prompt"} & fields.keys():
        fields[name] = tuple(
            Message(**message | {"tool_calls": tuple(ToolCall(**call) for call in message["tool_calls"])})
            for message in fields[name]
        )
    lists = {name: tuple(fields[name]) for name in ("completions", "ranks") if name in fields}
    return kind(**fields | lists)


def last_trained(messages: Conversation, unit: Literal["last", "exchange"] = "last") -> Conversation:
    """Return the conversation with only the last trained turn of the assistant trained; with the unit "exchange" all
    those after the user's last message: calls of tools, and the answer."""
    trained = [i for i, message in enumerate(messages) if message.role == "assistant" and message.trained]
    user = max((i for i in range(len(messages)) if messages[i].role == "user"), default=-1)
    first = next((i for i in trained if i > user), None) if unit == "exchange" else None
    first = first if first is not None else trained[-1] if trained else 0
    return tuple(replace(message, trained=message.trained and i >= first) for i, message in enumerate(messages))


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as a row of a data file: its messages, its id, and the further columns of the row it is from."""
    return {"prompt": [message_fields(message) for message in prompt.messages], "id": prompt.id, **prompt.meta}


def message_fields(message: Message) -> dict[str, Any]:
    """Return a message as it stands in data files, in OpenAI's form; fields that are empty are left out."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    for name, key in (("reasoning", "reasoning_content"), ("name", "name"), ("tool_call_id", "tool_call_id")):
        if value := getattr(message, name):
            fields[key] = value
    if message.tool_calls:
        fields["tool_calls"] = [
            ({"id": call.id} if call.id else {})
            | {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tools:
        fields["tools"] = json.loads(message.tools)
    return fields if message.trained else fields | {"weight": 0}


def conversation_error(messages: Sequence[Message]) -> str | None:
    """Return the error in a conversation, or None. One of the system or developer may come first."""
    if not messages:
        return "the conversation is empty"
    roles = [message.role for message in messages]
    for role in roles:
        if role not in ROLES:
            return f"unknown role '{role}' (known: {', '.join(ROLES)})"
    instructing = [i for i, role in enumerate(roles) if role in INSTRUCTING]
    if len(instructing) > 1:
        return "two system messages"
    if instructing not in ([], [0]):
        return "the system message is not the first"
    for i, message in enumerate(messages):
        if message.role == "tool" and (problem := unanswered(messages[:i], message)):
            return f"message {i + 1} is a tool's, and {problem}"
    return None


def unanswered(before: Sequence[Message], result: Message) -> str | None:
    """Return the reason why a tool's message answers no call of the messages before it, or None."""
    called = next((message for message in reversed(before) if message.role != "tool"), None)
    if called is None or called.role != "assistant":
        return "no message of the assistant comes before it"
    ids = [call.id for call in called.tool_calls if call.id]
    if result.tool_call_id and ids and result.tool_call_id not in ids:
        return f"answers the call {result.tool_call_id}, which is none of {', '.join(ids)}"
    return None
