import json
import random
from dataclasses import replace

import pytest

from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig, leaderboard
from amenable.feedback.ratings import Comparison, bradley_terry, elo, groups_of

CONFIG = RatingConfig()


def battles(a, b, won, lost, tied=0, lengths=None):
    scores = [1.0] * won + [0.0] * lost + [0.5] * tied
    return [Comparison(a, b, score, lengths) for score in scores]


def by_name(result):
    return {row["name"]: row for row in result["players"]}


def test_counts_and_win_rates_by_hand() -> None:
    result = leaderboard([*battles("a", "b", 6, 2, 2), Comparison("b", "a", 0.5, both_bad=True)], CONFIG)
    a, b = (by_name(result)[name] for name in "ab")
    counts = {"battles": 11, "wins": 6, "losses": 2, "ties": 3, "both_bad": 1}
    assert {name: a[name] for name in counts} == counts
    assert (b["wins"], b["losses"], b["ties"]) == (2, 6, 3)
    assert a["score"] == pytest.approx(7.5 / 11) == result["win_rates"]["a"]["b"]["score"]
    assert result["win_rates"]["b"]["a"] == {"score": pytest.approx(3.5 / 11), "count": 11}
    assert result["win_rates"]["a"].get("a") is None and a["length"] is None
    assert json.loads(json.dumps(result)) == result


def test_the_ratings_are_those_of_the_votes_best_first() -> None:
    votes = [*battles("a", "b", 30, 5), *battles("b", "c", 30, 5), *battles("a", "c", 33, 2)]
    result = leaderboard(votes, CONFIG)
    assert [row["name"] for row in result["players"]] == ["a", "b", "c"]
    assert [row["rank"] for row in result["players"]] == [1, 2, 3]
    expected = bradley_terry(votes, prior=CONFIG.prior)
    for name, row in by_name(result).items():
        assert row["rating"] == expected[name] and row["low"] < row["rating"] < row["high"]
        assert row["elo"] == elo(votes, k=4.0)[name]


def test_models_that_cannot_be_told_apart_share_a_rank() -> None:
    result = leaderboard(battles("a", "b", 4, 3), CONFIG)
    assert [row["rank"] for row in result["players"]] == [1, 1]


def test_elo_follows_its_order_and_its_stake() -> None:
    votes = [*battles("a", "b", 10, 0), *battles("a", "b", 0, 10)]
    forward, backward, shuffled = (
        by_name(leaderboard(votes, replace(CONFIG, order=order)))["a"]["elo"]
        for order in ("time", "reversed", "shuffled")
    )
    assert forward < shuffled < backward and shuffled == pytest.approx(1000, abs=3)
    larger = by_name(leaderboard(votes, replace(CONFIG, k=16.0)))["a"]["elo"]
    assert abs(larger - 1000) > 3 * abs(forward - 1000)


def test_the_anchor_stands_at_its_level() -> None:
    result = by_name(leaderboard(battles("a", "b", 6, 2), replace(CONFIG, anchor="b", level=1500.0)))
    assert result["b"]["rating"] == result["b"]["low"] == result["b"]["high"] == 1500 < result["a"]["rating"]
    with pytest.raises(InputError, match="anchor 'z'"):
        leaderboard(battles("a", "b", 6, 2), replace(CONFIG, anchor="z"))


def test_at_equal_length_a_long_winded_winner_falls() -> None:
    """a and b are equals, but people prefer the longer answer 3 times in 4, and a writes the longer one more often."""
    draw, votes = random.Random(0), []
    for _ in range(600):
        longer = draw.random() < 0.8
        won = draw.random() < (0.75 if longer else 0.25)
        votes.append(Comparison("a", "b", float(won), (90, 30) if longer else (30, 90)))
    plain, controlled = (leaderboard(votes, replace(CONFIG, length_controlled=is_on)) for is_on in (False, True))
    assert by_name(plain)["a"]["low"] > by_name(plain)["b"]["high"] and plain["length_worth"] is None
    assert abs(by_name(controlled)["a"]["rating"] - by_name(controlled)["b"]["rating"]) < 45
    # 3 in 4 is 190.85 points, at a difference of one root mean square
    worth = controlled["length_worth"]
    assert worth["low"] < 190.85 < worth["high"] and worth["rating"] == pytest.approx(190.85, abs=40)
    assert by_name(controlled)["a"]["length"] == pytest.approx(78, abs=3)


def test_battles_without_lengths_are_left_out_and_told() -> None:
    votes = [*battles("a", "b", 4, 2, lengths=(10, 20)), *battles("a", "b", 9, 0)]
    result = leaderboard(votes, replace(CONFIG, length_controlled=True))
    assert result["battles"] == 6 and result["unmeasured"] == 9
    with pytest.raises(InputError, match=r"lengths of its answers.*--rating.length-controlled"):
        leaderboard(battles("a", "b", 9, 0), replace(CONFIG, length_controlled=True))


def test_pairs_of_one_ranking_say_less_than_votes_apart() -> None:
    """Ten rankings copied ten times are no hundred: their intervals are wider than those of a hundred votes."""
    votes = [Comparison("a", "b", float(i % 10 % 3 > 0), group=f"event {i % 10}") for i in range(100)]
    together, apart = (
        by_name(leaderboard([replace(one, group=one.group if grouped else "") for one in votes], CONFIG))["a"]
        for grouped in (True, False)
    )
    assert 1000 < together["rating"] < apart["rating"]  # ten votes outweigh the prior less than a hundred
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_a_single_vote_makes_nobody_surely_better() -> None:
    result = leaderboard(battles("north", "south", 1, 0), CONFIG)
    assert [row["rank"] for row in result["players"]] == [1, 1]
    assert [row["name"] for row in result["players"]] == ["north", "south"]
    for row in result["players"]:
        assert row["low"] < 1000 < row["high"] and row["high"] - row["low"] > 400


def test_unanimous_votes_leave_a_width_and_say_more_the_more_there_are() -> None:
    boards = [by_name(leaderboard(battles("a", "b", n, 0), CONFIG)) for n in (5, 20, 80)]
    assert [board["b"]["rank"] for board in boards] == [2, 2, 2]
    lows = [board["a"]["low"] for board in boards]
    assert lows == sorted(lows) and all(board["a"]["high"] - board["a"]["low"] > 100 for board in boards)


def test_groups_that_never_met_and_names_of_several_models_are_told() -> None:
    votes = [*battles("a", "b", 2, 1), *battles("c", "d", 1, 2), Comparison("a", "b", 1.0, hashes=("x", "y"))]
    assert sorted(map(sorted, leaderboard(votes, CONFIG)["groups"])) == [["a", "b"], ["c", "d"]]
    assert leaderboard(votes, CONFIG)["several"] == []
    assert leaderboard([*votes, Comparison("b", "a", 0.0, hashes=("y", "z"))], CONFIG)["several"] == ["a"]
    assert groups_of("abcd", [("a", "b"), ("c", "b")]) == [["a", "b", "c"], ["d"]]


def test_nothing_was_said_yet() -> None:
    result = leaderboard([], CONFIG)
    assert result["players"] == [] and result["win_rates"] == {} and result["battles"] == 0


def test_impossible_terms_are_refused() -> None:
    for wrong in ({"k": 0.0}, {"prior": 0.0}):
        with pytest.raises(InputError, match="must lie between"):
            RatingConfig(**wrong)
