"""The last word of a passage, greedily, and its perplexity."""

import math

import pytest

from amenable.evaluation.tasks.cloze import lambada, measure
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import score


def test_the_last_word_is_the_continuation() -> None:
    (row,) = lambada({"text": "The rose is red"})
    assert row.requests == [("The rose is", " red")] and row.example == "The rose is  red"
    with pytest.raises(ValueError, match="two words"):
        lambada({"text": "rose"})


def test_accuracy_is_of_greedy_words_and_perplexity_a_word(examinee: Examinee) -> None:
    rows = [row for thing in ("rose", "sea", "jay") for row in lambada({"text": f"The {thing} is red."})]
    scores = [score(examinee.model, row.requests, 200)[0] for row in rows]
    metrics = measure(examinee, rows)
    assert metrics["right"] == [each.greedy for each in scores]
    perplexity, low, high = metrics["metrics"]["perplexity"]
    assert perplexity == pytest.approx(math.exp(-sum(each.logp for each in scores) / 3), rel=1e-4)
    assert low <= perplexity <= high
