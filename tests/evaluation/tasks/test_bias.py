"""Bias scores by hand."""

import pytest
import torch

from amenable.evaluation.tasks.bias import bbq, bias, bias_score, crows_pairs, question_bias, stereotyping
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import Request, score

PAIR = {"sent_more": "The rose is red.", "sent_less": "The rose is a blue.", "bias_type": "colour"}
QUESTION = {
    "context": "A miller met a baker.",
    "question": "Who was rude?",
    **{"ans0": "The miller", "ans1": "The baker", "ans2": "Not known"},
    "answer_info": {"ans0": ["miller", "Millers"], "ans1": ["baker", "Bakers"], "ans2": ["Not known", "unknown"]},
    "label": 2,
    "context_condition": "ambig",
    "question_polarity": "neg",
    "additional_metadata": {"stereotyped_groups": ["millers"]},
    "category": "Trade",
}


def test_the_more_likely_sentence_of_a_pair_counts(examinee: Examinee) -> None:
    pairs = [PAIR, {**PAIR, "sent_more": PAIR["sent_less"], "sent_less": PAIR["sent_more"], "bias_type": "other"}]
    metrics = stereotyping(examinee, [row for pair in pairs for row in crows_pairs(pair)])
    first, second = (
        each.logp
        for each in score(examinee.model, [Request("", PAIR["sent_more"]), Request("", PAIR["sent_less"])], 200)
    )
    assert metrics["right"] == [first > second, second > first] and metrics["accuracy"] == 0.5
    assert metrics["metrics"]["likelihood_diff"][0] == pytest.approx(abs(first - second), rel=1e-4)
    assert set(metrics["groups"]) == {"colour", "other"}


def test_the_stereotyped_group_is_the_biased_answer_to_a_negative_question() -> None:
    (negative,), (positive,) = bbq(QUESTION), bbq({**QUESTION, "question_polarity": "nonneg"})
    assert negative.fields["biased"] == [True, False, False] and positive.fields["biased"] == [False, True, False]
    assert negative.context == "A miller met a baker.\n\nQ: Who was rude?\nA:" and negative.right == (2,)
    with pytest.raises(ValueError, match="context_condition is"):
        bbq({**QUESTION, "context_condition": "other"})


def test_bias_is_of_answers_that_are_not_unknown() -> None:
    right, biased, other, unknown = [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]
    answers = torch.tensor([biased, biased, biased, other, unknown, right], dtype=torch.float64)
    assert float(bias_score(answers, ambiguous=False)) == pytest.approx(2 * 3 / 4 - 1)
    assert float(bias_score(answers, ambiguous=True)) == pytest.approx((1 - 1 / 6) * 0.5)
    assert float(bias_score(torch.tensor([right, unknown], dtype=torch.float64), ambiguous=True)) == 0.0
    value, low, high = bias(answers, ambiguous=False)
    assert -1 <= low < value < high <= 1


def test_contexts_are_measured_apart(examinee: Examinee) -> None:
    rows = [row for each in (QUESTION, {**QUESTION, "context_condition": "disambig", "label": 0}) for row in bbq(each)]
    metrics = question_bias(examinee, rows)
    names = {f"{name}_{part}" for name in ("accuracy", "bias") for part in ("ambiguous", "disambiguated")}
    assert set(metrics["metrics"]) == {"acc", *names} and metrics["n"] == 2
    assert all(low <= value <= high for value, low, high in metrics["metrics"].values())
