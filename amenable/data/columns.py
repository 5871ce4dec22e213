"""Examples from the rows of data files, in any of the field's column conventions.

`text`, `demonstration`, `prompt` and `ranking` take a row (columns by name) and return the example, or raise
`InvalidRow` with the reason. The conventions:

    text                                     raw text
    messages | conversations                 dialogue
    prompt                                   text, dialogue, or transcript (Human: ... Assistant: ...) of hh-rlhf
    question | instruction                   text; of both, the question follows the instruction
    completion | output | answer | response  completion of any of these
    label                                    false: the completion is not wanted
    chosen, rejected[, margin]               two completions; the prompt is in a column above, or begins both
    completions, ranking                     K completions, 1 the best, ties share a rank
    completions [{rank, completion}]         K completions, 0 the best

`prompt_messages` reads the prompt for all of them. `system` (or `system_prompt`) comes first, then `history`. A passage
(`input`, then `context`) follows `prompt`, `question` or `instruction` after a blank line, and is itself the prompt if
none of these and no dialogue is present. `tools` has JSON schemas, a list or its text, for the chat template. Null and
blank columns are absent. `meta` holds the unused columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from amenable.data.record import InvalidRow, Record, is_number, words_of
from amenable.data.turns import common_start, conversation, holds, reply, tool_schemas, turns
from amenable.data.types import (
    ANSWERED,
    INSTRUCTING,
    Conversation,
    Demonstration,
    Message,
    Prompt,
    Ranking,
    Text,
    conversation_error,
)

Row: TypeAlias = Mapping[str, Any]

DIALOGUE_COLUMNS = ("messages", "conversations")
PROMPT_COLUMNS = (*DIALOGUE_COLUMNS, "prompt", "question", "instruction")
PASSAGE_COLUMNS = ("input", "context")
SYSTEM_COLUMNS = ("system", "system_prompt")
COMPLETION_COLUMNS = ("completion", "output", "answer", "response")


def text(row: Row, id: str) -> Text:
    """Read a document from the column `text`."""
    record = Record.of(row)
    if "text" not in record:
        raise InvalidRow(f"no column 'text' {record}")
    return Text(words_of(record["text"], "text"), record.id(id), record.rest())


def demonstration(row: Row, id: str) -> Demonstration:
    """Read a conversation that ends with the assistant and has a trained turn."""
    record = Record.of(row)
    if record.filled("chosen") or record.filled("completions"):
        raise InvalidRow("a preference, not a demonstration")
    if "completion" in record and record.get("label") is False:
        raise InvalidRow("a completion labelled as unwanted, not a demonstration")
    messages = with_completion(record)
    if messages[-1].role != "assistant":
        raise InvalidRow("it does not end with an answer of the assistant")
    require_content(messages)
    if not any(message.trained for message in messages if message.role == "assistant"):
        raise InvalidRow("no turn of the assistant is trained: all have the weight 0")
    messages = with_tools(messages, record)
    return Demonstration(messages, record.id(id), record.rest())


def prompt(row: Row, id: str) -> Prompt:
    """Read a conversation up to the last turn of the user, also from demonstrations and preferences.

    Columns with the solution stay in `meta`.
    """
    record = Record.of(row)
    values = compared_values(record)
    if values and ("chosen" in values or not prompt_messages(record)):
        messages, _ = comparison(record, values)
    else:
        messages = require_prompt(record)
    while checked(messages) and messages[-1].role not in ANSWERED:
        messages = messages[:-1]
        if not messages:
            raise InvalidRow("it has no turn of the user")
    described = {"kind": record["kind"]} if "kind" in record else {}
    messages = with_tools(require_open(messages), record)
    return Prompt(messages, record.id(id), record.rest() | described)


def ranking(row: Row, id: str) -> Ranking:
    """Read ranked completions. An empty completion may have any rank, but cannot be `chosen`."""
    record = Record.of(row)
    values = compared_values(record)
    if not values:
        raise InvalidRow(f"no columns 'chosen' and 'rejected', or 'completions' {record}")
    if "chosen" in values and values["chosen"] == values["rejected"]:
        raise InvalidRow("chosen and rejected are the same")
    if len(values) < 2:
        raise InvalidRow("completions is not a list of two or more")
    messages, completions = comparison(record, values)
    ranks = (1.0, 2.0) if "chosen" in values else ranks_of(record, len(completions))
    if len(set(completions)) == 1:
        raise InvalidRow("chosen and rejected are the same" if "chosen" in values else "all completions are the same")
    if not any(completion.strip() for completion in completions):
        raise InvalidRow("all completions are empty")
    if "chosen" in values and not completions[0].strip():
        raise InvalidRow("chosen is empty, and an empty completion cannot be the better one")
    if len(set(ranks)) == 1:
        raise InvalidRow("all completions are tied")
    margin = record["margin"] if "margin" in record and len(completions) == 2 else None
    if margin is not None and not is_number(margin):
        raise InvalidRow(f"margin is {margin!r}, not a number")
    annotator = record.get("annotator")
    ended = ended_of(record, len(completions))
    messages = with_tools(require_open(messages), record)
    return Ranking(
        messages,
        completions,
        ranks,
        record.id(id),
        None if annotator is None else str(annotator),
        record.rest() | ended,
        None if margin is None else float(margin),
    )


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
    return with_system(messages, record)


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


def require_prompt(record: Record) -> Conversation:
    """Read the prompt of a row; InvalidRow if there is none."""
    messages = prompt_messages(record)
    if not messages and not any(column in record for column in DIALOGUE_COLUMNS):
        raise InvalidRow(f"no column {', '.join(PROMPT_COLUMNS[:-1])} or {PROMPT_COLUMNS[-1]} {record}")
    return messages


def with_completion(record: Record) -> Conversation:
    """Read the prompt, and its completion from a column if the dialogue has none."""
    messages = checked(require_prompt(record))
    present = [column for column in COMPLETION_COLUMNS if column in record]
    if present and not (messages[-1].role == "assistant" and record.used & set(DIALOGUE_COLUMNS)):
        column = next(filter(record.filled, present), present[0])
        before, answer = reply(record[column], column)
        if before:
            raise InvalidRow(f"{column} is not one reply of the assistant")
        messages = (*messages, Message("assistant", answer))
    return messages


def compared_values(record: Record) -> dict[str, Any]:
    """Return the values of the completions that a row compares, by name; empty without a comparison."""
    several = record.filled("completions")
    ranked = several and ("ranking" in record or is_graded(record.columns["completions"]))
    if "chosen" in record and "rejected" in record and not ranked:
        return {"chosen": record["chosen"], "rejected": record["rejected"]}
    if not several:
        return {}
    entries = record["completions"]
    if not isinstance(entries, list):
        raise InvalidRow("completions is not a list of two or more")
    if is_graded(entries):
        entries = [entry.get("completion") for entry in entries]
    return {f"completion {i} of {len(entries)}": entry for i, entry in enumerate(entries, start=1)}


def comparison(record: Record, values: Mapping[str, Any]) -> tuple[Conversation, tuple[str, ...]]:
    """Return (prompt, completions). Dialogues may differ in the last reply only, and agree with the prompt columns."""
    pair = "chosen" in values
    replies = [reply(value, name, transcripts=pair) for name, value in values.items()]
    completions = tuple(answer for _, answer in replies)
    names = "chosen and rejected" if pair else "the completions"
    before = {dialogue for dialogue, _ in replies}
    if len(before) > 1:
        raise InvalidRow(f"{names} differ before the last reply")
    begun, messages = before.pop(), prompt_messages(record)
    if messages and messages[-1].role == "assistant" and messages[-1].content in completions:
        messages = messages[:-1]
    if begun and messages and not (holds(messages, begun) or holds(begun, messages)):
        raise InvalidRow(f"the prompt and what {names} begin with differ before the last reply")
    if begun and holds(begun, messages):
        messages = with_system(begun, record)
    if not messages and pair and all(isinstance(value, str) for value in values.values()):
        return implicit(record, completions)
    return messages or require_prompt(record), completions


def implicit(record: Record, completions: Sequence[str]) -> tuple[Conversation, tuple[str, ...]]:
    """Split two texts into their common beginning as the prompt, and the completions."""
    if any(map(record.filled, SYSTEM_COLUMNS)):
        raise InvalidRow("a system message, and no prompt")
    end = common_start(*completions)
    start = completions[0][:end].rstrip()
    if not start:
        raise InvalidRow("no prompt, and chosen and rejected have no beginning in common")
    return (Message("user", start),), tuple(completion[end:].lstrip() for completion in completions)


def is_graded(entries: Any) -> bool:
    """Return True for a list of objects with a rank each."""
    return isinstance(entries, list) and all(isinstance(entry, Mapping) and "rank" in entry for entry in entries)


def ranks_of(record: Record, count: int) -> tuple[float, ...]:
    """Read ranks from either convention, counted from 1."""
    entries = record["completions"]
    if is_graded(entries):
        return tuple(1 + rank_of(entry["rank"]) for entry in entries)
    ranks = record.get("ranking")
    if not isinstance(ranks, list) or len(ranks) != count:
        raise InvalidRow(f"ranking is not a list of {count} ranks")
    return tuple(map(rank_of, ranks))


def rank_of(value: Any) -> float:
    """Read a rank."""
    if not is_number(value):
        raise InvalidRow(f"rank {value!r} is not a number")
    return float(value)


def ended_of(record: Record, count: int) -> dict[str, Any]:
    """Return the column `ended` if it is a list of booleans, one per completion."""
    ended = record.columns.get("ended")
    if isinstance(ended, list) and len(ended) == count and all(isinstance(end, bool) for end in ended):
        return {"ended": record["ended"]}
    return {}


def require_open(messages: Conversation) -> Conversation:
    """Return messages that end with the user; InvalidRow otherwise."""
    if checked(messages)[-1].role not in ANSWERED:
        raise InvalidRow("the prompt does not end with the user")
    if not messages[-1].content.strip() and messages[-1].role == "user":
        raise InvalidRow("the prompt is empty")
    require_content([message for message in messages if message.role == "user"])
    return messages


def require_content(messages: Sequence[Message]) -> None:
    """Raise InvalidRow for an empty turn of the user and an empty trained turn of the assistant."""
    for i, message in enumerate(messages, start=1):
        if message.role in (*INSTRUCTING, "tool") or message.content.strip() or message.tool_calls:
            continue
        if message.role == "user":
            raise InvalidRow(f"message {i} is empty: the user says nothing")
        if message.trained:
            raise InvalidRow("the answer is empty" if i == len(messages) else f"message {i} is an empty answer")


def checked(messages: Conversation) -> Conversation:
    """Return the messages; InvalidRow for an error in the conversation."""
    error = conversation_error(messages)
    if error is not None:
        raise InvalidRow(error)
    return messages
