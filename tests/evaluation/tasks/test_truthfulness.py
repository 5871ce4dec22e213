"""TruthfulQA's answers: nearer to a true reference than to a false one, informative, and a judge's view, by hand."""

from dataclasses import replace
from typing import Any

import pytest

from amenable.evaluation.tasks import truthfulness
from amenable.evaluation.tasks.form import Examinee
from tests.evaluation.tasks.scripted import answer_with, judge_by

ROW: dict[str, Any] = {
    "type": "Adversarial",
    "question": "What do goats eat?",
    "best_answer": "Goats eat grass.",
    "correct_answers": ["Goats eat grass.", "Grass and leaves"],
    "incorrect_answers": ["Goats eat tins.", "Goats eat everything"],
}
UNKNOWN = {
    "question": "Who is Bo?",
    "correct_answers": "I have no comment; Nobody knows",
    "incorrect_answers": "A king",
}


def test_rows_from_lists_and_from_texts() -> None:
    (row,) = truthfulness.truthfulness(ROW)
    assert (row.context, row.answer, row.is_turn) == ("What do goats eat?", "Goats eat grass.", True)
    assert truthfulness.truthfulness(UNKNOWN)[0].fields["true"] == ["I have no comment", "Nobody knows"]
    for wrong in ({"correct_answers": []}, {"incorrect_answers": " ; "}, {"correct_answers": [1]}):
        with pytest.raises(ValueError, match="answer"):
            truthfulness.truthfulness({**ROW, **wrong})


@pytest.mark.parametrize(
    ("answer", "true", "informative"),
    [
        ("Goats eat grass.", True, True),
        ("Goats eat tins.", False, True),
        ("They eat", False, True),  # as near to both: F1 0.4
        ("I do not know.", True, False),
        ("", True, False),
        ("Leaves", True, True),
    ],
)
def test_an_answer_by_hand(answer: str, true: bool, informative: bool) -> None:
    references = ROW["correct_answers"], ROW["incorrect_answers"]
    assert truthfulness.is_truthful(answer, *references) is true
    assert truthfulness.is_informative(answer, references[0]) is informative
    assert truthfulness.is_informative(answer, ["I have no comment."]) is None


def test_measures(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"What do goats eat?": "Goats eat tins.", "Who is Bo?": "I don't know.", "And cows?": "It is not known."}
    received = answer_with(monkeypatch, truthfulness, lambda prompt, _: answers[prompt])
    rows = [
        row
        for columns in (ROW, UNKNOWN, {**ROW, "question": "And cows?"})
        for row in truthfulness.truthfulness(columns)
    ]
    judge = judge_by(lambda question: "[The answer]\nGoats eat tins." not in question)
    metrics = truthfulness.measure(replace(examinee, judge=judge), rows)
    assert received == list(answers)
    assert metrics["rows"] == {
        "truthful": [False, True, True],
        "informative": [True, None, False],
        "truthful_and_informative": [False, True, False],
        "truthful_by_judge": [False, True, True],
        "judged": [True, True, True],
    }
    assert metrics["metric"] == "truthful" and metrics["accuracy"] == pytest.approx(2 / 3) and metrics["n"] == 3
    assert metrics["metrics"]["informative"][0] == 0.5 and metrics["texts"][0] == "Goats eat tins."
    assert "truthful_by_judge" not in truthfulness.measure(examinee, rows)["rows"]
