import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.feedback.comparisons import Item, calibration, pairs_of, summary

NOTHING: list = []


def draw():
    return torch.Generator().manual_seed(0)


def test_pairs_by_hand():
    assert pairs_of([2, 1, 2, 3]) == [(1, 0), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert pairs_of([1.0, 1.0]) == []


@given(st.lists(st.integers(1, 4), max_size=6))
def test_every_pair_that_is_not_tied_appears_once_with_the_better_first(ranks):
    pairs = pairs_of(ranks)
    assert all(ranks[better] < ranks[worse] for better, worse in pairs)
    tied = sum(ranks[i] == ranks[j] for i in range(len(ranks)) for j in range(i))
    assert len(set(pairs)) == len(pairs) == math.comb(len(ranks), 2) - tied


def test_summary_by_hand():
    items = [
        Item(NOTHING, [1, 2, 3], [10, 30, 20], "anne"),  # gaps 0 over 1: 2, 0 over 2: 0 (tied), 1 over 2: -2
        Item(NOTHING, [2, 1], [100, 95], "bert"),  # gap 1, the better one is a little shorter
    ]
    scores = [torch.tensor([2.0, 0.0, 2.0]), torch.tensor([0.5, 1.5])]
    found = summary(items, scores, draw())
    assert found["pairs"] == 4
    assert found["accuracy"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert (found["low"], found["high"]) == pytest.approx((0.5, 1.0))  # of the prompts: 1.5 of 3, and 1 of 1
    assert found["longer_wins"] == pytest.approx((0 + 0 + 1 + 0) / 4)
    assert found["accuracy_length_matched"] == 1.0  # only the second item's lengths are within 10 %
    assert found["by_annotator"] == {"anne": {"accuracy": 0.5, "pairs": 3}, "bert": {"accuracy": 1.0, "pairs": 1}}


def test_summary_of_ties_only_has_no_pairs():
    found = summary([Item(NOTHING, [1, 1], [5, 6], "anne")], [torch.zeros(2)], draw())
    assert (found["pairs"], found["low"], found["high"]) == (0, 0.0, 1.0)


def test_calibration_by_hand():
    small, large = calibration([3.0, -0.5, 0.5, -3.0], bins=2)
    assert small == pytest.approx({"predicted": 1 / (1 + math.exp(-0.5)), "actual": 0.5, "count": 2})
    assert large == pytest.approx({"predicted": 1 / (1 + math.exp(-3.0)), "actual": 0.5, "count": 2})
