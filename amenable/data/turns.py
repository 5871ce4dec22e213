"""Conversations from the values of a column: lists of messages, hh-rlhf transcripts, plain text.

    [{role, content[, weight, train]}]  or  [{from, value}] (ShareGPT); a single object is a message
    \n\nHuman: ... \n\nAssistant: ...                        hh-rlhf
    other text                                               a user's message, or a completion

A content is text, or a list of parts [{type: text, text}]. A message of the assistant may have tool_calls (OpenAI's
form, or {name, arguments}), or is ShareGPT's function_call, and may have its thinking in reasoning_content, reasoning
or thinking, or in a block <think> of its content. A tool's result has the role tool, function or observation.

`weight: 0` or `train: false` excludes an assistant's message from the loss. Weights other than 0 and 1 are an error, as
in OpenAI's fine-tuning format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from amenable.data.record import InvalidRow, kind, text_of
from amenable.data.types import Conversation, Message, ToolCall

SPEAKERS = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "function_call": "assistant"},
    **{"system": "system", "developer": "developer"},
    **{"tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool"},
}
"""role of each speaker"""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""keys of an assistant's thinking"""
CLOSED_THINKING = re.compile(r"</(think|thinking|thought|reasoning)>")
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
    speaker, role = role, SPEAKERS[role]
    calls: tuple[ToolCall, ...] = ()
    reasoning = ""
    if speaker == "function_call":
        calls, content = tool_calls(content, name), ""
    elif role == "assistant":
        calls = tool_calls(value.get("tool_calls", value.get("function_call")), name)
        reasoning = reasoning_of(value, name)
        content = "" if content is None and (calls or reasoning) else content
    text = content_text(content, name, role)
    if reasoning and CLOSED_THINKING.search(text):
        raise InvalidRow(f"{name} has its thinking twice: in its content, and beside it")
    return Message(
        role,
        text,
        role != "assistant" or is_trained(value, name),
        reasoning,
        calls,
        tool_call_id=str(value.get("tool_call_id", "")) if role == "tool" else "",
        name=str(value.get("name", "")) if role == "tool" else "",
        tools=tool_schemas(value.get("tools"), f"tools of {name}"),
    )


def content_text(content: Any, name: str, role: str) -> str:
    """Read a message's text: text, a list of parts of text, or an object that a tool returned."""
    if isinstance(content, Mapping) and role == "tool":
        return json.dumps(content, ensure_ascii=False)
    if not isinstance(content, list):
        return text_of(content, f"the content of {name}")
    for part in content:
        type = part.get("type", "text") if isinstance(part, Mapping) else None
        if type != "text":
            raise InvalidRow(f"the content of {name} has a part of type {type!r}; messages are text alone")
    return "".join(text_of(part.get("text"), f"a part of {name}") for part in content)


def reasoning_of(value: Mapping[str, Any], name: str) -> str:
    """Read the thinking of an assistant's message from its own key; "" without one."""
    texts = {text_of(value[key], f"{key} of {name}") for key in REASONING if value.get(key)}
    if len(texts) > 1:
        raise InvalidRow(f"{name} has its thinking twice: {', '.join(key for key in REASONING if value.get(key))}")
    return texts.pop() if texts else ""


def tool_calls(value: Any, name: str) -> tuple[ToolCall, ...]:
    """Read the tools that a message calls: a list, one object, or either as JSON text."""
    value = parsed(value, f"the calls of {name}") if isinstance(value, str) else value
    entries = [value] if isinstance(value, Mapping) else value or []
    if not isinstance(entries, list):
        raise InvalidRow(f"tool_calls of {name} is {kind(value)}, not a list")
    return tuple(tool_call(entry, f"call {i} of {name}") for i, entry in enumerate(entries, start=1))


def tool_call(value: Any, name: str) -> ToolCall:
    """Read a call: {id, function: {name, arguments}} or {name, arguments}. Arguments are an object, or its text."""
    function = value.get("function", value) if isinstance(value, Mapping) else value
    if not isinstance(function, Mapping):
        raise InvalidRow(f"{name} is {kind(function)}, not an object")
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise InvalidRow(f"{name} has no name of a tool")
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        text = arguments.strip() or "{}"
        arguments = parsed(text, f"arguments of {name}")
    else:
        text = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, Mapping):
        raise InvalidRow(f"arguments of {name} are {kind(arguments)}, not an object")
    return ToolCall(function["name"], text, str(value.get("id", "")))


def tool_schemas(value: Any, name: str) -> str:
    """Read JSON schemas of tools, a list or its text, as the text of a list in OpenAI's form; "" for an empty list."""
    value = parsed(value, name) if isinstance(value, str) and value.strip() else value or []
    if not isinstance(value, list):
        raise InvalidRow(f"{name} is {kind(value)}, not a list of schemas")
    schemas = []
    for i, schema in enumerate(value, start=1):
        function = schema.get("function", schema) if isinstance(schema, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRow(f"schema {i} of {name} has no name of a tool")
        schemas.append(schema if "function" in schema else {"type": "function", "function": schema})
    return json.dumps(schemas, ensure_ascii=False) if schemas else ""


def parsed(text: str, name: str) -> Any:
    """Read JSON text."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRow(f"{name} are not JSON: {error}") from None


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
    last = messages[-1]
    if last.tool_calls:
        raise InvalidRow(f"{name} calls tools: only texts are compared")
    thinking = f"<think>\n{last.reasoning}\n</think>\n\n" if last.reasoning else ""
    return messages[:-1], thinking + last.content


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
        same_calls = mine.tool_calls == other.tool_calls
        return mine.role == other.role and same_calls and (more or mine.content == other.content)

    starts = range(len(conversation) - len(part) + 1)
    return any(all(map(same, conversation[start:], part)) for start in starts)
