"""Pairs of rankings."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from amenable.data.rankings import from_scores, pairs_of, select_pairs


def test_ranks_by_hand():
    assert from_scores([0.3, 1.2, 1.2, -5.0]) == [3.0, 1.0, 1.0, 4.0]
    assert from_scores([]) == []


@given(st.lists(st.integers(-3, 3), max_size=6))
def test_ranks_order_as_scores_do(scores):
    ranks = from_scores(scores)
    for i, score in enumerate(scores):
        for j, other in enumerate(scores):
            assert (score > other) == (ranks[i] < ranks[j])


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
    assert select_pairs(ranks, "all", at_most, seed) == pairs_of(ranks)
    drawn = select_pairs(ranks, "random", at_most, seed)
    assert set(drawn) <= every and len(set(drawn)) == len(drawn) == min(at_most or len(every), len(every))
    extremes = select_pairs(ranks, "best-worst", at_most, seed)
    assert len(extremes) == bool(every)
    assert all((ranks[better], ranks[worse]) == (min(ranks), max(ranks)) for better, worse in extremes)
    assert drawn == select_pairs(ranks, "random", at_most, seed)


def test_of_several_best_answers_the_seed_draws_one() -> None:
    drawn = {select_pairs([1, 2, 1, 3, 3], "best-worst", 4, seed)[0] for seed in range(40)}
    assert drawn == {(0, 3), (0, 4), (2, 3), (2, 4)}
