import math
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.feedback.ratings import (
    SCALE,
    Comparison,
    bradley_terry,
    elo,
    expected_score,
    group_weights,
    length_controlled,
    rate,
    rate_length_controlled,
)


def battles(a, b, won, lost, tied=0):
    return [Comparison(a, b, 1.0)] * won + [Comparison(a, b, 0.0)] * lost + [Comparison(b, a, 0.5)] * tied


@pytest.mark.parametrize(("gap", "score"), [(0, 0.5), (100, 0.640065), (200, 0.759747), (400, 10 / 11)])
def test_expected_score_by_hand(gap, score):
    assert expected_score(1000 + gap, 1000) == pytest.approx(score, abs=1e-6)
    assert expected_score(1000, 1000 + gap) == pytest.approx(1 - score, abs=1e-6)


def test_elo_by_hand():
    assert elo(battles("a", "b", 1, 0)) == {"a": 1002.0, "b": 998.0}
    second = elo(battles("a", "b", 2, 0), k=32, initial=0)
    assert second["a"] == pytest.approx(16 + 32 * (1 - expected_score(16, -16)))
    assert elo([Comparison("a", "b", 0.5)]) == {"a": 1000.0, "b": 1000.0}


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
        scored = expected = 0.0
        for row in games:
            if player in (row.a, row.b):
                scored += row.score if row.a == player else 1 - row.score
                expected += expected_score(ratings[player], ratings[row.b if row.a == player else row.a])
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


def penalised(gap: float, won: int, lost: int) -> float:
    """Log-likelihood of two players whose strengths are `gap` nats apart, with a tie of either against the average."""
    return sum(
        count * -math.log1p(math.exp(-x)) for count, x in ((won, gap), (lost, -gap), (1, gap / 2), (1, -gap / 2))
    )


@pytest.mark.parametrize(("won", "lost"), [(1, 0), (2, 0), (5, 0), (20, 0), (3, 1), (1, 1), (60, 40)])
def test_intervals_of_two_by_hand(won, lost):
    """Searched on a line: the gaps whose likelihood is within 1.92 of the best. Each player has half of the gap."""
    gaps = [i / 2000 for i in range(-20_000, 40_001)]
    heights = [penalised(gap, won, lost) for gap in gaps]
    top = max(heights)
    inside = [gap for gap, height in zip(gaps, heights) if height >= top - 1.920729]
    best = gaps[heights.index(top)]
    result = rate(battles("a", "b", won, lost), level=0)
    assert [value / SCALE * 2 for value in result["a"]] == pytest.approx([best, inside[0], inside[-1]], abs=2e-3)
    assert [-value for value in result["b"]] == pytest.approx([result["a"].rating, result["a"].high, result["a"].low])


@pytest.mark.parametrize(
    ("votes", "a", "b"),
    [
        (1, (1131, 835, 1624), (869, 376, 1165)),
        (2, (1176, 929, 1652), (824, 348, 1071)),
        (5, (1239, 1031, 1698), (761, 302, 969)),
        (20, (1343, 1160, 1784), (657, 216, 840)),
    ],
)
def test_few_and_unanimous_votes(votes, a, b):
    result = rate(battles("a", "b", votes, 0))
    assert result["a"] == pytest.approx(a, abs=0.5) and result["b"] == pytest.approx(b, abs=0.5)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_intervals_hold_the_truth_as_often_as_they_say(n):
    """Exact: every outcome of n votes by its chance. So few votes have few outcomes, hence the tolerance."""
    ends = [rate(battles("a", "b", won, n - won), level=0)["a"] for won in range(n + 1)]
    for p in (0.5, 0.6, 0.75, 0.9):
        truth = expected_gap(p) / 2
        held = sum(
            math.comb(n, won) * p**won * (1 - p) ** (n - won)
            for won in range(n + 1)
            if ends[won].low <= truth <= ends[won].high
        )
        assert held > 0.89, p


def expected_gap(p: float) -> float:
    return 400 * math.log10(p / (1 - p))


def test_intervals_of_rankings_hold_the_truth_and_those_of_their_pairs_apart_do_not():
    draw, held = random.Random(0), {True: 0, False: 0}
    for _ in range(20):  # seven equals, ranked four times by luck
        orders = [draw.sample("abcdefg", 7) for _ in range(4)]
        games = [Comparison(a, b, 1.0) for order in orders for a, b in combinations(order, 2)]
        groups = [number for number in range(4) for _ in range(21)]
        for is_grouped in held:
            result = rate(games, groups=groups if is_grouped else None, level=0.0)
            held[is_grouped] += sum(one.low <= 0 <= one.high for one in result.values())
    assert held[False] / 140 < 0.85 and 0.92 <= held[True] / 140 < 1


def test_what_the_pairs_of_a_ranking_are_worth():
    four = [Comparison(a, b, 1.0) for a, b in combinations("abcd", 2)]
    assert group_weights(four, ["x"] * 6) == pytest.approx([3 / 5] * 6)
    assert group_weights(four[:2], ["x", "y"]) == [1.0, 1.0] == group_weights(four[:2], None)
    assert group_weights([four[0]] * 10, ["x"] * 10) == pytest.approx([0.1] * 10)


def test_intervals_shrink_with_battles_and_order_does_not_matter():
    games = battles("a", "b", 30, 20) + battles("b", "c", 25, 15) + battles("c", "a", 12, 28)
    few, many = rate(games), rate(games * 4)
    for player in "abc":
        assert many[player].high - many[player].low < 0.6 * (few[player].high - few[player].low)
        assert many[player].low < many[player].rating < many[player].high
        assert rate(games[::-1])[player] == pytest.approx(few[player], abs=1e-4)


def test_groups_that_never_met_are_told_apart_by_nothing():
    result = rate(battles("a", "b", 50, 50) + battles("x", "y", 50, 50))
    assert all(one.high - one.low > 300 for one in result.values())
    assert result["a"].high - result["a"].low > 3 * (rate(battles("a", "b", 50, 50))["a"].high - 1000)


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
    turned = [Comparison(row.b, row.a, 1 - row.score) for row in games]
    for others in (length_controlled(games, [7 * gap for gap in gaps]), length_controlled(turned, [-g for g in gaps])):
        assert others[0] == pytest.approx(ratings) and others[1] == pytest.approx(worth)


def test_a_judge_that_sees_only_length_leaves_a_finite_worth():
    games = battles("a", "b", 20, 0) + battles("a", "b", 0, 20)
    ratings, worth = length_controlled(games, [10.0] * 20 + [-10.0] * 20)
    assert ratings["a"] == pytest.approx(ratings["b"]) and 400 < worth < 4000
    result, interval = rate_length_controlled(games, [10.0] * 20 + [-10.0] * 20)
    assert result["a"].rating == ratings["a"] and interval.rating == worth
    assert 0 < interval.low < worth - 100 and worth + 100 < interval.high < 10_000


def test_mistakes_are_said():
    with pytest.raises(InputError, match="anchor 'z'"):
        bradley_terry(battles("a", "b", 1, 1), anchor="z")
    with pytest.raises(InputError, match="'a' and 'a'"):
        bradley_terry([Comparison("a", "a", 1.0)])
    with pytest.raises(ValueError, match="prior"):
        rate(battles("a", "b", 1, 1), prior=0.0)
    for gaps in ([1.0], [1.0, math.nan]):
        with pytest.raises(InputError, match="differences of length for 2 comparisons"):
            length_controlled(battles("a", "b", 1, 1), gaps)
    with pytest.raises(ValueError, match="prior"):
        length_controlled(battles("a", "b", 1, 1), [1.0, 2.0], prior=0.0)
