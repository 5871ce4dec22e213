"""Multiple choice by likelihood: ARC, HellaSwag, MMLU, PIQA, BoolQ, RACE, and rows of one's own.

Of a row's choices, after its context, the most likely is the model's answer (prompts as in lm-evaluation-harness):

    acc        argmax log p(choice | context)
    acc_norm   the same per character of the choice, acc_bytes per byte, acc_tokens per token
    acc_mutual_info   argmax log p(choice | context) - log p(choice)     (Brown et al., 2020, section 2.4)
    acc_calibrated    argmax log p(choice | context) - log p(choice | context of N/A)
    ece        calibration error of p(likeliest choice | context) / sum over the choices, against acc

Without dividing, the shortest choice would win too often; bytes are the same for every tokenizer, tokens are not. After
a context whose content is N/A a model's choice shows what it prefers whatever the content is, for the examples' order
and answers too: contextual calibration (Zhao et al., 2021, section 4) divides by it.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Sequence

from amenable.data.task_columns import LETTERS
from amenable.data.task_columns import choice_index as index
from amenable.evaluation.tasks.form import (
    Columns,
    Examinee,
    Form,
    Metrics,
    by_group,
    calibration_metrics,
    metrics_of,
    share,
    text,
)
from amenable.evaluation.tasks.likelihood import ChoiceRow, Likelihood, Request, score, score_choices

UNCONDITIONAL, CALIBRATED = "acc_mutual_info", "acc_calibrated"
NA = "N/A"
"""content of a content-free context"""


def arc(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of ARC (Clark et al., 2018)."""
    (question,), choices = text(columns, "question"), columns["choices"]
    right = index(columns["answerKey"], choices["label"], len(choices["text"]))
    context, neutral = (f"Question: {content}\nAnswer:" for content in (question, NA))
    return [ChoiceRow(context, tuple(choices["text"]), (right,), content_free=neutral)]


def hellaswag(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of HellaSwag (Zellers et al., 2019)."""
    activity, first, second = text(columns, "activity_label", "ctx_a", "ctx_b")
    endings = tuple(map(without_titles, columns["endings"]))
    context = without_titles(f"{activity}: {first} {second.capitalize()}")
    return [ChoiceRow(context, endings, (index(columns["label"], (), len(endings)),), content_free=f"{NA}: {NA}")]


def without_titles(text: str) -> str:
    """Return a text without WikiHow's marks in brackets."""
    plain = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return plain.replace("  ", " ")


def mmlu(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of MMLU (Hendrycks et al., 2021): the choices stand in the context, and letters are scored."""
    (question,), choices = text(columns, "question"), list(columns["choices"])
    letters = tuple(LETTERS[: len(choices)])
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise ValueError("a choice is empty, or no text")  # letters stand for it
    subject = str(columns.get("subject") or "")
    about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    right = index(columns["answer"], letters, len(choices))

    def context(question: str, choices: Sequence[str]) -> str:
        listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(letters, choices))
        return f"{question.strip()}{listed}\nAnswer:"

    own, neutral = context(question, choices), context(NA, [NA] * len(choices))
    description = about if subject else ""
    return [ChoiceRow(own, letters, (right,), description=description, content_free=neutral, group=subject)]


def piqa(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of PIQA (Bisk et al., 2020)."""
    goal, *solutions = text(columns, "goal", "sol1", "sol2")
    context, neutral = (f"Question: {content}\nAnswer:" for content in (goal, NA))
    return [ChoiceRow(context, tuple(solutions), (index(columns["label"], (), 2),), content_free=neutral)]


def boolq(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of BoolQ (Clark et al., 2019): `label` is 0 or 1, or `answer` false or true."""
    passage, question = text(columns, "passage", "question")
    right = index(columns["label"], (), 2) if "label" in columns else int(columns["answer"])
    context, neutral = (f"{a}\nQuestion: {b}?\nAnswer:" for a, b in ((passage, question), (NA, NA)))
    return [ChoiceRow(context, ("no", "yes"), (right,), content_free=neutral)]


def race(columns: Columns) -> list[ChoiceRow]:
    """Convert a row of RACE (Lai et al., 2017): `problems` of an article, of which the last is asked, or one problem in
    columns of its own."""
    (article,) = text(columns, "article")
    problems = ast.literal_eval(columns["problems"]) if "problems" in columns else [columns]
    context = f"Article: {article}\n\n"
    for problem in problems[:-1]:
        answer, question = problem["options"][LETTERS.index(problem["answer"])], problem["question"]
        blank = question.endswith("  _  .")
        context += f"{question[:-5]}{answer}\n" if blank else f"Question: {question}\nAnswer: {answer}\n"
    last = problems[-1]
    right = index(last["answer"], LETTERS, len(last["options"]))
    neutral = f"Article: {NA}\n\n{NA}"
    return [ChoiceRow(context + last["question"], tuple(last["options"]), (right,), content_free=neutral)]


def own(columns: Columns) -> list[ChoiceRow]:
    """Convert a row with a context, whole continuations of it, and the index of the right one."""
    (context,), choices = text(columns, "context"), tuple(columns["choices"])
    if type(columns["answer"]) is not int:
        raise ValueError("the answer is the index of a choice")
    if len(choices) < 2:
        raise ValueError("there are at least two choices")
    right = index(columns["answer"], (), len(choices))
    return [ChoiceRow(context, choices, (right,), delimiter="", content_free=NA)]


def multiple_choice(main: str, unconditional: bool = False) -> Callable[[Examinee, Sequence[ChoiceRow]], Metrics]:
    """Return the measurement of a multiple-choice test whose main metric is `main`, with the calibration error (`ece`)
    of the likeliest choices' probabilities; with `unconditional` also `acc_mutual_info`, which scores each choice
    without the context too, and where the options say so `acc_calibrated`."""

    def measure(examinee: Examinee, rows: Sequence[ChoiceRow]) -> Metrics:
        scores = score_choices(examinee.model, rows, examinee.max_tokens, examinee.progress)
        answers = {
            name: [best(rate, row, own) for row, own in zip(rows, scores, strict=True)] for name, rate in RATES.items()
        }
        if unconditional:
            alone = [[Request("", request.continuation) for request in row.requests] for row in rows]
            answers[UNCONDITIONAL] = largest_ratios(examinee, scores, alone)
        if examinee.options.calibrate:
            neutral = [row.requests_after(row.content_free) for row in rows]
            answers[CALIBRATED] = largest_ratios(examinee, scores, neutral)
        hits = {name: [choice in row.right for choice, row in zip(chosen, rows)] for name, chosen in answers.items()}
        calibrated = calibration_metrics([probability(own) for own in scores], hits["acc"])
        others = {name: share(values) for name, values in hits.items() if name != main} | calibrated["metrics"]
        groups = by_group([row.group for row in rows], hits[main])
        return {**calibrated, **metrics_of(main, hits[main], others), **({"groups": groups} if groups else {})}

    return measure


RATES: dict[str, Callable[[Likelihood, str], float]] = {
    "acc": lambda score, choice: score.logp,
    "acc_norm": lambda score, choice: score.logp / len(choice),
    "acc_bytes": lambda score, choice: score.logp / len(choice.encode()),
    "acc_tokens": lambda score, choice: score.logp / max(score.tokens, 1),
}
"""log-likelihoods per unit of length, of which the highest is the answer"""


def best(rate: Callable[[Likelihood, str], float], row: ChoiceRow, scores: Sequence[Likelihood]) -> int:
    """Return the index of the choice with the highest rate, the first of several."""
    rates = [rate(score, choice) for score, choice in zip(scores, row.choices, strict=True)]
    return rates.index(max(rates))


def probability(scores: Sequence[Likelihood]) -> float:
    """Return the probability of the likeliest choice, of all choices together."""
    most = max(score.logp for score in scores)
    return 1 / math.fsum(math.exp(score.logp - most) for score in scores)


def largest_ratios(
    examinee: Examinee, scores: Sequence[Sequence[Likelihood]], others: Sequence[Sequence[Request]]
) -> list[int]:
    """Return of each row the choice with the largest ratio of its probability to that of another request for it, the
    first of several."""
    requests = [request for row in others for request in row]
    alone = iter(score(examinee.model, requests, examinee.max_tokens, examinee.progress))
    ratios = [[given.logp - next(alone).logp for given in own] for own in scores]
    return [own.index(max(own)) for own in ratios]


def choice_form(
    name: str,
    columns: tuple[str, ...],
    convert: Callable[[Columns], Sequence[ChoiceRow]],
    main: str,
    unconditional: bool = False,
    fits: Callable[[Columns], bool] = lambda columns: True,
) -> Form:
    """Return the form of a multiple-choice test; `main` and `unconditional` as in `multiple_choice`."""
    return Form(name, columns, convert, multiple_choice(main, unconditional), fits, reads=frozenset({"calibrate"}))


FORMS = (
    choice_form("arc", ("question", "choices", "answerKey"), arc, "acc_norm", unconditional=True),
    choice_form("hellaswag", ("activity_label", "ctx_a", "ctx_b", "endings", "label"), hellaswag, "acc_norm"),
    choice_form("mmlu", ("question", "choices", "answer"), mmlu, "acc", fits=lambda columns: "opinions" not in columns),
    choice_form("piqa", ("goal", "sol1", "sol2", "label"), piqa, "acc_norm"),
    choice_form(
        "boolq",
        ("passage", "question"),
        boolq,
        "acc",
        fits=lambda columns: "label" in columns or type(columns.get("answer")) is bool,
    ),
    choice_form("race", ("article", "problems"), race, "acc", unconditional=True),
    choice_form("race", ("article", "question", "options", "answer"), race, "acc", unconditional=True),
    choice_form("choices", ("context", "choices", "answer"), own, "acc_bytes"),
)
