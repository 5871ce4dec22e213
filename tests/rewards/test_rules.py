"""Rewards by rule, and rules that cannot be read."""

from typing import Any

import pytest

from amenable.errors import InputError
from amenable.rewards.rules import is_rule, rule_reward

TEXTS = ["", "one", "one two three", "I think  so\n"]
ENDED = [True, False, True, False]


@pytest.mark.parametrize(
    ("spec", "scores"),
    [
        ("length:1-3", [0, 1, 1, 1]),
        ("length:3-3", [0, 0, 1, 1]),
        ("length:2-", [0, 0, 1, 1]),
        ("length:-1", [1, 1, 0, 0]),
        ("not:length:2-", [1, 1, 0, 0]),
        ("ends", [1, 0, 1, 0]),
        ("not:ends", [0, 1, 0, 1]),
        (r"regex:\bI think\b", [0, 0, 0, 1]),
        (r"not:regex:^one", [1, 0, 0, 1]),
        ("regex:a:b|two", [0, 0, 1, 0]),
        ("not:not:ends", [1, 0, 1, 0]),
    ],
)
def test_one_where_it_is_kept_else_nought(spec: str, scores: list[int]) -> None:
    assert is_rule(spec)
    assert rule_reward(spec)([()] * 4, TEXTS, ended=ENDED, other=[1, 2, 3, 4]) == scores


def test_a_completion_without_a_mark_ended() -> None:
    assert rule_reward("ends")([()], ["text"]) == [1.0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("length:x", "length:x: 'x' is no range of words; write length:4-30"),
        ("length:4", "'4' is no range"),
        ("length:-", "'-' is no range"),
        ("length:5-2", "no text has 5 to 2 words"),
        ("regex:(", r"regex:\(: is no regular expression: missing \)"),
        ("regex:", "'regex:' is no rule; rules are length:MIN-MAX"),
        ("not:", "'' is no rule"),
        ("not:runs/reward", "'runs/reward' is no rule"),
        ("ends:well", "'ends:well' is no rule"),
    ],
)
def test_rules_that_cannot_be_read(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule_reward(spec)


@pytest.mark.parametrize("spec", ["runs/ends", "ending", "lengths:3-4", "http://127.0.0.1/regex:x"])
def test_other_spellings_are_no_rules(spec: Any) -> None:
    assert not is_rule(spec)
