import pytest
import torch

from amenable.data.rankings import from_scores
from amenable.data.types import Message, Prompt
from amenable.feedback.judges import both_orders, position_bias, preference

PROMPT = Prompt((Message("user", "Say something long."),))
SHORT, LONG, OTHER_LONG = ("hm", True), ("a long answer", True), ("another answer", False)


def draw():
    return torch.Generator().manual_seed(0)


def longest(prompt, completions, ended, generator):
    return from_scores([len(completion.split()) for completion in completions])


def prefers_what_it_sees_first(prompt, completions, ended, generator):
    return [float(place) for place in range(1, len(completions) + 1)]


def test_a_scoring_judge():
    judge = longest
    assert judge(PROMPT, ["one", "one two three", "one two"], [True] * 3, draw()) == [3.0, 1.0, 2.0]
    assert preference(judge, PROMPT, LONG, SHORT, draw()) == 1.0
    assert preference(judge, PROMPT, SHORT, LONG, draw()) == 0.0
    assert preference(judge, PROMPT, ("a b", True), ("c d", True), draw()) == 0.5


def test_a_judge_that_goes_by_position_prefers_nothing():
    assert preference(prefers_what_it_sees_first, PROMPT, LONG, SHORT, draw()) == 0.5
    orders = [both_orders(prefers_what_it_sees_first, PROMPT, LONG, SHORT, draw()) for _ in range(3)]
    assert orders == [(1.0, 0.0)] * 3
    assert position_bias(orders) == (1.0, 0.0)


def test_position_bias_by_hand():
    # a wins twice; the second shown wins; a wins when first, ties when second
    assert position_bias([(1.0, 1.0), (0.0, 1.0), (1.0, 0.5)]) == pytest.approx(((1 + 0 + 0 + 0 + 1 + 0.5) / 6, 1 / 3))
    with pytest.raises(ValueError, match="no comparisons"):
        position_bias([])


def test_the_judge_is_told_which_answers_ended():
    def unfinished_is_worse(prompt, completions, ended, generator):
        return from_scores([float(whole) for whole in ended])

    assert preference(unfinished_is_worse, PROMPT, OTHER_LONG, LONG, draw()) == 0.0


def test_a_noisy_judge_repeats_itself_from_the_same_generator():
    def coin(prompt, completions, ended, generator):
        return from_scores(torch.rand(len(completions), generator=generator).tolist())

    first, again = ([preference(coin, PROMPT, LONG, SHORT, g) for _ in range(20)] for g in (draw(), draw()))
    assert first == again and set(first) == {0.0, 0.5, 1.0}


def test_a_judge_must_rank_what_it_was_shown():
    with pytest.raises(ValueError, match="3 ranks"):
        preference(lambda *_: [1.0, 2.0, 3.0], PROMPT, LONG, SHORT, draw())
