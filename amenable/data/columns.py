"""Examples from the rows of data files, in any of the field's column conventions.

`text`, `demonstration`, `prompt` and `ranking` take a row (columns by name) and return the example, or raise
`InvalidRow` with the reason. The conventions:

    text                                     raw text
    messages, prompt, instruction, input ... the prompt (`prompt_columns.py`)
    completion | output | answer | response  completion of any of these
    label                                    false: the completion is not wanted
    chosen, rejected[, margin]               two completions; the prompt is in a column above, or begins both
    completions, ranking                     K completions, 1 the best, ties share a rank
    completions [{rank, completion}]         K completions, 0 the best

Rows of published formats in columns of their own (`published_formats.py`) are converted to these. Null and blank
columns are absent. Columns of two readings are refused, with the mapping that selects one. `meta` holds the unused
columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from amenable.data.prompt_columns import (
    DIALOGUE_COLUMNS,
    PASSAGE_COLUMNS,
    PROMPT_COLUMNS,
    SYSTEM_COLUMNS,
    ambiguous,
    prompt_messages,
    with_system,
    with_tools,
)
from amenable.data.published_formats import FORMAT_COLUMNS, convert
from amenable.data.record import InvalidRow, LeftOutRow, Record, is_number, words_of
from amenable.data.turns import common_start, holds, is_transcript, reply
from amenable.data.types import (
    ANSWERED,
    INSTRUCTING,
    Conversation,
    Demonstration,
    LabeledCompletion,
    Message,
    Prompt,
    Ranking,
    Text,
    conversation_error,
)

Row: TypeAlias = Mapping[str, Any]

COMPLETION_COLUMNS = ("completion", "output", "answer", "response")
COMPARISON_COLUMNS = ("chosen", "rejected", "margin", "completions", "ranking", "annotator")
TARGETS = tuple(
    dict.fromkeys(
        ("text", *PROMPT_COLUMNS, *SYSTEM_COLUMNS, "history", "tools", *PASSAGE_COLUMNS, *COMPLETION_COLUMNS, "label")
        + (*COMPARISON_COLUMNS, "id", "kind", "ended", *FORMAT_COLUMNS)
    )
)
"""columns that a mapping may name: the conventional ones, and those of published formats"""


def text(row: Row, id: str) -> Text:
    """Read a document from the column `text`."""
    record = Record.of(row)
    if "text" not in record:
        raise InvalidRow(f"no column 'text' {record}")
    return Text(words_of(record["text"], "text"), record.id(id), record.rest())


def demonstration(row: Row, id: str) -> Demonstration:
    """Read a conversation that ends with the assistant and has a trained turn."""
    record = converted(row)
    if record.filled("chosen") or record.filled("completions"):
        require_no_steps(record)
        mapping = chosen_as_completion(record)
        hint = f"; --columns {mapping} trains on what was chosen" if mapping else ""
        raise InvalidRow(f"a preference, not a demonstration{hint}")
    if ("completion" in record or record.sources) and not is_wanted(record.get("label", True)):
        raise LeftOutRow("labelled as unwanted")
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
    record = converted(row)
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
    record = converted(row)
    require_one_comparison(record)
    values = compared_values(record)
    if not values:
        if "label" in record:
            raise InvalidRow("a completion with a label, not a comparison; 'amenable kto' trains on these")
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
        raise LeftOutRow("all completions are tied")
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


def unpaired(row: Row, id: str) -> LabeledCompletion:
    """Read a prompt with a completion and its label, which is true where the completion is desirable."""
    record = converted(row)
    if record.filled("chosen") or record.filled("completions"):
        raise InvalidRow("a comparison, not a completion with a label; 'amenable dpo' trains on comparisons")
    if "label" not in record:
        raise InvalidRow(f"no column 'label' {record}")
    label = is_wanted(record["label"])
    messages = with_completion(record)
    if messages[-1].role != "assistant":
        raise InvalidRow("it does not end with an answer of the assistant")
    prompt = with_tools(require_open(messages[:-1]), record)
    return LabeledCompletion(prompt, messages[-1].content, label, record.id(id), record.rest())


def converted(row: Row) -> Record:
    """Return the record of a row, with conventional columns where it has those of a published format."""
    record = Record.of(row)
    convert(record)
    return record


def is_wanted(label: Any) -> bool:
    """Return the label of a completion, true or false (or 1 or 0)."""
    if label not in (True, False):
        raise InvalidRow(f"label is {label!r:.40}, neither true nor false")
    return bool(label)


def require_no_steps(record: Record) -> None:
    """Raise InvalidRow for labels of the steps of a solution, TRL's stepwise supervision."""
    labels = isinstance(record.columns.get("labels"), list) and record.filled("completions")
    if labels and "ranking" not in record and not is_graded(record.columns["completions"]):
        raise InvalidRow("stepwise supervision (labels of single steps), which no command trains on")


def chosen_as_completion(record: Record) -> str:
    """Return the mapping that reads a preference's chosen completion as a demonstration; empty if there is none."""
    chosen = record.columns.get("chosen")
    if isinstance(chosen, list) and len(chosen) > 1:
        return f"messages={next(record.origins(['chosen']))}"
    if isinstance(chosen, str) and is_transcript(chosen):
        return f"prompt={next(record.origins(['chosen']))}"
    prompt = next((name for name in PROMPT_COLUMNS[2:] if record.filled(name)), None)
    if chosen is None or prompt is None:
        return ""
    names = {"system": "system", "prompt": prompt, "completion": "chosen"}
    return " ".join(f"{to}={next(record.origins([name]))}" for to, name in names.items() if record.filled(name))


def require_one_comparison(record: Record) -> None:
    """Raise InvalidRow for a row with two comparisons, or with labels of the steps of a solution."""
    if not record.filled("completions"):
        return
    require_no_steps(record)
    several = record.columns["completions"]
    if all(map(record.filled, ("chosen", "rejected"))) and ("ranking" in record or is_graded(several)):
        ranked = "completions=completions" + ("" if is_graded(several) else " ranking=ranking")
        hint = f"--columns prompt=prompt chosen=chosen rejected=rejected, or prompt=prompt {ranked}, selects one"
        raise InvalidRow(f"two comparisons: chosen and rejected, and completions; {hint}")


def require_prompt(record: Record) -> Conversation:
    """Read the prompt of a row; InvalidRow if there is none."""
    messages = prompt_messages(record)
    if not messages and not any(column in record for column in DIALOGUE_COLUMNS):
        raise InvalidRow(f"no column {', '.join(PROMPT_COLUMNS[:-1])} or {PROMPT_COLUMNS[-1]} {record}")
    return messages


def with_completion(record: Record) -> Conversation:
    """Read the prompt, and its completion from a column if the dialogue has none.

    InvalidRow if columns have different completions, or a prompt column and its completion are not as in the dialogue.
    """
    messages = checked(require_prompt(record))
    present = [column for column in COMPLETION_COLUMNS if column in record]
    answers = {column: text for column in present if (text := completion_text(record, column)) is not None}
    if messages[-1].role == "assistant" and record.used & set(DIALOGUE_COLUMNS):
        others = {column: text for column, text in answers.items() if text.strip() != messages[-1].content.strip()}
        if others and not record.used.isdisjoint({*PROMPT_COLUMNS, *PASSAGE_COLUMNS} - set(DIALOGUE_COLUMNS)):
            dialogue = next(name for name in DIALOGUE_COLUMNS if name in record.used)
            raise ambiguous(record, "the last turn of the dialogue and", others, f"messages={dialogue}", "completion")
        record.used.update(answers.keys() - others.keys())
    elif present:
        if len(set(map(str.strip, answers.values()))) > 1:
            raise ambiguous(record, "", answers, "", "completion")
        column = next(filter(record.filled, present), present[0])
        before, answer = reply(record[column], column)
        if before:
            raise InvalidRow(f"{column} is not one reply of the assistant")
        record.used.update(answers)
        messages = (*messages, Message("assistant", answer))
    return messages


def completion_text(record: Record, column: str) -> str | None:
    """Return the text of a filled column with one reply; None for any other."""
    try:
        before, answer = reply(record.columns[column], column)
    except InvalidRow:
        return None
    return answer if answer.strip() and not before else None


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
