"""Pairs out of rankings, and what scores are worth against them."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.feedback.comparisons import (
    TokenizedRanking,
    calibration,
    choose_pairs,
    correct,
    pairs_of,
    ranking_metrics,
    split_into_pairs,
)
from amenable.functional.statistics import wilson


def item(ranks: list[float], lengths: list[int], annotator: str = "a") -> TokenizedRanking:
    return TokenizedRanking([([1, 2], [False, True])] * len(ranks), ranks, lengths, annotator)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(st.lists(st.integers(1, 4), max_size=7))
def test_pairs_are_all_that_are_not_tied_better_first(ranks: list[int]) -> None:
    pairs = pairs_of(ranks)
    assert {frozenset(pair) for pair in pairs} == {
        frozenset((i, j)) for i, j in combinations(range(len(ranks)), 2) if ranks[i] != ranks[j]
    }
    assert len(pairs) == len(set(pairs)) and all(ranks[better] < ranks[worse] for better, worse in pairs)


@given(st.lists(st.integers(1, 4), max_size=7), st.integers(0, 9), st.integers(0, 30))
def test_chosen_pairs(ranks: list[int], at_most: int, seed: int) -> None:
    every = set(pairs_of(ranks))
    assert choose_pairs(ranks, "all", at_most, seed) == pairs_of(ranks)
    drawn = choose_pairs(ranks, "random", at_most, seed)
    assert set(drawn) <= every and len(set(drawn)) == len(drawn) == min(at_most or len(every), len(every))
    extremes = choose_pairs(ranks, "best-worst", at_most, seed)
    assert len(extremes) == bool(every)
    assert all((ranks[better], ranks[worse]) == (min(ranks), max(ranks)) for better, worse in extremes)
    assert drawn == choose_pairs(ranks, "random", at_most, seed)


def test_of_several_best_answers_the_seed_draws_one() -> None:
    drawn = {choose_pairs([1, 2, 1, 3, 3], "best-worst", 4, seed)[0] for seed in range(40)}
    assert drawn == {(0, 3), (0, 4), (2, 3), (2, 4)}


@given(st.lists(st.integers(1, 4), max_size=6))
def test_apart_every_pair_is_an_item(ranks: list[int]) -> None:
    whole = TokenizedRanking(
        [([i], [True]) for i in range(len(ranks))], [*map(float, ranks)], [10 * i for i in range(6)], "b"
    )
    pairs = split_into_pairs([whole, replace(whole, margin=0.5)])
    assert [tuple(row[0][0] for row in pair.rows) for pair in pairs] == 2 * pairs_of(ranks)
    assert [pair.margin for pair in pairs] == [0.0] * (len(pairs) // 2) + [0.5] * (len(pairs) // 2)
    for pair in pairs:
        assert pairs_of(pair.ranks) == [(0, 1)] and pair.annotator == "b"
        assert pair.lengths == [10 * row[0][0] for row in pair.rows]


def test_summary_by_hand() -> None:
    items = [item([1, 2, 3], [10, 10, 30]), item([2, 1], [40, 20], "b")]
    scores = [torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 3.0])]
    found = ranking_metrics(items, scores, draw())
    # 0 over 1: 1 against 2 is wrong; 0 over 2 wrong; 1 over 2 level; 1 over 0 right
    assert found["pairs"] == 4
    assert found["accuracy"] == pytest.approx((0 + 0 + 0.5 + 1) / 4)
    terms = [math.log(1 + math.exp(-gap)) for gap in (-1.0, -1.0, 0.0, 3.0)]
    assert found["loss"] == pytest.approx(sum(terms) / 4)
    assert found["by_annotator"] == {
        "a": {"accuracy": pytest.approx(0.5 / 3), "pairs": 3},
        "b": {"accuracy": 1.0, "pairs": 1},
    }
    # the better ones have 10:10, 10:30, 10:30 and 20:40 characters
    assert found["longer_wins"] == pytest.approx(0.5 / 4)
    assert found["accuracy_length_matched"] == 0.0
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert sum(part["count"] for part in found["calibration"]) == 4


def test_lengths_are_matched_within_the_pair() -> None:
    """10 and 13 characters are not within 10 % of each other, however long a third answer is; 100 and 91 are."""
    found = ranking_metrics([item([1, 2, 3], [10, 13, 90])], [torch.tensor([3.0, 2.0, 1.0])], draw())
    assert found["accuracy"] == 1.0 and found["accuracy_length_matched"] is None
    found = ranking_metrics([item([1, 2, 3], [100, 91, 10])], [torch.tensor([1.0, 2.0, 0.0])], draw())
    assert found["accuracy_length_matched"] == 0.0


def test_the_interval_resamples_prompts() -> None:
    """Within a prompt pairs are not independent: four prompts, all right or all wrong, are four coins, not forty."""
    items = [item([1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [5] * 11) for _ in range(4)]
    scores = [torch.tensor([sign, *[0.0] * 10]) for sign in (1.0, 1.0, -1.0, -1.0)]
    found = ranking_metrics(items, scores, draw())
    assert found["accuracy"] == 0.5 and found["pairs"] == 40
    assert (found["low"], found["high"]) == pytest.approx(wilson(2, 4))
    assert found["loss_low"] == pytest.approx(math.log(1 + math.exp(-1)))
    assert found["loss_high"] == pytest.approx(math.log(1 + math.exp(1)))


def test_nothing_to_compare_is_said_and_not_divided() -> None:
    for items in ([], [item([1, 1], [3, 4])]):
        found = ranking_metrics(items, [torch.zeros(2)] * len(items), draw())
        assert (found["accuracy"], found["pairs"], found["low"], found["high"]) == (0.5, 0, 0.0, 1.0)
        assert (found["loss"], found["loss_low"], found["loss_high"]) == (math.log(2), None, None)


@pytest.mark.parametrize(("gap", "hit"), [(0.1, 1.0), (0.0, 0.5), (-2.0, 0.0)])
def test_a_level_pair_is_half_right(gap: float, hit: float) -> None:
    assert correct(gap) == hit


def test_calibration_sorts_by_size_and_tells_the_share_that_was_right() -> None:
    found = calibration([3.0, -0.1, 0.1, -2.0], bins=2)
    small, large = found
    assert small["count"] == large["count"] == 2
    assert small["predicted"] == pytest.approx(1 / (1 + math.exp(-0.1))) and small["actual"] == 0.5
    assert large["predicted"] == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-3))) / 2)
    assert large["actual"] == 0.5


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40))
def test_every_gap_is_in_one_bin(gaps: list[float]) -> None:
    bins = calibration(gaps)
    assert sum(part["count"] for part in bins) == len(gaps) and len(bins) <= 8
    assert all(0.5 <= part["predicted"] <= 1 and 0 <= part["actual"] <= 1 for part in bins)
    total = sum(part["actual"] * part["count"] for part in bins)
    assert total == pytest.approx(sum(correct(gap) for gap in gaps), abs=1e-4)
