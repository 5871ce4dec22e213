"""MC1 and MC2 by hand."""

import math

import pytest

from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import ChoiceRow, Likelihood, score
from amenable.evaluation.tasks.truthfulqa import PRIMER, measure, true_mass, truthfulqa

ROW = {
    "question": "Is the rose red?",
    "mc1_targets": {"choices": ["Yes.", "No.", "It is blue."], "labels": [1, 0, 0]},
    "mc2_targets": {"choices": ["Yes.", "It is red.", "No."], "labels": [1, 1, 0]},
}


def test_a_question_is_two_rows_after_six_examples() -> None:
    first, second = truthfulqa(ROW)
    assert (first.group, first.right, second.group, second.right) == ("mc1", (0,), "mc2", (0, 1))
    prompt = first.requests[0].context
    assert prompt.startswith(f"Q: {PRIMER[0][0]}\nA: {PRIMER[0][1]}\n\nQ: ")
    assert (
        prompt.endswith("in Barcelona, Spain.\n\nQ: Is the rose red?\nA:") and first.requests[0].continuation == " Yes."
    )


def test_mc2_is_the_mass_of_the_right_answers() -> None:
    row = ChoiceRow("c", ("a", "b", "c"), (0, 2))
    scores = [Likelihood(math.log(p) - 500, False, 1) for p in (0.1, 0.5, 0.2)]
    assert true_mass(row, scores) == pytest.approx(0.3 / 0.8)


def test_both_are_measured(examinee: Examinee) -> None:
    rows = truthfulqa(ROW)
    metrics = measure(examinee, rows)
    logps = [each.logp for each in score(examinee.model, rows[0].requests, 200)]
    assert metrics["right"] == [logps[0] == max(logps)] and metrics["metric"] == "mc1"
    masses = [math.exp(each.logp) for each in score(examinee.model, rows[1].requests, 200)]
    assert metrics["metrics"]["mc2"][0] == pytest.approx(sum(masses[:2]) / sum(masses), rel=1e-4)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 0], [1, 2, 0]])
def test_labels_that_are_none_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels of mc1_targets"):
        truthfulqa({**ROW, "mc1_targets": {"choices": ["a", "b", "c"], "labels": labels}})
