"""What a row of a data file says, whichever of the field's column conventions it follows.

One function for each noun: `text`, `demonstration`, `prompt`, `ranking`, `labelled` take a row (a dict of columns) and
return the example, or raise `Unusable` with the reason. The conventions:

    text                                     raw text
    messages | conversations                 a dialogue: [{role, content}], or [{from, value}] as ShareGPT has it
    prompt[, completion]                     text, a dialogue, or a transcript (Human: ... Assistant: ...) as in hh-rlhf
    prompt, completion, label                one answer, wanted or not
    [prompt,] chosen, rejected[, margin]     two answers; without a prompt it is what the two have in common
    prompt, completions, ranking             K answers, 1 the best, ties share a rank
    context, completions [{rank, completion}]    K answers, 0 the best
    instruction[, input, output, system, history]    as Alpaca has it
    question[, answer]                       a problem and its solution
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from amenable.data.types import Conversation, Demonstration, Labelled, Message, Prompt, Ranking, Text, fault

Row = Mapping[str, Any]

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class Unusable(ValueError):
    """Why a row cannot be used."""


def text(row: Row, id: str) -> Text:
    """A document out of the column `text`."""
    if "text" not in row:
        raise Unusable(f"no column 'text' {_among(row)}")
    return Text(_words(row, "text"), _id(row, id), _rest(row, "text"))


def demonstration(row: Row, id: str) -> Demonstration:
    """A conversation that ends with the assistant."""
    if "chosen" in row or "completions" in row:
        raise Unusable("a preference, not a demonstration")
    if row.get("label") is False and "completion" in row:
        raise Unusable("an answer labelled as unwanted, not a demonstration")
    messages, used = _dialogue(row)
    if messages[-1].role != "assistant":
        raise Unusable("it does not end with an answer of the assistant")
    if not messages[-1].content.strip():
        raise Unusable("the answer is empty")
    return Demonstration(messages, _id(row, id), _rest(row, *used))


def prompt(row: Row, id: str) -> Prompt:
    """A conversation up to the last turn of the user; of demonstrations and preferences, that which was answered."""
    if "completions" in row:
        asked, _, _, used = _ranked(row)
        return Prompt(_open(asked), _id(row, id), _rest(row, *used))
    if "chosen" in row and "rejected" in row:
        asked, _, used = _pair(row)
        return Prompt(_open(asked), _id(row, id), _rest(row, *used))
    messages, used = _dialogue(row)
    while messages and messages[-1].role != "user":
        messages = messages[:-1]
    if not messages:
        raise Unusable("it has no turn of the user")
    if not messages[-1].content.strip():
        raise Unusable("the prompt is empty")
    # what an answer is checked against stays with the prompt
    return Prompt(messages, _id(row, id), _rest(row, *(used - {"answer", "output", "completion"})))


def ranking(row: Row, id: str) -> Ranking:
    """Answers in order of preference."""
    if "completions" in row:
        asked, completions, ranks, used = _ranked(row)
    elif "chosen" in row and "rejected" in row:
        asked, completions, used = _pair(row)
        ranks = (1.0, 2.0)
    else:
        raise Unusable(f"no columns 'chosen' and 'rejected', or 'completions' {_among(row)}")
    for place, completion in enumerate(completions, start=1):
        if not completion.strip():
            raise Unusable(f"completion {place} of {len(completions)} is empty")
    if len(set(ranks)) == 1:
        raise Unusable("all completions are tied")
    if len(set(completions)) == 1:
        raise Unusable("chosen and rejected are the same" if "chosen" in row else "all completions are the same")
    margin = row.get("margin") if len(completions) == 2 else None
    if margin is not None and not _is_number(margin):
        raise Unusable(f"margin is {margin!r}, not a number")
    annotator = row.get("annotator")
    return Ranking(
        _open(asked),
        completions,
        ranks,
        _id(row, id),
        None if annotator is None else str(annotator),
        _rest(row, "annotator", *used, *(["margin"] if len(completions) == 2 else [])),
        None if margin is None else float(margin),
    )


def labelled(row: Row, id: str) -> Labelled:
    """One answer and whether it is wanted."""
    for column in ("prompt", "completion", "label"):
        if column not in row:
            raise Unusable(f"no column '{column}' {_among(row)}")
    if row["label"] not in (True, False):
        raise Unusable(f"label is {row['label']!r}, not true or false")
    messages, used = _dialogue(row)
    if not messages[-1].content.strip():
        raise Unusable("the answer is empty")
    asked = _open(messages[:-1])
    return Labelled(asked, messages[-1].content, bool(row["label"]), _id(row, id), _rest(row, "label", *used))


def _dialogue(row: Row) -> tuple[Conversation, set[str]]:
    """The conversation in a row that is no preference, and the columns it was read from."""
    if "messages" in row or "conversations" in row:
        column = "messages" if "messages" in row else "conversations"
        return _checked(_turns(row[column], column)), {column}
    if "prompt" in row:
        asked = _conversation(row["prompt"], "prompt")
        if row.get("completion") is None:
            return _checked(asked), {"prompt", "completion"}
        answer = Message("assistant", _reply(row["completion"], "completion"))
        return _checked((*asked, answer)), {"prompt", "completion"}
    if "instruction" in row:
        return _checked(_alpaca(row)), {"instruction", "input", "output", "system", "history"}
    if "question" in row:
        asked = (Message("user", _words(row, "question")),)
        answered = (Message("assistant", _words(row, "answer")),) if row.get("answer") is not None else ()
        return asked + answered, {"question", "answer"}
    known = "messages, conversations, prompt, instruction or question"
    raise Unusable(f"no column {known} {_among(row)}")


def _alpaca(row: Row) -> Conversation:
    messages = [Message("system", _words(row, "system"))] if row.get("system") else []
    for turn in row.get("history") or []:
        if not (isinstance(turn, Sequence) and len(turn) == 2 and all(isinstance(part, str) for part in turn)):
            raise Unusable("history is not a list of (instruction, output)")
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    asked = _words(row, "instruction")
    if row.get("input"):
        asked += "\n\n" + _words(row, "input")
    messages.append(Message("user", asked))
    if row.get("output") is not None:
        messages.append(Message("assistant", _string(row["output"], "output")))
    return tuple(messages)


def _ranked(row: Row) -> tuple[Conversation, tuple[str, ...], tuple[float, ...], set[str]]:
    """(prompt, completions, ranks from 1, columns) of both ways to write a ranking."""
    column = "prompt" if "prompt" in row else "context"
    if column not in row:
        raise Unusable(f"no column 'prompt' or 'context' {_among(row)}")
    asked = _conversation(row[column], column)
    entries = row["completions"]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or len(entries) < 2:
        raise Unusable("completions is not a list of two or more")
    if all(isinstance(entry, Mapping) and "rank" in entry for entry in entries):
        completions = tuple(_reply(entry.get("completion"), "completion") for entry in entries)
        return asked, completions, tuple(1 + _rank(entry["rank"]) for entry in entries), {column, "completions"}
    ranks = row.get("ranking")
    if not isinstance(ranks, Sequence) or isinstance(ranks, str) or len(ranks) != len(entries):
        raise Unusable(f"ranking is not a list of {len(entries)} ranks")
    completions = tuple(_reply(entry, "completions") for entry in entries)
    return asked, completions, tuple(_rank(rank) for rank in ranks), {column, "completions", "ranking"}


def _pair(row: Row) -> tuple[Conversation, tuple[str, ...], set[str]]:
    """(prompt, (chosen, rejected), columns). Only the last replies may differ."""
    used = {"prompt", "chosen", "rejected"}
    sides = [row["chosen"], row["rejected"]]
    stated = row.get("prompt")
    asked = None if stated is None else _conversation(stated, "prompt")
    if all(isinstance(side, str) and not _is_transcript(side) for side in sides):
        if asked is not None:
            return asked, (sides[0], sides[1]), used
        start = _common_start(sides[0], sides[1])
        if not start.strip():
            raise Unusable("no prompt, and chosen and rejected have no beginning in common")
        return (Message("user", start.rstrip()),), (sides[0][len(start) :], sides[1][len(start) :]), used
    dialogues = [_conversation(side, name) for side, name in zip(sides, ("chosen", "rejected"))]
    for name, dialogue in zip(("chosen", "rejected"), dialogues):
        if not dialogue or dialogue[-1].role != "assistant":
            raise Unusable(f"{name} does not end with the assistant")
    before = {dialogue[:-1] for dialogue in dialogues}
    if before == {()} and asked is not None:
        before = {asked}
    if len(before) > 1 or asked not in (None, *before):
        raise Unusable("chosen and rejected differ before the last reply")
    return before.pop(), (dialogues[0][-1].content, dialogues[1][-1].content), used


def _conversation(value: Any, column: str) -> Conversation:
    """Messages, an hh-rlhf transcript, or text that a user says."""
    if not isinstance(value, str):
        return _turns(value, column)
    if not value.strip():
        raise Unusable(f"{column} is empty")
    return _transcript(value) if _is_transcript(value) else (Message("user", value),)


def _turns(value: Any, column: str) -> Conversation:
    """[{role, content}] or [{from, value}]."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Unusable(f"{column} is {_kind(value)}, not a list of messages")
    messages = []
    for place, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping):
            raise Unusable(f"message {place} in {column} is {_kind(turn)}, not an object")
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in SPEAKERS:
            raise Unusable(f"unknown role {role!r} in message {place} of {column} (known: {', '.join(SPEAKERS)})")
        messages.append(Message(SPEAKERS[role], _string(content, f"the content of message {place} of {column}")))
    return tuple(messages)


def _reply(value: Any, column: str) -> str:
    """One answer: text, or a list that holds one message of the assistant."""
    if isinstance(value, str):
        return value
    turns = _turns(value, column)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise Unusable(f"{column} is not one reply of the assistant")
    return turns[0].content


def _is_transcript(value: str) -> bool:
    return value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def _transcript(value: str) -> Conversation:
    """hh-rlhf: blank line, "Human:" or "Assistant:", what was said. An empty last turn is where the answer goes."""
    pieces = TURN.split(value)[1:]
    roles = ["user" if name == "Human" else "assistant" for name in pieces[::2]]
    messages = [Message(role, content.strip()) for role, content in zip(roles, pieces[1::2])]
    return tuple(messages[:-1] if messages[-1] == Message("assistant", "") else messages)


def _common_start(first: str, second: str) -> str:
    """What two texts begin with, up to the last white space in it, so that no word is cut."""
    end = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    while end and not first[end - 1].isspace():
        end -= 1
    return first[:end]


def _open(messages: Conversation) -> Conversation:
    """A prompt that the assistant can answer."""
    if _checked(messages)[-1].role != "user":
        raise Unusable("the prompt does not end with the user")
    if not messages[-1].content.strip():
        raise Unusable("the prompt is empty")
    return messages


def _checked(messages: Conversation) -> Conversation:
    wrong = fault(messages)
    if wrong is not None:
        raise Unusable(wrong)
    return messages


def _words(row: Row, column: str) -> str:
    value = _string(row[column], column)
    if not value.strip():
        raise Unusable(f"{column} is empty")
    return value


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"{name} is {_kind(value)}, not text")
    return value


def _rank(value: Any) -> float:
    if not _is_number(value):
        raise Unusable(f"rank {value!r} is not a number")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), "a list" if isinstance(value, Sequence) else "an object")


def _among(row: Row) -> str:
    return f"among {', '.join(map(str, row))}" if row else "in an empty row"


def _id(row: Row, id: str) -> str:
    return id if row.get("id") is None else str(row["id"])


def _rest(row: Row, *used: str) -> dict[str, Any]:
    """The columns that were not read."""
    return {name: value for name, value in row.items() if name not in used and name != "id"}
