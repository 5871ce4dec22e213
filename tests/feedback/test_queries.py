"""Rules by hand: what an ensemble, a prediction or a distance says should be asked, is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.feedback.queries import (
    RULES,
    SCORED,
    Pool,
    choose,
    disagreement,
    farthest_first,
    groups_of,
    information_gain,
    largest,
    next_battles,
    preferences,
    round_robin,
    uncertainty,
    variances,
    word_vectors,
)
from amenable.feedback.ratings import SCALE, Comparison, bradley_terry, rate

NAN = math.nan


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def logit(p):
    return math.log(p / (1 - p))


def pair(*shares):
    """Scores of a pair of answers, of which each model prefers the first with this probability: [M, 1, 2]."""
    return torch.tensor([[[logit(p), 0.0]] for p in shares])


def test_preferences_of_all_pairs():
    result = preferences(torch.tensor([[[logit(0.8), 0.0, NAN]]]))
    assert result.shape == (1, 1, 3)
    assert float(result[0, 0, 0]) == pytest.approx(0.8)
    assert result[0, 0, 1:].isnan().all()


def test_disagreement_by_hand():
    # the variance of 0.2 and 0.8 is 0.09
    assert disagreement(pair(0.2, 0.8)).tolist() == pytest.approx([0.09])
    assert disagreement(pair(0.7, 0.7)).tolist() == pytest.approx([0.0])
    # a third answer that both place alike: the mean over three pairs, one of which has variance 0.09
    far = torch.cat([pair(0.2, 0.8), torch.full((2, 1, 1), -100.0)], dim=2)
    assert disagreement(far).tolist() == pytest.approx([0.03])
    with pytest.raises(ValueError, match="two or more"):
        disagreement(pair(0.5))


def test_information_gain_by_hand():
    # both sure, of opposite answers: log 2; both at a coin's toss: nothing
    assert information_gain(pair(1 - 1e-12, 1e-12)).tolist() == pytest.approx([math.log(2)], abs=1e-6)
    assert information_gain(pair(0.5, 0.5)).tolist() == pytest.approx([0.0])
    h = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert information_gain(pair(0.9, 0.1)).tolist() == pytest.approx([math.log(2) - h])
    with pytest.raises(ValueError, match="two or more"):
        information_gain(pair(0.5))


def test_closeness_by_hand():
    assert uncertainty(pair(0.2, 0.8)).tolist() == pytest.approx([0.5])  # a tie on average
    assert uncertainty(pair(0.9)).tolist() == pytest.approx([0.1])
    for shares in ((0.9, 0.7), (0.1, 0.3)):
        assert uncertainty(pair(*shares)).tolist() == pytest.approx([0.2])


def test_answers_that_are_not_there_count_for_nothing():
    both = pair(0.2, 0.8)
    padded = torch.cat([both, torch.full((2, 1, 1), NAN)], dim=2)
    assert torch.equal(disagreement(padded), disagreement(both))
    assert torch.equal(uncertainty(padded), uncertainty(both))
    alone = torch.tensor([[[1.0, NAN]], [[2.0, NAN]]])
    assert disagreement(alone).tolist() == uncertainty(alone).tolist() == [0.0]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=5), st.floats(-3, 3))
def test_what_a_model_adds_to_all_answers_changes_nothing(scores, shift):
    one = torch.tensor([[scores], [scores[::-1]]], dtype=torch.float64)
    other = one + torch.tensor([shift, -shift], dtype=torch.float64)[:, None, None]
    assert torch.allclose(disagreement(one), disagreement(other))
    assert torch.allclose(uncertainty(one), uncertainty(other))


def test_largest_keeps_the_order_of_equals():
    assert largest(torch.tensor([0.5, 0.9, 0.5, 0.1]), [3, 2, 0, 1]) == [1, 2, 0, 3]


def test_prompts_take_turns():
    keys = ["a", "a", "b", "a", "c"]
    assert round_robin([0, 1, 3, 2, 4], keys) == [0, 2, 4, 1, 3]
    assert round_robin([0, 1, 3, 2, 4], None) == [0, 1, 3, 2, 4]
    # a and b were asked: c is first
    assert round_robin([1, 3, 4], keys, labelled=[0, 2]) == [4, 1, 3]


def test_farthest_first_covers_a_line():
    points = torch.tensor([[0.0], [1.0], [4.0], [10.0], [5.5]])
    assert farthest_first(points, 4, [0, 1, 2, 3, 4]) == [0, 3, 4, 2]
    assert farthest_first(points, 2, [0, 1, 2, 4], labelled=[3]) == [0, 4]
    assert farthest_first(points, 9, [2, 1]) == [2, 1]  # no more than there are
    assert farthest_first(torch.zeros(4, 2), 3, [2, 0, 3, 1]) == [2, 0, 3]  # all alike: the order given


def test_farthest_first_knows_no_rounding():
    alike = torch.full((50, 7), 1 / 3)
    assert farthest_first(alike, 50, list(range(49, -1, -1))) == list(range(49, -1, -1))


@pytest.fixture
def pool():
    generator = draw(1)
    return Pool(
        size=30,
        scores=torch.randn(3, 30, 4, generator=generator),
        embeddings=torch.randn(30, 5, generator=generator),
        keys=[number // 2 for number in range(30)],
    )


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_to_the_budget_and_asks_nothing_twice(rule, pool):
    first = choose(rule, pool, 10, draw())
    assert first == choose(rule, pool, 10, draw())
    later = choose(rule, pool, 50, draw(), labelled=first)
    assert len(set(first)) == len(first) == 10
    assert sorted([*first, *later]) == list(range(30)) or rule == "disagreement_coreset"
    assert choose(rule, pool, 0, draw()) == []


@pytest.mark.parametrize("rule", RULES)
def test_no_prompt_is_asked_again_while_others_wait(rule, pool):
    pool = Pool(30, pool.scores, pool.embeddings.repeat_interleave(2, dim=0)[:30], pool.keys)
    request = choose(rule, pool, 15, draw())
    assert len({number // 2 for number in request}) == 15


def test_chance_decides_at_random(pool):
    assert choose("random", pool, 10, draw(0)) != choose("random", pool, 10, draw(1))
    even = Pool(size=100, scores=torch.zeros(2, 100, 2))
    for rule in ("disagreement", "information_gain", "uncertainty"):  # nothing to go by
        assert choose(rule, even, 10, draw(0)) != choose(rule, even, 10, draw(1))


def test_scored_rules_take_what_they_are_for():
    scores = torch.zeros(2, 40, 2)
    scores[:, :, 0] = 3.0  # both are sure of the first answer
    scores[0, 7, 0], scores[1, 7, 0] = 4.0, -1.0  # they differ about this one, the mean being no tie
    scores[:, 9, 0] = 0.0  # and are sure that this one is a tie
    pool = Pool(40, scores, torch.eye(40))
    assert choose("disagreement", pool, 1, draw()) == [7]
    assert choose("uncertainty", pool, 1, draw()) == [9]
    assert 7 in choose("disagreement_coreset", pool, 4, draw())


def test_spread_covers_what_is_disputed_and_nothing_else():
    scores = torch.zeros(2, 40, 2)
    scores[0, :, 0] = torch.arange(40, 0, -1) / 10  # the lower the place, the more they differ
    embeddings = torch.zeros(40, 1)
    embeddings[5], embeddings[6], embeddings[39] = 2.0, 1.0, 100.0  # 39 is farther, but among the least disputed
    assert choose("disagreement_coreset", Pool(40, scores, embeddings), 2, draw()) == [0, 5]


def test_a_rule_says_what_it_lacks():
    for rule in (*SCORED, "coreset"):
        with pytest.raises(ValueError, match=f"'{rule}' needs"):
            choose(rule, Pool(size=3), 1, draw())


def test_word_vectors():
    result = word_vectors(["Name a red thing", "name a RED thing", "Where does Ann live?", ""])
    assert torch.equal(result[0], result[1])
    assert float(result[0] @ result[2]) < 0.2
    assert result.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_groups_are_found_through_others():
    games = torch.zeros(5, 5)
    for a, b in ((0, 3), (3, 1), (2, 4)):
        games[a, b] = games[b, a] = 1
    assert sorted(groups_of(range(5), games.nonzero().tolist())) == [[0, 1, 3], [2, 4]]


def test_everybody_is_joined_first():
    names = list("abcdefg")
    for seed in range(5):
        battles = [Comparison(a, b, 0.5) for a, b in next_battles([], names, 6, draw(seed))]
        assert {name for row in battles for name in (row.a, row.b)} == set(names)
        bradley_terry([*battles, *(Comparison(row.b, row.a, 0.5) for row in battles)])  # one group: they have a limit
    # one that nobody has met is asked for at once
    met = [Comparison("a", "b", 1.0), Comparison("b", "c", 1.0), Comparison("c", "a", 1.0)]
    assert "z" in next_battles(met, ["a", "b", "c", "z"], 1, draw())[0]
    assert set(next_battles(met, ["a", "b", "c", "y", "z"], 1, draw())[0]) == {"y", "z"}


def test_joining_groups_comes_before_narrowing():
    groups = ["abcde", "hijkl"]
    known = [Comparison(a, b, 0.5) for group in groups for a in group for b in group if a < b for _ in range(20)]
    battles = [*known, Comparison("f", "a", 0.5), Comparison("g", "a", 0.5)]  # f - g is the least sure
    for seed in range(5):
        pair = next_battles(battles, list("abcdefghijkl"), 1, draw(seed))[0]
        assert len({name in "hijkl" for name in pair}) == 2


def test_then_the_widest_interval():
    often = [Comparison("a", "b", score) for score in (0.0, 1.0) * 20]
    battles = [
        *often,
        Comparison("b", "c", 1.0),
        Comparison("c", "a", 1.0),
        Comparison("c", "d", 0.0),
        Comparison("d", "a", 0.0),
    ]
    assert set(next_battles(battles, list("abcd"), 1, draw())[0]) == {"c", "d"}
    # what was chosen counts: another pair comes soon
    assert len({frozenset(chosen) for chosen in next_battles(battles, list("abcd"), 8, draw())}) > 1


def test_variances_are_those_of_the_ratings_intervals():
    generator = draw(5)
    truth = {"a": 0.5, "b": 0.0, "c": -0.5}
    battles = []
    for a, b in [("a", "b"), ("b", "c"), ("c", "a")] * 150:
        p = 1 / (1 + math.exp(truth[b] - truth[a]))
        battles.append(Comparison(a, b, float(torch.rand((), generator=generator) < p)))
    ratings = rate(battles, prior=0.1, anchor="a")
    s = torch.tensor([ratings[name].rating for name in "abc"], dtype=torch.float64) / SCALE
    games = 150.0 * (1 - torch.eye(3, dtype=torch.float64))
    expected = float(variances(s, games, 0.1)[0, 1].sqrt())
    measured = (ratings["b"].high - ratings["b"].low) / SCALE / (2 * 1.96)
    assert measured == pytest.approx(expected, rel=0.02)


def test_battles_are_chosen_for_somebody():
    with pytest.raises(ValueError, match="two models or more"):
        next_battles([], ["a"], 1, draw())
    with pytest.raises(ValueError, match="prior above 0"):
        next_battles([], ["a", "b"], 1, draw(), prior=0.0)
