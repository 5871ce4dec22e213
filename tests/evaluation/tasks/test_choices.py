"""Multiple choice: prompts as published, answers by hand from the likelihoods."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from amenable.evaluation.tasks import choices, likelihood
from amenable.evaluation.tasks.choices import RATES, best
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import ChoiceRow, Likelihood, Request, score
from amenable.evaluation.tasks.options import TaskOptions

ARC = {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["A", "B"]}, "answerKey": "B"}
HELLASWAG = {
    "activity_label": "Cooking",
    "ctx_a": "He [title] cooks.",
    "ctx_b": "then he",
    "endings": ["eats  it [step].", "sleeps"],
    "label": "0",
}
MMLU = {"question": " Which? ", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "high_school"}
RACE = {
    "article": "It rained.",
    "problems": "[{'question': 'It was  _  .', 'options': ['wet', 'dry'], 'answer': 'A'}, "
    "{'question': 'And?', 'options': ['cold', 'hot'], 'answer': 'B'}]",
}


@pytest.mark.parametrize(
    ("convert", "columns", "context", "texts", "right"),
    [
        (choices.arc, ARC, "Question: Why?\nAnswer:", ("so", "no"), 1),
        (choices.hellaswag, HELLASWAG, "Cooking: He. cooks. Then he", ("eats it .", "sleeps"), 0),
        (choices.mmlu, MMLU, "Which?\nA. w\nB. x\nC. y\nD. z\nAnswer:", ("A", "B", "C", "D"), 2),
        (choices.piqa, {"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, "Question: g\nAnswer:", ("a", "b"), 1),
        (
            choices.boolq,
            {"passage": "P.", "question": "is it", "answer": True},
            "P.\nQuestion: is it?\nAnswer:",
            ("no", "yes"),
            1,
        ),
        (choices.race, RACE, "Article: It rained.\n\nIt was wet\nAnd?", ("cold", "hot"), 1),
        (
            choices.race,
            {"article": "It rained.", "question": "And?", "options": ["cold", "hot"], "answer": "A"},
            "Article: It rained.\n\nAnd?",
            ("cold", "hot"),
            0,
        ),
    ],
)
def test_prompts_are_the_published_ones(
    convert: Any, columns: dict[str, Any], context: str, texts: tuple[str, ...], right: int
) -> None:
    (row,) = convert(columns)
    assert (row.context, row.choices, row.right, row.delimiter) == (context, texts, (right,), " ")


def test_a_subject_is_described_and_is_a_group() -> None:
    (row,) = choices.mmlu(MMLU)
    assert row.group == "high_school"
    assert row.description == "The following are multiple choice questions (with answers) about high school.\n\n"


def test_lengths_divide_the_likelihood() -> None:
    row = ChoiceRow("c", ("\u00e9\u00e9", "ab", "abcdef"), (0,))
    scores = [Likelihood(-4.0, False, 4), Likelihood(-3.6, False, 1), Likelihood(-9.0, False, 3)]
    # by character -2, -1.8, -1.5; by byte -1, -1.8, -1.5; by token -1, -3.6, -3
    assert {name: best(rate, row, scores) for name, rate in RATES.items()} == {
        "acc": 1,
        "acc_norm": 2,
        "acc_bytes": 0,
        "acc_tokens": 0,
    }


def test_answers_are_the_likeliest_choices(examinee: Examinee) -> None:
    rows = [
        ChoiceRow(f"The {thing} is", ("red.", "green.", "a blue."), (i % 3,), group="a" if i < 2 else "b")
        for i, thing in enumerate(("rose", "leaf", "sea", "frog"))
    ]
    metrics = choices.multiple_choice("acc_norm", unconditional=True)(examinee, rows)
    right, mutual, gaps = [], [], []
    for row in rows:
        logps = [each.logp for each in score(examinee.model, row.requests, 200)]
        alone = [each.logp for each in score(examinee.model, [Request("", f" {c}") for c in row.choices], 200)]
        rates = [logp / len(choice) for logp, choice in zip(logps, row.choices)]
        right.append(rates.index(max(rates)) in row.right)
        gains = [logp - base for logp, base in zip(logps, alone)]
        mutual.append(gains.index(max(gains)) in row.right)
        confidence = max(math.exp(logp) for logp in logps) / sum(math.exp(logp) for logp in logps)
        gaps.append((int(confidence * 10), confidence - (logps.index(max(logps)) in row.right)))
    assert metrics["right"] == right and metrics["accuracy"] == sum(right) / 4 and metrics["n"] == 4
    assert metrics["metrics"]["acc_mutual_info"][0] == sum(mutual) / 4
    errors = [abs(sum(gap for own, gap in gaps if own == i)) for i in range(10)]
    assert metrics["metrics"]["ece"][0] == pytest.approx(sum(errors) / 4)
    assert sum(part["count"] for part in metrics["reliability"]) == 4
    assert set(metrics["metrics"]) == {*RATES, "acc_mutual_info", "ece"} and set(metrics["groups"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("convert", "columns", "context"),
    [
        (choices.arc, ARC, "Question: N/A\nAnswer:"),
        (choices.hellaswag, HELLASWAG, "N/A: N/A"),
        (choices.mmlu, MMLU, "N/A\nA. N/A\nB. N/A\nC. N/A\nD. N/A\nAnswer:"),
        (choices.piqa, {"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, "Question: N/A\nAnswer:"),
        (choices.boolq, {"passage": "P.", "question": "is it", "label": 1}, "N/A\nQuestion: N/A?\nAnswer:"),
        (choices.race, RACE, "Article: N/A\n\nN/A"),
        (choices.own, {"context": "The rose is", "choices": [" red", " blue"], "answer": 0}, "N/A"),
    ],
)
def test_a_content_free_context_is_the_same_template(convert: Any, columns: dict[str, Any], context: str) -> None:
    (row,) = convert(columns)
    assert row.content_free == context


def test_calibration_divides_by_the_choices_after_a_context_without_content(examinee: Examinee) -> None:
    shot = ChoiceRow("The sea is", ("blue.",), (0,))
    rows = [
        ChoiceRow(f"The {thing} is", ("red.", "green.", "a blue."), (i % 3,), shots=(shot,), content_free="N/A is")
        for i, thing in enumerate(("rose", "leaf", "sea", "frog"))
    ]
    calibrating = replace(examinee, options=TaskOptions(calibrate=True))
    metrics = choices.multiple_choice("acc")(calibrating, rows)["metrics"]
    right = []
    for row in rows:
        logps = [each.logp for each in score(examinee.model, row.requests, 200)]
        free = [Request("The sea is blue.\n\nN/A is", f" {choice}") for choice in row.choices]
        prior = [each.logp for each in score(examinee.model, free, 200)]
        ratios = [logp - base for logp, base in zip(logps, prior)]
        right.append(ratios.index(max(ratios)) in row.right)
    assert (
        metrics["acc_calibrated"][0] == sum(right) / 4
        and "acc_calibrated" not in choices.multiple_choice("acc")(examinee, rows)["metrics"]
    )


def test_a_model_that_always_says_yes_is_calibrated(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    """p(yes) is .9 and .8 where p(yes | N/A) is .85: the second answer is no (Zhao et al., 2021, equation 1)."""
    yes = {"Is ice cold": 0.9, "Is ice hot": 0.8, "N/A": 0.85}

    def scores(model: object, requests: Sequence[Request], *_: object) -> list[Likelihood]:
        shares = [yes[each.context] if each.continuation == " yes" else 1 - yes[each.context] for each in requests]
        return [Likelihood(math.log(p), False, 1) for p in shares]

    monkeypatch.setattr(choices, "score", scores)
    monkeypatch.setattr(likelihood, "score", scores)
    rows = [
        ChoiceRow(c, ("no", "yes"), (right,), content_free="N/A")
        for c, right in (("Is ice cold", 1), ("Is ice hot", 0))
    ]
    metrics = choices.multiple_choice("acc")(replace(examinee, options=TaskOptions(calibrate=True)), rows)["metrics"]
    assert metrics["acc"][0] == 0.5 and metrics["acc_calibrated"][0] == 1.0


def test_text_that_was_read_is_known(examinee: Examinee) -> None:
    """The base model was trained on these sentences."""
    colours = ("red.", "green.", "blue.", "white.")
    things = {"rose": "red.", "leaf": "green.", "sea": "blue.", "snow": "white.", "frog": "green.", "jay": "blue."}
    rows = [ChoiceRow(f"The {thing} is", colours, (colours.index(colour),)) for thing, colour in things.items()]
    assert choices.multiple_choice("acc_bytes")(examinee, rows)["accuracy"] >= 4 / 6
