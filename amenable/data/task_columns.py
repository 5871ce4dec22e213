"""Rows of classification, entailment, similarity and multiple-choice tasks, by the columns of published data sets.

    classification     text or sentence, label                                  IMDB, SST-2, CoLA
    entailment         premise and hypothesis, sentence1 and sentence2,
                       question and sentence ..., label                         MNLI, RTE, QNLI
    similarity         sentence1 and sentence2, question1 and question2 ...,
                       label: a class, or a number                              MRPC, QQP; STS-B
    multiple-choice    article, question and options, answer                    RACE
                       question and choices {text, label}, answerKey            ARC
                       context and choices, answer (an index)

A label of entailment and classification is a class, given as a number or a name (true and false are 1 and 0); so is one
of similarity, unless it has decimals. Label -1 is GLUE's of hidden labels: such rows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amenable.data.record import InvalidRow, LeftOutRow, Record, is_number, words_of

TEXTS = ("text", "sentence")
PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2")),
    ("question", "sentence"),
)
CONTEXTS, CHOICES, ANSWERS = ("article", "context", "question"), ("options", "choices"), ("answer", "answerKey")
TASK_COLUMNS = tuple(
    dict.fromkeys((*TEXTS, *(name for pair in PAIRS for name in pair), *CONTEXTS, *CHOICES, *ANSWERS, "label", "id"))
)
"""columns that a mapping of a task's data may name"""
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class TaskExample:
    """Texts of a row of a task, and its label."""

    texts: tuple[str, ...]
    """one text, two of them, or a context and its choices"""
    label: str | float
    """name of a class; a number where the label has decimals; of multiple choice the index of the right choice"""
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


def classification(row: Mapping[str, Any], id: str) -> TaskExample:
    """Read a text and its class."""
    record = Record.of(row)
    name = next((name for name in TEXTS if name in record), None)
    if name is None:
        pair = next((pair for pair in PAIRS if all(column in record for column in pair)), None)
        hint = f": {' and '.join(pair)} are two texts, for --task entailment or similarity" if pair else ""
        raise InvalidRow(f"no column 'text' or 'sentence' {record}{hint}")
    return TaskExample((words_of(record[name], name),), class_of(record), record.id(id), record.rest())


def entailment(row: Mapping[str, Any], id: str) -> TaskExample:
    """Read a premise, a hypothesis and their class."""
    record = Record.of(row)
    return TaskExample(two_texts(record), class_of(record), record.id(id), record.rest())


def similarity(row: Mapping[str, Any], id: str) -> TaskExample:
    """Read two texts and how similar they are: a class, or a number with decimals."""
    record = Record.of(row)
    texts = two_texts(record)
    value: Any = record.get("label")
    if isinstance(value, str) and "." in value:
        with suppress(ValueError):
            value = float(value)
    label = value if isinstance(value, float) and is_number(value) else class_of(record)
    return TaskExample(texts, label, record.id(id), record.rest())


def multiple_choice(row: Mapping[str, Any], id: str) -> TaskExample:
    """Read a context, its choices and the index of the right one."""
    record = Record.of(row)
    parts = [words_of(record[name], name) for name in CONTEXTS if name in record]
    column = next((name for name in CHOICES if record.filled(name)), None)
    answer = next((name for name in ANSWERS if name in record), None)
    if not parts or column is None or answer is None:
        wanted = f"{', '.join(CONTEXTS[:-1])} or {CONTEXTS[-1]}", " or ".join(CHOICES), " or ".join(ANSWERS)
        lacking = next(names for names, has in zip(wanted, (parts, column, answer)) if not has)
        raise InvalidRow(f"no column {lacking} {record}")
    value: Any = record[column]
    labels = list(LETTERS)
    if isinstance(value, Mapping):
        value, labels = value.get("text"), list(value.get("label") or labels)
    if not isinstance(value, list) or len(value) < 2:
        raise InvalidRow(f"{column} is not a list of two or more texts")
    choices = [words_of(choice, f"{column} {number}") for number, choice in enumerate(value, start=1)]
    try:
        right = choice_index(record[answer], labels, len(choices))
    except ValueError as error:
        raise InvalidRow(str(error)) from None
    return TaskExample(("\n".join(parts), *choices), float(right), record.id(id), record.rest())


def two_texts(record: Record) -> tuple[str, str]:
    """Return the two texts of a row."""
    pair = next((pair for pair in PAIRS if all(column in record for column in pair)), None)
    if pair is None:
        known = ", ".join(" and ".join(pair) for pair in PAIRS)
        raise InvalidRow(f"no two texts ({known}) {record}")
    first, second = (words_of(record[name], name) for name in pair)
    return first, second


def class_of(record: Record) -> str:
    """Return the name of a row's class."""
    if "label" not in record:
        raise InvalidRow(f"no column 'label' {record}")
    label = record["label"]
    if isinstance(label, bool):
        label = int(label)
    if is_number(label) and label == int(label):
        label = str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise InvalidRow(f"label is {label!r:.40}, not the number or name of a class")
    if label == "-1":
        raise LeftOutRow("label -1: hidden")
    return label.strip()


def choice_index(value: Any, labels: Sequence[str], count: int) -> int:
    """Return the number of a right choice, given as a number from 0, as digits or as one of `labels`. Raises ValueError
    where it is none of `count` choices."""
    position, names = value, list(labels)
    if isinstance(value, str):
        position = names.index(value) if value in names else int(value) if value.isdecimal() else -1
    if type(position) is bool or not isinstance(position, int) or not 0 <= position < count:
        raise ValueError(f"the answer {value!r} is none of its {count} choices")
    return position
