"""Robustness to phrasing, and to sampling: a question in several wordings, or answered several times.

    agreement     share of the pairs of wordings whose answers say the same: the same of the known answers, or the same
                  words without articles and punctuation (evaluation/stability.py)
    similarity    mean F1 of the words of two answers
    right         share of wordings whose answer mentions a right one; worst_of_n where all do, best_of_n where any does
    flips         some wordings are answered right and others wrong
    sampled_*     the same of n answers to the first wording, drawn at --temperature (--self-consistency n)

`choices` are answers that can be told apart, the right ones included; without them and `answers` only equal answers
agree. Decoding of the wordings is greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amenable.evaluation.content import word_f1
from amenable.evaluation.stability import agreement, content_of, flips, mentions, pairwise
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, measured_rows
from amenable.evaluation.tasks.generated import PromptRow, reply


def paraphrases(columns: Columns) -> list[PromptRow]:
    """Convert a set of `paraphrases`, wordings of one prompt; `answers` are the right ones, `choices` all that can be
    told apart."""
    wordings = list(columns["paraphrases"])
    answers, choices = list(columns.get("answers") or []), list(columns.get("choices") or [])
    if not all(isinstance(each, str) and each.strip() for each in (*wordings, *answers, *choices)):
        raise ValueError("paraphrases, answers and choices are texts")
    if len(set(wordings)) < max(2, len(wordings)):
        raise ValueError("there are two different wordings or more, none of them twice")
    fields = {"paraphrases": wordings, "answers": answers, "choices": list(dict.fromkeys([*answers, *choices]))}
    return [PromptRow(wordings[0], answers[0] if answers else "", is_turn=True, fields=fields)]


def measure(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return agreement, similarity and correctness over the wordings of each question, and over sampled answers."""
    wordings = [row.fields["paraphrases"] for row in rows]
    flat = [replace(row, context=wording).messages for row, own in zip(rows, wordings) for wording in own]
    texts = iter(group[0] for group in reply(examinee, flat))
    answers = [[next(texts) for _ in own] for own in wordings]
    measures = stability(rows, answers)
    count = examinee.options.self_consistency
    if count:
        sampled = reply(examinee, [row.messages for row in rows], count)
        measures |= {f"sampled_{name}": values for name, values in stability(rows, sampled).items()}
    examples = [
        {"prompt": row.context, "answers": own, "labels": labels, "note": f"right: {row.answer}" if row.answer else ""}
        for row, own, labels in zip(rows, answers, wordings)
    ]
    return measured_rows("agreement", measures, examples)


def stability(rows: Sequence[PromptRow], answers: Sequence[Sequence[str]]) -> dict[str, Sequence[float | None]]:
    """Return the measures of several answers to each row."""
    contents = [[content_of(text, row.fields["choices"]) for text in own] for row, own in zip(rows, answers)]
    graded = [
        [any(mentions(text, right) for right in row.fields["answers"]) for text in own] if row.answer else None
        for row, own in zip(rows, answers)
    ]
    return {
        "agreement": [agreement(own) for own in contents],
        "similarity": [pairwise(own, lambda a, b: word_f1(str(a), str(b))) for own in answers],
        "right": [None if own is None else sum(own) / len(own) for own in graded],
        "worst_of_n": [None if own is None else all(own) for own in graded],
        "best_of_n": [None if own is None else any(own) for own in graded],
        "flips": [None if own is None else flips(own) for own in graded],
    }


FORMS = (
    Form("paraphrases", ("paraphrases",), paraphrases, measure, generates=True, reads=frozenset({"self_consistency"})),
)
