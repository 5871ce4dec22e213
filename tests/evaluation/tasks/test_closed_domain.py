"""Answers against their passage, by hand, and SQuAD's columns."""

from dataclasses import replace
from typing import Any

import pytest

from amenable.evaluation.tasks import closed_domain
from amenable.evaluation.tasks.form import Examinee
from tests.evaluation.tasks.scripted import answer_with, judge_by

ROW: dict[str, Any] = {"context": "Ann keeps a goat.", "question": "What does Ann keep?", "answers": ["goat"]}
WITHOUT = {
    "context": "Ann keeps a goat.",
    "question": "Where does Ann live?",
    "answers": {"text": [], "answer_start": []},
}


def test_rows_of_squad_and_of_ones_own() -> None:
    (row,) = closed_domain.closed_domain({**ROW, "answers": {"text": ["goat", "a goat"], "answer_start": [12, 10]}})
    assert row.context == "Ann keeps a goat.\n\nWhat does Ann keep?" and row.fields["answers"] == ["goat", "a goat"]
    assert closed_domain.closed_domain({**ROW, "prompt": "Read."})[0].context == "Read."
    assert closed_domain.closed_domain(WITHOUT)[0].answer == ""
    for wrong in ({"answers": [""]}, {"answers": [1]}, {"prompt": 1}, {"question": 1}):
        with pytest.raises(ValueError, match="text"):
            closed_domain.closed_domain({**ROW, **wrong})


def test_measures(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["A goat, since 1850.", "The goat.", "It is not mentioned.", "In Mill Lane.", "I do not know."])
    answer_with(monkeypatch, closed_domain, lambda *_: next(answers))
    rows = [row for columns in (ROW, ROW, ROW, WITHOUT, WITHOUT) for row in closed_domain.closed_domain(columns)]
    judge = judge_by(lambda question: "1850" not in question)
    metrics = closed_domain.measure(replace(examinee, judge=judge), rows)
    assert metrics["rows"] == {
        "grounded": [False, True, True, False, True],
        "right": [True, True, False, None, None],
        "abstains_rightly": [None, None, None, False, True],
        "abstains_wrongly": [False, False, True, None, None],
        "overlap": [pytest.approx(1 / 3), 1.0, None, 0.0, None],  # goat, of goat, since and 1850
        "grounded_by_judge": [False, True, True, True, True],
        "judged": [True] * 5,
    }
    first, *_, last = metrics["examples"]
    assert (first["note"], first["remark"]) == ("right: goat", "not in the passage: A goat, since 1850.")
    assert (last["note"], last["remark"]) == ("the passage does not say it", "")
