"""MT-Bench (Zheng et al., 2023): questions of several turns, whose answers a judge grades from 1 to 10.

A turn follows the model's own answers to those before it. Decoding is greedy; the rubric is the judge's own
(`--judge-rubric` changes it), and it sees the reference answer of a turn that has one. A turn that the judge gives no
grade is left out; `graded` is the share of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.tasks.form import (
    Columns,
    Examinee,
    Form,
    Metrics,
    mean,
    mean_by_group,
    metrics_of,
    share,
    text,
)
from amenable.evaluation.tasks.generated import PromptRow, reply


def mt_bench(columns: Columns) -> list[PromptRow]:
    """Convert a question with its `turns`, as published, or with `prompt` and `follow_ups`."""
    if "turns" in columns:
        turns = list(columns["turns"])
    else:
        prompt = columns["prompt"]
        first = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        turns = [first, *columns["follow_ups"]]
    references = list(columns.get("reference") or [])
    if not turns or not all(isinstance(each, str) and each.strip() for each in turns) or len(references) > len(turns):
        raise ValueError("turns are texts, and references at most as many")
    (category,) = text(columns, "category")
    return [PromptRow(turns[0], is_turn=True, turns=tuple(turns[1:]), references=tuple(references), group=category)]


def measure(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the mean grade of a question over its turns, of each turn, and by category, and the share of turns with a
    grade. InputError where none has one."""
    judge = examinee.judge
    assert judge is not None, "read_tasks requires one"
    conversations = [row.messages for row in rows]
    texts, grades = [list[str]() for _ in rows], [list[float | None]() for _ in rows]
    for turn in range(max(1 + len(row.turns) for row in rows)):
        going = [i for i, row in enumerate(rows) if turn <= len(row.turns)]
        if turn:
            for i in going:
                question = Message("user", rows[i].turns[turn - 1])
                conversations[i] = (*conversations[i], Message("assistant", texts[i][-1]), question)
        prompts = [conversations[i] for i in going]
        answers = [group[0] for group in reply(examinee, prompts)]
        references = ["".join(rows[i].references[turn : turn + 1]) for i in going]
        for i, answer, grade in zip(going, answers, judge.grade(prompts, answers, references), strict=True):
            texts[i].append(answer)
            grades[i].append(grade)
    graded = [i for i, own in enumerate(grades) if any(grade is not None for grade in own)]
    if not graded:
        problem = f"none of {sum(map(len, grades))} replies has a score"
        raise InputError(problem, f"judge:{judge.name}", "give a larger model, or a clearer --judge-rubric")
    values = [mean_grade(grades[i]) for i in graded]
    others = {"graded": share([grade is not None for own in grades for grade in own])}
    for turn in range(max(map(len, grades))):
        if clear := [grade for row in grades for grade in row[turn : turn + 1] if grade is not None]:
            others[f"turn_{turn + 1}"] = mean(clear)
    unclear = sum(grade is None for own in grades for grade in own)
    groups = mean_by_group([rows[i].group for i in graded], values)
    metrics = metrics_of("score", values, others)
    return {**metrics, "unclear": unclear, "groups": groups, "texts": texts, "grades": grades}


def mean_grade(grades: Sequence[float | None]) -> float:
    """Return the mean of the grades that are clear."""
    clear = [grade for grade in grades if grade is not None]
    return sum(clear) / len(clear)


FORMS = (
    Form("mt-bench", ("turns", "category"), mt_bench, measure, generates=True, reads=frozenset({"judge"})),
    Form(
        "mt-bench", ("prompt", "follow_ups", "category"), mt_bench, measure, generates=True, reads=frozenset({"judge"})
    ),
)
