"""Two reward models on the same rankings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.models.heads import ScalarModel
from amenable.recipes.reports import compare_reward_models
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.rankings import TokenizedRanking
from amenable.train.runtime import Runtime


def judged(scores: list[float], ranks: list[float], name: str = "r") -> compare_reward_models.ScoredRanking:
    asked = (Message("user", "name a rose"),)
    texts = tuple(f"answer {place}" for place in range(len(scores)))
    ranking = Ranking(asked, texts, tuple(ranks), name, "annotator")
    return compare_reward_models.ScoredRanking(
        ranking, TokenizedRanking([], ranks, [], "annotator"), torch.tensor(scores)
    )


@pytest.fixture
def untrained(make_scalar_model: Callable[..., ScalarModel], words: Tokenizer, tmp_path: Path) -> Path:
    """A reward model that has learned nothing, of the session's tokenizer."""
    save_model(tmp_path / "untrained", make_scalar_model(seed=3, vocab_size=words.vocab_size), words)
    return tmp_path / "untrained"


def test_a_trained_one_against_an_untrained_one(untrained: Path, judge: Path, files: Any, runtime: Runtime) -> None:
    rankings = compare_reward_models.read(files.rankings)
    found = compare_reward_models.compare(untrained, judge, rankings, runtime, 2000, 0)
    assert found["rankings"] == 96 and found["a"]["pairs"] == found["b"]["pairs"] == found["gain"]["n"] == 192
    assert found["b"]["accuracy"] > 0.95 > 0.75 > found["a"]["accuracy"] and found["b"]["loss"] < found["a"]["loss"]
    assert found["gain"]["value"] == pytest.approx(found["b"]["accuracy"] - found["a"]["accuracy"])
    assert found["gain"]["low"] > 0 and found["agreement"]["n"] == 288
    back = compare_reward_models.compare(judge, untrained, rankings, runtime, 2000, 0)
    assert back["gain"]["value"] == -found["gain"]["value"] and back["agreement"] == found["agreement"]
    json.dumps(found, allow_nan=False)


def test_a_model_agrees_with_itself(judge: Path, files: Any, runtime: Runtime) -> None:
    found = compare_reward_models.compare(
        judge, judge, compare_reward_models.read(files.pairs, limit=10), runtime, 2000, 0
    )
    assert found["rankings"] == 10 and found["gain"]["value"] == 0.0 and found["gain"]["low"] is None
    assert found["agreement"]["value"] == 1.0 and found["disputes"] == [] and found["agreement"]["low"] < 0.8


def test_models_of_different_tokenizers_can_be_compared(
    judge: Path, other_judge: Path, files: Any, runtime: Runtime
) -> None:
    found = compare_reward_models.compare(judge, other_judge, compare_reward_models.read(files.pairs), runtime, 2000, 0)
    assert 0 < found["rankings"] <= 96 and found["a"]["accuracy"] > found["b"]["accuracy"]


def test_rankings_that_do_not_fit_are_left_out(judge: Path, runtime: Runtime) -> None:
    asked = (Message("user", "name a rose"),)
    long, short = Ranking(asked, ("a rose " * 60, "lime"), (1, 2)), Ranking(asked, ("a rose", "lime"), (1, 2))
    assert compare_reward_models.compare(judge, judge, [long, short], runtime, 2000, 0)["rankings"] == 1
    with pytest.raises(InputError, match="no ranking fits"):
        compare_reward_models.compare(judge, judge, [long], runtime, 2000, 0)


def test_gains_and_agreements_by_hand() -> None:
    a, b = judged([3, 2, 1], [1, 2, 2]), judged([3, 4, 3], [1, 2, 2])
    assert compare_reward_models.gains(a, b) == [-1.0, -0.5], (
        "the better first answer: lost to the second, level with the third"
    )
    assert compare_reward_models.agreements(a.scores, b.scores) == [0.0, 0.5, 1.0]


def test_the_intervals_are_over_prompts() -> None:
    found = compare_reward_models.mean_gain([[1.0] * 50, [0.0] * 50], 0)
    assert found is not None and (found["value"], found["low"], found["high"], found["n"]) == (0.5, 0.0, 1.0, 100)
    share = compare_reward_models.mean_agreement([[1.0] * 50, [0.0] * 50])
    assert share is not None and (share["value"], share["n"]) == (0.5, 100)
    assert (share["low"], share["high"]) == pytest.approx((0.0945, 0.9055), abs=1e-4), "two values, not a hundred"
    assert (
        compare_reward_models.mean_gain([[], []], 0) is None and compare_reward_models.mean_agreement([[], []]) is None
    )


def test_a_single_prompt_and_no_difference_at_all_leave_no_interval_or_a_wide_one() -> None:
    for values in ([[1.0, 1.0, 0.0]], [[0.0, 0.0]] * 20):
        found = compare_reward_models.mean_gain(values, 0)
        assert found is not None and found["low"] is None and found["high"] is None
    share = compare_reward_models.mean_agreement([[1.0, 1.0]] * 20)
    assert share is not None and share["low"] == pytest.approx(20 / (20 + 1.959964**2)) and share["high"] == 1.0


def test_a_dispute_is_about_the_pair_that_divides_most() -> None:
    found = compare_reward_models.disagreement(judged([3, 2, 0], [1, 2, 3]), judged([1, 2, 9], [1, 2, 3]))
    assert found is not None and found["strength"] == 3.0
    assert [(answer["text"], answer["a"], answer["b"]) for answer in found["answers"]] == [
        ("answer 0", 3.0, 1.0),
        ("answer 2", 0.0, 9.0),
    ]
    assert compare_reward_models.disagreement(judged([3, 2], [1, 2]), judged([9, 1], [1, 2])) is None
    mild, sharp = judged([1, 0], [1, 2], "mild"), judged([5, 0], [1, 2], "sharp")
    told = compare_reward_models.disagreements([mild, sharp], [judged([0, 1], [1, 2]), judged([0, 5], [1, 2])])
    assert [row["id"] for row in told] == ["sharp", "mild"]
