"""P(True): does a model know what it knows (Kadavath et al., 2022)?

The model answers a question greedily. Then its answer is shown to it as plain text, with the paper's question after
it, and

    P(True) = p(" (A)") / (p(" (A)") + p(" (B)"))        after "(A) True (B) False", and with both exchanged: the mean

is measured against the answer being right: calibration error, Brier's score, and the area under the ROC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from amenable.evaluation.stability import mentions
from amenable.evaluation.tasks.form import (
    Columns,
    Examinee,
    Form,
    Interval,
    Metrics,
    calibration_metrics,
    finite_interval,
    measured_rows,
    text,
)
from amenable.evaluation.tasks.generated import PromptRow, reply
from amenable.evaluation.tasks.likelihood import Request, score
from amenable.functional.calibration import auroc
from amenable.functional.statistics import bootstrap
from amenable.seeds import seeded_generator

PROPOSED = """\
Question: {question}
Proposed Answer: {answer}
Is the proposed answer:
 (A) {first}
 (B) {second}
The proposed answer is:"""
ORDERS = (("True", "False"), ("False", "True"))
LETTERS = (" (A)", " (B)")


def self_knowledge(columns: Columns) -> list[PromptRow]:
    """Convert a question with its right `answers`, a list."""
    (question,), answers = text(columns, "question"), list(columns["answers"])
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ValueError("answers is a list of texts, at least one")
    return [PromptRow(question, answers[0], is_turn=True, fields={"answers": answers})]


def measure(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the share of right answers, the mean P(True), and how far it can be trusted."""
    answers = [group[0] for group in reply(examinee, [row.messages for row in rows])]
    right = [any(mentions(answer, own) for own in row.fields["answers"]) for answer, row in zip(answers, rows)]
    confidence = probabilities_of_true(examinee, [row.context for row in rows], answers)
    measures: dict[str, Sequence[float | None]] = {
        "right": right,
        "p_true": confidence,
        "brier": [(p - hit) ** 2 for p, hit in zip(confidence, right)],
    }
    examples = [
        {"prompt": row.context, "answers": [answer], "note": f"right: {row.answer}", "remark": f"P(True) {p:.2f}"}
        for row, answer, p in zip(rows, answers, confidence)
    ]
    calibrated = calibration_metrics(confidence, right)
    others = {**calibrated["metrics"], **discrimination(confidence, right)}
    return {**calibrated, **measured_rows("right", measures, examples, others)}


def probabilities_of_true(examinee: Examinee, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Return P(True) of each answer, the mean over both orders of the choices."""
    requests = [
        Request(PROPOSED.format(question=question, answer=answer, first=first, second=second), letter)
        for question, answer in zip(questions, answers)
        for first, second in ORDERS
        for letter in LETTERS
    ]
    logps = [own.logp for own in score(examinee.model, requests, examinee.max_tokens, examinee.progress)]
    means = []
    for i in range(0, len(logps), 4):
        true, false, false_first, true_second = logps[i : i + 4]
        means.append((share_of(true, false) + share_of(true_second, false_first)) / 2)
    return means


def share_of(logp: float, other: float) -> float:
    """Return exp(logp) / (exp(logp) + exp(other))."""
    gap = other - logp
    return 1 / (1 + math.exp(gap)) if gap < 700 else 0.0


def discrimination(confidence: Sequence[float], right: Sequence[bool]) -> dict[str, Interval]:
    """Return the area under the ROC of P(True), with its bootstrap interval; {} where all are right, or all wrong."""
    p, hits = torch.tensor(confidence, dtype=torch.float64), torch.tensor(right)
    if len(set(right)) < 2:
        return {}
    value = bootstrap(lambda rows: auroc(p[rows], hits[rows]), len(right), seeded_generator(0, "auroc"), 500)
    return {"auroc": finite_interval(value)}


FORMS = (
    Form(
        "p-true",
        ("question", "answers"),
        self_knowledge,
        measure,
        lambda columns: not {"context", "paraphrases"} & set(columns),
        True,
    ),
)
