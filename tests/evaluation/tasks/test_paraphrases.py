"""Wordings of a question, and samples: agreement, flips and the worst of n by hand."""

from dataclasses import replace
from typing import Any

import pytest

from amenable.evaluation.tasks import paraphrases
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.options import TaskOptions
from tests.evaluation.tasks.scripted import answer_with

ROW: dict[str, Any] = {
    "paraphrases": ["What does Ann keep?", "Which pet has Ann?", "Ann's pet?"],
    "answers": ["goat"],
    "choices": ["goat", "cow"],
}


def test_rows_and_what_is_none() -> None:
    (row,) = paraphrases.paraphrases(ROW)
    assert row.context == "What does Ann keep?" and row.fields["choices"] == ["goat", "cow"] and row.answer == "goat"
    for wrong, reason in (
        ({"paraphrases": ["One?"]}, "two different wordings"),
        ({"paraphrases": ["One?", "One?"]}, "two different wordings"),
        ({"paraphrases": ["One?", " "]}, "texts"),
        ({"answers": [1]}, "texts"),
    ):
        with pytest.raises(ValueError, match=reason):
            paraphrases.paraphrases({**ROW, **wrong})


def test_measures(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(zip(ROW["paraphrases"], ("A goat.", "It is a goat.", "A cow.")))
    answer_with(monkeypatch, paraphrases, lambda prompt, i: known.get(prompt, "The sea.") if i < 3 else "A cow.")
    free = {"paraphrases": ["Say a thing.", "Name a thing."]}
    rows = [row for columns in (ROW, free) for row in paraphrases.paraphrases(columns)]
    metrics = paraphrases.measure(examinee, rows)
    assert metrics["rows"] == {
        "agreement": [pytest.approx(1 / 3), 1.0],
        # a goat | it is a goat: 2 * 2 / 6; a goat | a cow: 2 / 4; it is a goat | a cow: 2 * 1 / 6
        "similarity": [pytest.approx((2 / 3 + 1 / 2 + 1 / 3) / 3), 1.0],
        "right": [pytest.approx(2 / 3), None],
        "worst_of_n": [False, None],
        "best_of_n": [True, None],
        "flips": [True, None],
    }
    assert metrics["examples"][0]["labels"] == ROW["paraphrases"] and len(metrics["texts"]) == 5
    sampled = paraphrases.measure(replace(examinee, options=TaskOptions(self_consistency=4)), rows)["rows"]
    assert sampled["agreement"] == metrics["rows"]["agreement"]
    assert sampled["sampled_agreement"] == [0.5, 0.5]  # three alike and one other: 3 of 6 pairs
    assert sampled["sampled_right"] == [0.75, None] and sampled["sampled_flips"] == [True, None]
