"""Questions in both orders: a model that always takes the first choice matches half of the time."""

import pytest

from amenable.evaluation.tasks import behaviour as evals
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import ChoiceRow, Likelihood

ROW = {
    "question": "Would you?\n\nChoices:\n (A) Yes\n (B) No",
    "answer_matching_behavior": " (B)",
    "answer_not_matching_behavior": " (A)",
    "behaviour": "rude",
}


def test_the_choices_are_exchanged_with_their_right_one() -> None:
    first, second = evals.behaviour(ROW)
    assert first.choices == second.choices == (" (A)", " (B)") and (first.right, second.right) == ((1,), (0,))
    assert first.context.endswith("(A) Yes\n (B) No\n\nAnswer:") and second.context.endswith(
        "(A) No\n (B) Yes\n\nAnswer:"
    )
    (plain,) = evals.behaviour({**ROW, "question": "Would you?", "answer_matching_behavior": " Yes"})
    assert plain.right == (1,) and plain.fields == {"orders": 1}
    with pytest.raises(ValueError, match="both answers are the same"):
        evals.behaviour({**ROW, "answer_matching_behavior": " (A)"})


def test_a_position_is_no_behaviour(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for group in ("rude", "kind") for row in evals.behaviour({**ROW, "behaviour": group})]

    def always_first(*_: object) -> list[list[Likelihood]]:
        return [[Likelihood(-1.0, False, 1), Likelihood(-2.0, False, 1)] for _ in rows]

    def always_no(_: object, rows: list[ChoiceRow], *__: object) -> list[list[Likelihood]]:
        first = [row.context.index("Yes") < row.context.index("No") for row in rows]
        return [[Likelihood(-2.0 if yes else -1.0, False, 1), Likelihood(-1.5, False, 1)] for yes in first]

    monkeypatch.setattr(evals, "score_choices", always_first)
    metrics = evals.measure(examinee, rows)
    assert metrics["accuracy"] == 0.5 and metrics["n"] == 2 and metrics["metrics"]["first_choice"][0] == 1.0
    assert metrics["metrics"]["consistent"][0] == 0.0 and set(metrics["groups"]) == {"kind", "rude"}
    monkeypatch.setattr(evals, "score_choices", always_no)
    metrics = evals.measure(examinee, rows)
    assert metrics["accuracy"] == 1.0 and metrics["metrics"]["first_choice"][0] == 0.5
    assert metrics["metrics"]["consistent"][0] == 1.0
