"""P(True): both orders of the choices averaged, and calibration against the answers being right."""

import math
from typing import Any

import pytest

from amenable.evaluation.tasks import self_knowledge
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import Likelihood, Request
from tests.evaluation.tasks.scripted import answer_with

ROW: dict[str, Any] = {"question": "What does Ann keep?", "answers": ["goat", "billy"]}


def test_rows() -> None:
    (row,) = self_knowledge.self_knowledge(ROW)
    assert row.answer == "goat" and row.fields["answers"] == ["goat", "billy"]
    for wrong in ([], [""], [3]):
        with pytest.raises(ValueError, match="answers is a list of texts"):
            self_knowledge.self_knowledge({**ROW, "answers": wrong})


def test_measures(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that finds goats true by 3 to 1, cows by 1 to 3, and prefers (A) by 2 to 1 besides."""
    answers = iter(["A goat.", "A cow.", "Billy."])
    answer_with(monkeypatch, self_knowledge, lambda *_: next(answers))

    def score(_: Any, requests: list[Request], *__: Any) -> list[Likelihood]:
        odds = []
        for context, letter in requests:
            says_true = f"{letter} True" in context
            likes = "cow" not in context
            odds.append((3.0 if says_true == likes else 1.0) * (2.0 if letter == " (A)" else 1.0))
        return [Likelihood(math.log(own), False, 1) for own in odds]

    monkeypatch.setattr(self_knowledge, "score", score)
    metrics = self_knowledge.measure(examinee, self_knowledge.self_knowledge(ROW) * 3)
    high, low = (6 / 7 + 3 / 5) / 2, (2 / 5 + 1 / 7) / 2
    assert metrics["rows"]["right"] == [True, False, True]
    assert metrics["rows"]["p_true"] == pytest.approx([high, low, high])
    assert metrics["rows"]["brier"] == pytest.approx([(1 - high) ** 2, low**2, (1 - high) ** 2])
    assert metrics["metrics"]["auroc"][0] == 1.0
    assert metrics["metrics"]["ece"][0] == pytest.approx((2 * (1 - high) + low) / 3)
    assert [part["count"] for part in metrics["reliability"]] == [1, 2]
    assert self_knowledge.share_of(-2000.0, 0.0) == 0.0 and self_knowledge.share_of(0.0, -2000.0) == 1.0


def test_a_real_model_has_probabilities(examinee: Examinee) -> None:
    rows = self_knowledge.self_knowledge(ROW) * 2
    metrics = self_knowledge.measure(examinee, rows)
    assert all(0 < p < 1 for p in metrics["rows"]["p_true"]) and "auroc" not in metrics["metrics"]
