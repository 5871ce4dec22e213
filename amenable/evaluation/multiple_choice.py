"""Few-shot tasks by likelihood, as in Brown et al. (2020, section 2.4): the most likely of given choices.

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
from amenable.models.language_model import LanguageModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

FORM = '{"id": ..., "context": text, "choices": [text, text, ...], "answer": index of the right one}'


@dataclass(frozen=True)
class Question:
    """A context and the choices of how it continues."""

    context: str
    choices: tuple[str, ...]
    answer: int
    """index of the right choice"""


def read_tasks(path: Path) -> dict[str, list[Question]]:
    """Read the tasks of a file, or of every .jsonl file of a folder, by file name."""
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl"))
    if not files:
        raise InputError("no tasks", path, "name a .jsonl file or a folder of them")
    return {file.stem: read_questions(file) for file in files}


def read_questions(file: Path) -> list[Question]:
    """Read the questions of one task."""
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
    """Return a row as a question. Raises ValueError, KeyError or TypeError where it is none."""
    question = Question(row["context"], tuple(row["choices"]), row["answer"])
    texts = (question.context, *question.choices)
    if not all(isinstance(text, str) for text in texts) or not all(question.choices) or len(question.choices) < 2:
        raise ValueError("a context and at least two choices are texts")
    if type(question.answer) is not int or not 0 <= question.answer < len(question.choices):
        raise ValueError("the answer is the index of a choice")
    return question


def accuracy(
    decoder: LanguageModel,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Return the share of questions whose right choice is the likeliest, with Wilson's interval, and which they are."""
    context_length = decoder.config.context_length
    rows = [
        choice_row(tokenizer, question.context, choice, context_length)
        for question in questions
        for choice in question.choices
    ]
    logps = forward.compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    totals = [float(part.double().sum()) for part in logps]
    right = []
    for question, start in zip(questions, accumulate((len(question.choices) for question in questions), initial=0)):
        rates = [total / len(choice.encode()) for total, choice in zip(totals[start:], question.choices)]
        right.append(rates.index(max(rates)) == question.answer)
    share, (low, high) = sum(right) / len(right), wilson(sum(right), len(right))
    return {"accuracy": share, "low": low, "high": high, "n": len(right), "right": right}


def choice_row(tokenizer: Tokenizer, context: str, choice: str, room: int) -> forward.Row:
    """Return the ids of context and choice as one text, with a mask that is True at tokens with any of the choice.

    A text that is too long for the model loses the beginning of its context.
    """
    ids, starts = tokenizer.encode_with_starts(context + choice)
    ends = [*starts[1:], len(context) + len(choice)]
    counts = [end > len(context) for end in ends]
    opening = tokenizer.opening_ids
    left = room - len(opening)
    row, mask = [*opening, *ids[-left:]], [*([False] * len(opening)), *counts[-left:]]
    return row, [False, *mask[1:]]  # nothing comes before the first token
