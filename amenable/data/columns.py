"""Examples out of the rows of data files, in any of the field's column conventions.

One function for each noun: `text`, `demonstration`, `prompt`, `ranking`, `labelled` take a row (columns by name) and
return the example, or raise `Unusable` with the reason. The conventions:

    text                                     raw text
    messages | conversations                 a dialogue
    prompt                                   text, a dialogue, or a transcript (Human: ... Assistant: ...) as in hh-rlhf
    question | instruction                   text; of both, the question follows the instruction
    completion | output | answer | response  the answer to any of these
    label                                    whether a completion is wanted
    chosen, rejected[, margin]               two answers; the prompt is in a column above, or at the beginning of both
    completions, ranking                     K answers, 1 the best, ties share a rank
    completions [{rank, completion}]         K answers, 0 the best

The prompt is read in one way for all nouns (`asked`). `system` (or `system_prompt`) stands in front. A passage
(`input`, then `context`) follows `prompt`, `question` or `instruction` after a blank line, and is the prompt where
there is none of them and no dialogue. `history` comes before. Null and blank columns are absent. `meta` keeps the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from amenable.data.record import Record, Unusable, is_number, words_of
from amenable.data.turns import common_start, conversation, holds, reply, turns
from amenable.data.types import Conversation, Demonstration, Labelled, Message, Prompt, Ranking, Text, fault

Row: TypeAlias = Mapping[str, Any]

DIALOGUES = ("messages", "conversations")
ASKING = (*DIALOGUES, "prompt", "question", "instruction")
PASSAGES = ("input", "context")
SYSTEM = ("system", "system_prompt")
ANSWERS = ("completion", "output", "answer", "response")


def text(row: Row, id: str) -> Text:
    """A document out of the column `text`."""
    record = Record.of(row)
    if "text" not in record:
        raise Unusable(f"no column 'text' {record}")
    return Text(words_of(record["text"], "text"), record.id(id), record.rest())


def demonstration(row: Row, id: str) -> Demonstration:
    """A conversation that ends with the assistant, and in which something is trained."""
    record = Record.of(row)
    if record.filled("chosen") or record.filled("completions"):
        raise Unusable("a preference, not a demonstration")
    if "completion" in record and record.get("label") is False:
        raise Unusable("an answer labelled as unwanted, not a demonstration")
    messages = answered(record)
    if messages[-1].role != "assistant":
        raise Unusable("it does not end with an answer of the assistant")
    require_words(messages)
    if not any(message.trained for message in messages if message.role == "assistant"):
        raise Unusable("no turn of the assistant is trained: all have the weight 0")
    return Demonstration(messages, record.id(id), record.rest())


def prompt(row: Row, id: str) -> Prompt:
    """A conversation up to the last turn of the user; of demonstrations and preferences, that which was answered.

    What an answer is checked against stays in `meta`.
    """
    record = Record.of(row)
    sides = sides_of(record)
    if sides and ("chosen" in sides or not asked(record)):
        messages, _ = compared(record, sides)
    else:
        messages = require_asked(record)
    while checked(messages) and messages[-1].role != "user":
        messages = messages[:-1]
        if not messages:
            raise Unusable("it has no turn of the user")
    described = {"kind": record["kind"]} if "kind" in record else {}
    return Prompt(open_prompt(messages), record.id(id), record.rest() | described)


def ranking(row: Row, id: str) -> Ranking:
    """Answers in order of preference. An empty answer may have any rank, but cannot be `chosen`."""
    record = Record.of(row)
    sides = sides_of(record)
    if not sides:
        raise Unusable(f"no columns 'chosen' and 'rejected', or 'completions' {record}")
    if "chosen" in sides and sides["chosen"] == sides["rejected"]:
        raise Unusable("chosen and rejected are the same")
    if len(sides) < 2:
        raise Unusable("completions is not a list of two or more")
    messages, completions = compared(record, sides)
    ranks = (1.0, 2.0) if "chosen" in sides else ranks_of(record, len(completions))
    if len(set(completions)) == 1:
        raise Unusable("chosen and rejected are the same" if "chosen" in sides else "all completions are the same")
    if not any(completion.strip() for completion in completions):
        raise Unusable("all completions are empty")
    if "chosen" in sides and not completions[0].strip():
        raise Unusable("chosen is empty, and no answer can't be better than one")
    if len(set(ranks)) == 1:
        raise Unusable("all completions are tied")
    margin = record["margin"] if "margin" in record and len(completions) == 2 else None
    if margin is not None and not is_number(margin):
        raise Unusable(f"margin is {margin!r}, not a number")
    annotator = record.get("annotator")
    ended = ended_of(record, len(completions))
    return Ranking(
        open_prompt(messages),
        completions,
        ranks,
        record.id(id),
        None if annotator is None else str(annotator),
        record.rest() | ended,
        None if margin is None else float(margin),
    )


def labelled(row: Row, id: str) -> Labelled:
    """One answer and whether it is wanted. An unwanted one may be empty."""
    record = Record.of(row)
    for column in ("completion", "label"):
        if column not in record:
            raise Unusable(f"no column '{column}' {record}")
    label = record["label"]
    if label not in (True, False):
        raise Unusable(f"label is {label!r}, not true or false")
    before, completion = reply(record["completion"], "completion")
    if before:
        raise Unusable("completion is not one reply of the assistant")
    if label and not completion.strip():
        raise Unusable("the answer is empty")
    return Labelled(open_prompt(require_asked(record)), completion, bool(label), record.id(id), record.rest())


def asked(record: Record) -> Conversation:
    """Read the prompt of a row, the system message in front; no messages where no column asks.

    Of several columns the first of ASKING is read. Another one counts as used where its text is in there.
    """
    columns = (*ASKING, *PASSAGES)
    present = [name for name in columns if name in record and (name in ASKING or record.filled(name))]
    if not present:
        return ()
    column = next((name for name in present if is_readable(name, record)), present[0])
    if column in DIALOGUES:
        messages = turns(record[column], column)
        longer = messages_in(record.columns.get(DIALOGUES[1]))
        messages = longer if holds(longer, messages) else messages
    else:
        messages = with_history(with_passages(question(record, column), record, repeat=column != "prompt"), record)
    others = [name for name in present if name not in record.used]
    record.used.update(name for name in others if repeats(messages, record.columns[name]))
    return with_system(messages, record)


def repeats(messages: Conversation, value: Any) -> bool:
    """True where a conversation has all of another column: its text, or its messages in a row."""
    if isinstance(value, str):
        return any(mentions(message.content, value) for message in messages)
    part = messages_in(value)
    return bool(part) and holds(messages, part)


def messages_in(value: Any) -> Conversation:
    """The messages of a value; none where it is no list of messages."""
    try:
        return turns(value, "")
    except Unusable:
        return ()


def is_readable(column: str, record: Record) -> bool:
    """True for a column that holds what its convention has: a list of messages, text, or either."""
    lists, texts = column not in ("question", "instruction"), column not in DIALOGUES
    value = record.columns[column]
    return record.filled(column) and ((lists and isinstance(value, list)) or (texts and isinstance(value, str)))


def question(record: Record, column: str) -> Conversation:
    """Read one column that is no dialogue by name; `question` together with `instruction`."""
    if column in ("question", "instruction"):
        columns = [name for name in ("instruction", "question") if name in record and is_readable(name, record)]
        texts = [words_of(record[name], name) for name in columns or [column]]
        return (Message("user", "\n\n".join(texts)),)
    return conversation(record[column], column)


def with_passages(messages: Conversation, record: Record, repeat: bool) -> Conversation:
    """The passages after the user's last words; without `repeat` not those that these hold already."""
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return messages
    for column in PASSAGES:
        passage = record.columns.get(column)
        if column not in record.used and isinstance(passage, str) and record.filled(column):
            words = messages[last].content
            if repeat or not mentions(words, passage):
                words = f"{words}\n\n{record[column]}"
            messages = (*messages[:last], Message("user", words), *messages[last + 1 :])
    return messages


def with_history(messages: Conversation, record: Record) -> Conversation:
    """Earlier turns before what is asked now: messages, or Alpaca's list of (instruction, output)."""
    if not messages or not record.filled("history") or not isinstance(record.columns["history"], list):
        return messages
    turns_before: list[Message] = []
    for turn in record["history"]:
        if isinstance(turn, Mapping):
            turns_before += turns([turn], "history")
        elif isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
            turns_before += [Message("user", turn[0]), Message("assistant", turn[1])]
        else:
            raise Unusable("history is not a list of (instruction, output)")
    system = messages[:1] if messages[0].role == "system" else ()
    return (*system, *turns_before, *messages[len(system) :])


def with_system(messages: Conversation, record: Record) -> Conversation:
    """The column `system` in front of a conversation that has no system message, or the same one."""
    column = next((name for name in SYSTEM if record.filled(name) and isinstance(record.columns[name], str)), None)
    if not messages or column is None:
        return messages
    system = Message("system", record[column])
    if messages[0].role != "system":
        return (system, *messages)
    if messages[0].content.strip() not in ("", system.content.strip()):
        raise Unusable(f"the column '{column}' and the system message of the dialogue differ")
    return (system, *messages[1:])


def mentions(text: str, part: str) -> bool:
    """True where a text holds another, which begins and ends where words do."""
    part = part.strip()
    return part in text and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def require_asked(record: Record) -> Conversation:
    """Read the prompt of a row; `Unusable` where there is none."""
    messages = asked(record)
    if not messages and not any(column in record for column in DIALOGUES):
        raise Unusable(f"no column {', '.join(ASKING[:-1])} or {ASKING[-1]} {record}")
    return messages


def answered(record: Record) -> Conversation:
    """Read the prompt, and its answer where a column has one and the dialogue has none."""
    messages = checked(require_asked(record))
    present = [column for column in ANSWERS if column in record]
    if present and not (messages[-1].role == "assistant" and record.used & set(DIALOGUES)):
        column = next(filter(record.filled, present), present[0])
        before, answer = reply(record[column], column)
        if before:
            raise Unusable(f"{column} is not one reply of the assistant")
        messages = (*messages, Message("assistant", answer))
    return messages


def sides_of(record: Record) -> dict[str, Any]:
    """The answers that a row compares, by name; none where it compares nothing."""
    several = record.filled("completions")
    ranked = several and ("ranking" in record or is_graded(record.columns["completions"]))
    if "chosen" in record and "rejected" in record and not ranked:
        return {"chosen": record["chosen"], "rejected": record["rejected"]}
    if not several:
        return {}
    entries = record["completions"]
    if not isinstance(entries, list):
        raise Unusable("completions is not a list of two or more")
    if is_graded(entries):
        entries = [entry.get("completion") for entry in entries]
    return {f"completion {place} of {len(entries)}": entry for place, entry in enumerate(entries, start=1)}


def compared(record: Record, sides: Mapping[str, Any]) -> tuple[Conversation, tuple[str, ...]]:
    """(prompt, answers). Whole dialogues may differ in their last reply only, and agree with the columns that ask."""
    pair = "chosen" in sides
    replies = [reply(side, name, transcripts=pair) for name, side in sides.items()]
    completions = tuple(answer for _, answer in replies)
    names = "chosen and rejected" if pair else "the completions"
    before = {dialogue for dialogue, _ in replies}
    if len(before) > 1:
        raise Unusable(f"{names} differ before the last reply")
    begun, messages = before.pop(), asked(record)
    if messages and messages[-1].role == "assistant" and messages[-1].content in completions:
        messages = messages[:-1]
    if begun and messages and not (holds(messages, begun) or holds(begun, messages)):
        raise Unusable(f"the prompt and what {names} begin with differ before the last reply")
    if begun and holds(begun, messages):
        messages = with_system(begun, record)
    if not messages and pair and all(isinstance(side, str) for side in sides.values()):
        return implicit(record, completions)
    return messages or require_asked(record), completions


def implicit(record: Record, completions: Sequence[str]) -> tuple[Conversation, tuple[str, ...]]:
    """A prompt that two texts begin with, and what follows it in each."""
    if any(map(record.filled, SYSTEM)):
        raise Unusable("a system message, and no prompt")
    end = common_start(*completions)
    start = completions[0][:end].rstrip()
    if not start:
        raise Unusable("no prompt, and chosen and rejected have no beginning in common")
    return (Message("user", start),), tuple(completion[end:].lstrip() for completion in completions)


def is_graded(entries: Any) -> bool:
    """True for completions that are objects with a rank each."""
    return isinstance(entries, list) and all(isinstance(entry, Mapping) and "rank" in entry for entry in entries)


def ranks_of(record: Record, count: int) -> tuple[float, ...]:
    """Ranks from 1, of both ways to write them."""
    entries = record["completions"]
    if is_graded(entries):
        return tuple(1 + rank_of(entry["rank"]) for entry in entries)
    ranks = record.get("ranking")
    if not isinstance(ranks, list) or len(ranks) != count:
        raise Unusable(f"ranking is not a list of {count} ranks")
    return tuple(map(rank_of, ranks))


def rank_of(value: Any) -> float:
    """A rank."""
    if not is_number(value):
        raise Unusable(f"rank {value!r} is not a number")
    return float(value)


def ended_of(record: Record, count: int) -> dict[str, Any]:
    """The column `ended`, true for each answer that ended by itself; another column of that name is not used."""
    ended = record.columns.get("ended")
    if isinstance(ended, list) and len(ended) == count and all(isinstance(end, bool) for end in ended):
        return {"ended": record["ended"]}
    return {}


def open_prompt(messages: Conversation) -> Conversation:
    """A prompt that the assistant can answer."""
    if checked(messages)[-1].role != "user":
        raise Unusable("the prompt does not end with the user")
    if not messages[-1].content.strip():
        raise Unusable("the prompt is empty")
    require_words([message for message in messages if message.role == "user"])
    return messages


def require_words(messages: Sequence[Message]) -> None:
    """Refuse an empty turn of the user, and one of the assistant that would be trained."""
    for place, message in enumerate(messages, start=1):
        if message.role == "system" or message.content.strip():
            continue
        if message.role == "user":
            raise Unusable(f"message {place} is empty: the user says nothing")
        if message.trained:
            raise Unusable("the answer is empty" if place == len(messages) else f"message {place} is an empty answer")


def checked(messages: Conversation) -> Conversation:
    """A conversation that is none of those that `fault` names."""
    wrong = fault(messages)
    if wrong is not None:
        raise Unusable(wrong)
    return messages
