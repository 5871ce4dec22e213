"""Rows of tasks as instructions with their answers, in wordings that vary from row to row, to tune a model on public
tasks as FLAN (Wei et al., 2021) and T0 (Sanh et al., 2021) were.

    multiple choice    context, choices        -> the right choice, as it is written
    labelled texts     a text, or two          -> the label's name, of those that the file has
    problems           question                -> the worked answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.data import sources
from amenable.data.readers import iter_rows
from amenable.data.task_columns import LETTERS, PAIRS, TEXTS, TaskExample
from amenable.errors import InputError
from amenable.evaluation.tasks.forms import form_of, parse_task, read_task
from amenable.evaluation.tasks.generated import PromptRow
from amenable.evaluation.tasks.likelihood import ChoiceRow
from amenable.train.classification import class_order, shortened

CHOICE_TEMPLATES = (
    "{context}\n\nOptions:\n{lines}",
    "{context}\n\nAnswer with one of these: {series}.",
    "Choose the right answer: {series}.\n\n{context}",
    "Read this and pick an answer.\n\n{context}\n\n{lettered}",
)
PROBLEM_TEMPLATES = (
    "{context}",
    "Solve this step by step.\n\n{context}",
    "{context}\n\nShow the steps, and end with #### and the answer.",
)
LETTER_TEMPLATES = ("{context}\n\nAnswer with a letter.", "{context}\n\nWhich letter is right?")
"""of contexts that list the choices, each by its letter"""
LABELLED = ("classification", "entailment")
"""forms of labelled texts, beside those of tests"""


@dataclass(frozen=True)
class Instruction:
    """A question with its right answer, and the wordings that it may have."""

    context: str
    answer: str
    templates: tuple[str, ...]
    choices: tuple[str, ...] = ()
    """that are listed"""

    def render(self, draw: int) -> dict[str, Any]:
        """Return a row of data for sft, in the wording that a random number chooses."""
        prompt = self.templates[draw % len(self.templates)].format(
            context=self.context,
            lines="\n".join(f"- {choice}" for choice in self.choices),
            series="; ".join(self.choices),
            lettered="\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS.lower(), self.choices)),
        )
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": self.answer}]}


def parse_spec(spec: str) -> tuple[str | None, Path]:
    """Parse FILE or FORM:FILE, of a test or of labelled texts; InputError for an unknown form, with the nearest."""
    name, _, path = spec.partition(":")
    return (name, Path(path)) if name in LABELLED and not Path(spec).exists() else parse_task(spec)


def read_instructions(
    file: Path, form: str | None = None, labels: Sequence[str] = (), limit: int = 0
) -> list[Instruction]:
    """Read the rows of a task's file as instructions; its form is that of its columns unless it is named.

    labels: names of the classes of labelled texts, in the order of the file's labels. limit: rows read, 0 for all.
    InputError for a form without choices or worked answers, and for labels that are numbers and have no names.
    """
    if form is None and form_of(file) is None:
        form = labelled_form(first_row(file))
    if form in LABELLED:
        return labelled(file, form, labels, limit)
    task = read_task(file, form, limit)
    return [instruction_of(row, task.form.name, file) for row in task.rows]


def first_row(file: Path) -> Mapping[str, Any]:
    """Return the columns of a file's first row; none where it is no row."""
    _, columns = next(iter_rows(file, None), (0, None))
    return columns if isinstance(columns, dict) else {}


def labelled_form(columns: Mapping[str, Any]) -> str | None:
    """Return the form of a labelled row, by its columns; None for a row that has none."""
    if "label" not in columns:
        return None
    if any(first in columns and second in columns for first, second in PAIRS):
        return "entailment"
    return "classification" if any(name in columns for name in TEXTS) else None


def instruction_of(row: Any, form: str, file: Path) -> Instruction:
    """Return the instruction of a task's row."""
    if isinstance(row, ChoiceRow) and len(row.choices) > 1 and len(row.right) == 1:
        choices = tuple(choice.strip() for choice in row.choices)
        context, answer = row.context.removesuffix("\nAnswer:"), choices[row.right[0]]
        by_letter = choices == tuple(LETTERS[: len(choices)])
        return Instruction(context, answer, LETTER_TEMPLATES if by_letter else CHOICE_TEMPLATES, choices)
    if isinstance(row, PromptRow) and row.answer:
        question = row.context.removeprefix("Question: ").removesuffix("\nAnswer:")
        return Instruction(question, row.answer, PROBLEM_TEMPLATES)
    hint = "give tests of multiple choice, problems with worked answers, or labelled texts"
    raise InputError(f"a row of '{form}' has no right answer to learn", file, hint)


def labelled(file: Path, kind: str, labels: Sequence[str], limit: int) -> list[Instruction]:
    """Return the instructions of labelled texts: the choices are the labels of the file."""
    loaded = sources.read_task(file, kind)
    if loaded.rejected:
        bad = loaded.rejected[0]
        raise InputError(f"no row of '{kind}': {bad.reason}", f"{bad.file}: line {bad.line}", "mend or remove it")
    examples = loaded.rows
    classes = sorted({str(example.label) for example in examples}, key=class_order)
    if labels and len(labels) != len(classes):
        problem = f"{len(labels)} names for {len(classes)} labels"
        raise InputError(problem, file, f"name each of {shortened(classes)}, in this order")
    if not labels and any(not class_order(name)[0] for name in classes):
        raise InputError(f"its labels are numbers: {shortened(classes)}", file, "name them, in this order, by --labels")
    names = dict(zip(classes, labels or classes))
    texts = [(context_of(example), names[str(example.label)]) for example in examples[: limit or None]]
    return [Instruction(context, answer, CHOICE_TEMPLATES, tuple(names.values())) for context, answer in texts]


def context_of(example: TaskExample) -> str:
    """Return the texts of an example as one."""
    if len(example.texts) == 1:
        return example.texts[0]
    first, second = example.texts
    return f"Premise: {first}\nHypothesis: {second}"
