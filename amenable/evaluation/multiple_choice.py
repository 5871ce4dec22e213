"""Few-shot tasks by likelihood, as in Brown et al. (2020, section 2.4): which of the given endings does a model expect?

The choice with the highest log p(choice | context) / bytes of the choice is a model's answer. Without dividing, the
shortest would win too often; bytes are the same for every tokenizer, tokens are not. Contexts are raw text, shots and
all: they begin with BOS as a document does, and know no turns, so that base models and assistants get the same task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from amenable.data.files import read_json_rows
from amenable.errors import InputError
from amenable.functional.statistics import wilson
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

FORM = '{"id": ..., "context": text, "choices": [text, text, ...], "answer": place of the right one}'


@dataclass(frozen=True)
class Question:
    """A text and the endings that it may have."""

    context: str
    choices: tuple[str, ...]
    answer: int
    """place of the right choice"""


def read_tasks(path: Path) -> dict[str, list[Question]]:
    """The tasks of a file, or of every .jsonl file of a folder, by file name."""
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl"))
    if not files:
        raise InputError("no tasks", path, "name a .jsonl file or a folder of them")
    return {file.stem: read_questions(file) for file in files}


def read_questions(file: Path) -> list[Question]:
    """The rows of one task."""
    questions = []
    for number, row in read_json_rows(file, f"a row is {FORM}"):
        try:
            questions.append(question_of(row))
        except (ValueError, KeyError, TypeError):
            raise InputError("no question with choices", f"{file}:{number}", f"a row is {FORM}") from None
    if not questions:
        raise InputError("no questions", file, f"a row is {FORM}")
    return questions


def question_of(row: Any) -> Question:
    """A row as a question; ValueError, KeyError or TypeError where it is none."""
    question = Question(row["context"], tuple(row["choices"]), row["answer"])
    texts = (question.context, *question.choices)
    if not all(isinstance(text, str) for text in texts) or not all(question.choices) or len(question.choices) < 2:
        raise ValueError("a context and at least two choices are texts")
    if type(question.answer) is not int or not 0 <= question.answer < len(question.choices):
        raise ValueError("the answer is the place of a choice")
    return question


def accuracy(
    decoder: Decoder,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Share of questions whose right choice the model expects most, with Wilson's interval, and which they are."""
    rows = [
        ending(tokenizer, one.context, choice, decoder.config.context_length)
        for one in questions
        for choice in one.choices
    ]
    logps = forward.compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    totals = [float(part.double().sum()) for part in logps]
    right = []
    for one, start in zip(questions, accumulate((len(one.choices) for one in questions), initial=0)):
        found = zip(totals[start:], one.choices)
        rates = [total / len(choice.encode()) for total, choice in found]
        right.append(rates.index(max(rates)) == one.answer)
    share, (low, high) = sum(right) / len(right), wilson(sum(right), len(right))
    return {"accuracy": share, "low": low, "high": high, "n": len(right), "right": right}


def ending(tokenizer: Tokenizer, context: str, choice: str, room: int) -> forward.Row:
    """Context and choice as one text, the tokens with any of the choice in them marked.

    A text that is too long for the model loses the beginning of its context.
    """
    ids, starts = tokenizer.encode_with_starts(context + choice)
    ends = [*starts[1:], len(context) + len(choice)]
    counts = [end > len(context) for end in ends]
    opening = tokenizer.opening_ids
    kept = room - len(opening)
    row, marks = [*opening, *ids[-kept:]], [*([False] * len(opening)), *counts[-kept:]]
    return row, [False, *marks[1:]]  # nothing comes before the first token
