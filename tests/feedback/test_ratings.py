import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.feedback.ratings import (
    Battle,
    bootstrap_length_controlled,
    bootstrap_ratings,
    bradley_terry,
    elo,
    expected_score,
    length_controlled,
    resamples,
)


def battles(a, b, won, lost, tied=0):
    return [Battle(a, b, 1.0)] * won + [Battle(a, b, 0.0)] * lost + [Battle(b, a, 0.5)] * tied


@pytest.mark.parametrize(("gap", "score"), [(0, 0.5), (100, 0.640065), (200, 0.759747), (400, 10 / 11)])
def test_expected_score_by_hand(gap, score):
    assert expected_score(1000 + gap, 1000) == pytest.approx(score, abs=1e-6)
    assert expected_score(1000, 1000 + gap) == pytest.approx(1 - score, abs=1e-6)


def test_elo_by_hand():
    assert elo(battles("a", "b", 1, 0)) == {"a": 1002.0, "b": 998.0}
    second = elo(battles("a", "b", 2, 0), k=32, initial=0)
    assert second["a"] == pytest.approx(16 + 32 * (1 - expected_score(16, -16)))
    assert elo([Battle("a", "b", 0.5)]) == {"a": 1000.0, "b": 1000.0}


def test_elo_depends_on_the_order_and_keeps_its_sum():
    games = battles("a", "b", 5, 5)
    forward, backward = elo(games, k=32), elo(games[::-1], k=32)
    assert forward["a"] < 1000 < backward["a"]  # the last battles weigh the most
    assert sum(forward.values()) == pytest.approx(2000) == sum(backward.values())


@pytest.mark.parametrize("games", [battles("a", "b", 7, 3), battles("a", "b", 6, 2, tied=2)])
def test_bradley_terry_of_two_by_hand(games):
    ratings = bradley_terry(games)
    assert ratings["a"] - ratings["b"] == pytest.approx(400 * math.log10(7 / 3))
    assert ratings["a"] - ratings["b"] == pytest.approx(147.19, abs=0.01)
    assert ratings["a"] + ratings["b"] == pytest.approx(2000)


def test_bradley_terry_of_a_chain_by_hand():
    ratings = bradley_terry(battles("a", "b", 3, 1) + battles("b", "c", 3, 1), anchor="c", level=0)
    assert ratings == pytest.approx({"a": 2 * 190.85, "b": 190.85, "c": 0.0}, abs=0.01)


wins = st.lists(st.integers(1, 6), min_size=6, max_size=6)


@settings(deadline=None)
@given(wins, st.randoms())
def test_bradley_terry_expects_what_was_scored_whatever_the_order(counts, random):
    """The likelihood's own condition: each player's expected score over its battles is its actual score."""
    a, b, c, d, e, f = counts
    games = battles("x", "y", a, b) + battles("y", "z", c, d) + battles("z", "x", e, f)
    ratings = bradley_terry(games)
    for player in "xyz":
        scored = sum(s if p == player else 1 - s for p, q, s in games if player in (p, q))
        expected = sum(
            expected_score(ratings[player], ratings[q if p == player else p]) for p, q, _ in games if player in (p, q)
        )
        assert scored == pytest.approx(expected, abs=1e-6)
    random.shuffle(games)
    assert bradley_terry(games) == pytest.approx(ratings, abs=1e-6)


def test_a_player_with_only_wins_needs_a_prior():
    games = battles("a", "b", 5, 0) + battles("b", "c", 2, 2)
    with pytest.raises(InputError, match=r"'b' has not beaten 'a'.*prior"):
        bradley_terry(games)
    ratings = bradley_terry(games, prior=1.0)
    assert ratings["a"] > ratings["b"] and all(math.isfinite(rating) for rating in ratings.values())


def test_groups_that_never_met_need_a_prior():
    with pytest.raises(InputError, match="has not beaten"):
        bradley_terry(battles("a", "b", 1, 1) + battles("c", "d", 1, 1))


def test_prior_by_hand():
    # strengths s and -s: 3 wins and 1 tie with a player of strength 0 satisfy
    # 3 sigma(-2s) + (1/2 - sigma(s)) = 0
    ratings = bradley_terry(battles("a", "b", 3, 0), prior=1.0, level=0)
    s = ratings["a"] * math.log(10) / 400
    lost, drawn = 1 / (1 + math.exp(2 * s)), 1 / (1 + math.exp(-s))
    assert 3 * lost + 0.5 - drawn == pytest.approx(0, abs=1e-9)
    assert 0 < bradley_terry(battles("a", "b", 3, 0), prior=100.0, level=0)["a"] < ratings["a"] / 2


def test_lopsided_results_are_solved():
    ratings = bradley_terry(battles("a", "b", 100_000, 1))
    assert ratings["a"] - ratings["b"] == pytest.approx(2000, abs=0.01)


def test_bootstrap_intervals_hold_the_truth_and_shrink_with_battles():
    truth = {"a": 1100.0, "b": 1000.0, "c": 900.0}
    draw = torch.Generator().manual_seed(3)

    def play(n):
        pairs = [("a", "b"), ("b", "c"), ("c", "a")]
        return [
            Battle(p, q, float(torch.rand((), generator=draw) < expected_score(truth[p], truth[q])))
            for _ in range(n)
            for p, q in pairs
        ]

    games = play(150)
    few, many = (bootstrap_ratings(g, torch.Generator().manual_seed(0), n=60) for g in (games[:90], games))
    for player, rating in truth.items():
        assert many[player].low < many[player].rating < many[player].high
        assert many[player].low - 15 < rating < many[player].high + 15
        assert many[player].high - many[player].low < few[player].high - few[player].low
    assert many == bootstrap_ratings(games, torch.Generator().manual_seed(0), n=60)


def test_length_is_told_apart_by_hand():
    """At the maximum, wins are as many as expected, and so are wins weighted by the difference in length."""
    longer, shorter, level = battles("a", "b", 8, 2), battles("a", "b", 5, 5), battles("a", "b", 20, 10)
    games, gaps = [*longer, *shorter, *level], [40.0] * 10 + [-40.0] * 10 + [0.0] * 30
    ratings, worth = length_controlled(games, gaps, prior=1e-9, level=0)
    x, strength, w = math.tanh(40 / math.sqrt(40**2 * 20 / 50)), ratings["a"] - ratings["b"], worth / math.tanh(1)
    expected = [expected_score(strength + w * sign * x, 0) for sign in (1, -1, 0)]
    assert 10 * expected[0] + 10 * expected[1] + 30 * expected[2] == pytest.approx(33, abs=1e-6)
    assert 10 * expected[0] - 10 * expected[1] == pytest.approx(8 - 5, abs=1e-6)
    assert worth > 0


def test_without_differences_of_length_the_ratings_are_those_of_bradley_terry():
    games = battles("a", "b", 7, 3) + battles("b", "c", 4, 2) + battles("c", "a", 1, 5, tied=1)
    ratings, worth = length_controlled(games, [0.0] * len(games), prior=0.3)
    assert ratings == pytest.approx(bradley_terry(games, prior=0.3), abs=1e-6) and worth == 0
    anchored, _ = length_controlled(games, [0.0] * len(games), prior=0.3, anchor="c", level=7.0)
    assert anchored["c"] == 7


def test_the_unit_and_the_side_of_lengths_do_not_matter():
    games, gaps = battles("a", "b", 7, 3), [3.0, 1, 4, -1, 5, -9, 2, 6, -5, -3]
    ratings, worth = length_controlled(games, gaps)
    turned = [Battle(b, a, 1 - score) for a, b, score in games]
    for others in (length_controlled(games, [7 * gap for gap in gaps]), length_controlled(turned, [-g for g in gaps])):
        assert others[0] == pytest.approx(ratings) and others[1] == pytest.approx(worth)


def test_a_judge_that_sees_only_length_leaves_a_finite_worth():
    games = battles("a", "b", 20, 0) + battles("a", "b", 0, 20)
    ratings, worth = length_controlled(games, [10.0] * 20 + [-10.0] * 20)
    assert ratings["a"] == pytest.approx(ratings["b"]) and 400 < worth < 4000
    found, interval = bootstrap_length_controlled(
        games, [10.0] * 20 + [-10.0] * 20, torch.Generator().manual_seed(0), n=20
    )
    assert found["a"].rating == ratings["a"] and interval.rating == worth
    assert interval.low <= worth <= interval.high and math.isfinite(interval.high)


def test_groups_are_drawn_whole():
    for times in resamples(["x", "y", "x", "z", "z", "z"], 30, torch.Generator().manual_seed(0)):
        x, y, again, *zs = times.tolist()
        assert x == again and len(set(zs)) == 1 and x + y + zs[0] == 3


def test_mistakes_are_said():
    with pytest.raises(InputError, match="anchor 'z'"):
        bradley_terry(battles("a", "b", 1, 1), anchor="z")
    with pytest.raises(InputError, match="'a' and 'a'"):
        bradley_terry([Battle("a", "a", 1.0)])
    with pytest.raises(ValueError, match="prior"):
        bootstrap_ratings(battles("a", "b", 1, 1), torch.Generator(), prior=0.0)
    for gaps in ([1.0], [1.0, math.nan]):
        with pytest.raises(InputError, match="differences of length for 2 battles"):
            length_controlled(battles("a", "b", 1, 1), gaps)
    with pytest.raises(ValueError, match="prior"):
        length_controlled(battles("a", "b", 1, 1), [1.0, 2.0], prior=0.0)
