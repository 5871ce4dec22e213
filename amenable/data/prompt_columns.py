"""The prompt of a row, from any of its conventional columns.

    messages | conversations                 dialogue
    prompt                                   text, dialogue, or transcript (Human: ... Assistant: ...) of hh-rlhf
    question | instruction                   text; of both, the question follows the instruction

`system` (or `system_prompt`) comes first, then `history`. A passage (`input`, then `context`) follows `prompt`,
`question` or `instruction` after a blank line, and is itself the prompt if none of these and no dialogue is present.
`tools` has JSON schemas, a list or its text, for the chat template. Columns of two different prompts are refused, with
the mapping that selects one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from amenable.data.record import InvalidRow, Record, words_of
from amenable.data.turns import conversation, holds, tool_schemas, turns
from amenable.data.types import INSTRUCTING, Conversation, Message

DIALOGUE_COLUMNS = ("messages", "conversations")
PROMPT_COLUMNS = (*DIALOGUE_COLUMNS, "prompt", "question", "instruction")
PASSAGE_COLUMNS = ("input", "context")
SYSTEM_COLUMNS = ("system", "system_prompt")


def prompt_messages(record: Record) -> Conversation:
    """Read the prompt of a row, the system message first; empty if no column has a prompt.

    Of several columns the first of PROMPT_COLUMNS is read. Others count as used if the prompt contains their text.
    """
    columns = (*PROMPT_COLUMNS, *PASSAGE_COLUMNS)
    present = [name for name in columns if name in record and (name in PROMPT_COLUMNS or record.filled(name))]
    if not present:
        return ()
    column = next((name for name in present if is_readable(name, record)), present[0])
    if column in DIALOGUE_COLUMNS:
        messages = turns(record[column], column)
        longer = messages_in(record.columns.get(DIALOGUE_COLUMNS[1]))
        messages = longer if holds(longer, messages) else messages
    else:
        messages = with_history(with_passages(question(record, column), record, repeat=column != "prompt"), record)
    others = [name for name in present if name not in record.used]
    record.used.update(name for name in others if repeats(messages, record.columns[name]))
    rivals = [name for name in others if name in PROMPT_COLUMNS and is_readable(name, record)]
    if rivals := [name for name in rivals if name not in record.used]:
        raise ambiguous(record, "", [column, *rivals], "", "prompt")
    return with_system(messages, record)


def ambiguous(record: Record, before: str, columns: Iterable[str], other: str, target: str) -> InvalidRow:
    """Return the reason for a row whose columns have several readings, with the mappings that select one.

    before: a reading other than by one of the columns, and `other` its mapping.
    """
    names = [next(record.origins([name])) for name in columns]
    others = [
        name
        for name in ("system", "prompt", "question", "instruction", "input", "chosen", "rejected")
        if record.filled(name)
    ]
    rest = " ".join(
        f"{name}={next(record.origins([name]))}" for name in others if name != target and name not in columns
    )
    choices = [other] if other else []
    choices += [f"{'messages' if name in DIALOGUE_COLUMNS else target}={name} {rest}".strip() for name in names]
    described = " and ".join(names)
    hint = f"--columns {' or '.join(choices)} selects one"
    return InvalidRow(f"{before} {described} are different {target}s; {hint}".strip())


def repeats(messages: Conversation, value: Any) -> bool:
    """Return True if the conversation contains a column's value: its text, or its consecutive messages."""
    if isinstance(value, str):
        return any(mentions(message.content, value) for message in messages)
    part = messages_in(value)
    return bool(part) and holds(messages, part)


def messages_in(value: Any) -> Conversation:
    """Return the messages of a value; empty if it is not a list of messages."""
    try:
        return turns(value, "")
    except InvalidRow:
        return ()


def is_readable(column: str, record: Record) -> bool:
    """Return True if a column has its convention's type: a list of messages, text, or either."""
    lists, texts = column not in ("question", "instruction"), column not in DIALOGUE_COLUMNS
    value = record.columns[column]
    return record.filled(column) and ((lists and isinstance(value, list)) or (texts and isinstance(value, str)))


def question(record: Record, column: str) -> Conversation:
    """Read the prompt from a column other than a dialogue; `question` and `instruction` together."""
    if column in ("question", "instruction"):
        columns = [name for name in ("instruction", "question") if name in record and is_readable(name, record)]
        texts = [words_of(record[name], name) for name in columns or [column]]
        return (Message("user", "\n\n".join(texts)),)
    return conversation(record[column], column)


def with_passages(messages: Conversation, record: Record, repeat: bool) -> Conversation:
    """Append the passages to the user's last message; without `repeat` only those that it does not contain."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return messages
    for column in PASSAGE_COLUMNS:
        passage = record.columns.get(column)
        if column not in record.used and isinstance(passage, str) and record.filled(column):
            words = messages[last].content
            if repeat or not mentions(words, passage):
                words = f"{words}\n\n{record[column]}"
            messages = (*messages[:last], Message("user", words), *messages[last + 1 :])
    return messages


def with_history(messages: Conversation, record: Record) -> Conversation:
    """Insert the turns of `history` before the prompt: messages, or Alpaca's list of (instruction, output)."""
    if not messages or not record.filled("history") or not isinstance(record.columns["history"], list):
        return messages
    history: list[Message] = []
    for turn in record["history"]:
        if isinstance(turn, Mapping):
            history += turns([turn], "history")
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
            history += [Message("user", turn[0]), Message("assistant", turn[1])]
        else:
            raise InvalidRow("history is not a list of (instruction, output)")
    system = messages[:1] if messages[0].role == "system" else ()
    return (*system, *history, *messages[len(system) :])


def with_system(messages: Conversation, record: Record) -> Conversation:
    """Prepend the column `system` unless the conversation has the same system message; InvalidRow if they differ."""
    texts = (name for name in SYSTEM_COLUMNS if isinstance(record.columns.get(name), str))
    column = next(filter(record.filled, texts), None)
    if not messages or column is None:
        return messages
    system = Message("system", record[column])
    if messages[0].role not in INSTRUCTING:
        return (system, *messages)
    if messages[0].content.strip() not in ("", system.content.strip()):
        raise InvalidRow(f"the column '{column}' and the system message of the dialogue differ")
    return (system, *messages[1:])


def with_tools(messages: Conversation, record: Record) -> Conversation:
    """Add the schemas of the column `tools` to the first message."""
    if "tools" not in record.columns or not messages:
        return messages
    return (replace(messages[0], tools=tool_schemas(record["tools"], "tools")), *messages[1:])


def mentions(text: str, part: str) -> bool:
    """Return True if a text contains `part` as whole words."""
    part = part.strip()
    return part in text and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
