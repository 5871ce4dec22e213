r"""Rewards by rule: 1 for a completion that keeps it, else 0.

length:4-30      4 to 30 words; length:4- and length:-30 are open on one side
ends             it ended by itself, not by the length limit
regex:PATTERN    the pattern of Python's `re` occurs in it
not:RULE         the rule is not kept, as in not:regex:\bI think\b
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from amenable.errors import InputError
from amenable.rewards.functions import RewardFunction

Rule = Callable[[str, bool], bool]
"""(completion, whether it ended by itself) -> whether the rule is kept"""

LENGTH = re.compile(r"(\d*)-(\d*)")


def is_rule(spec: str) -> bool:
    """Return True for a SPEC of a rule."""
    return spec == "ends" or spec.startswith(("length:", "regex:", "not:", "ends:"))


def rule_reward(spec: str) -> RewardFunction:
    """Return the reward function of a rule: 1 where a completion keeps it, else 0. InputError for an invalid rule."""
    rule = parse_rule(spec)

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        ended = columns.get("ended") or [True] * len(completions)
        return [float(rule(text, end)) for text, end in zip(completions, ended, strict=True)]

    return reward


def parse_rule(spec: str) -> Rule:
    """Parse a rule. InputError for an unknown kind, a range without numbers, and a pattern that `re` refuses."""
    kind, _, value = spec.partition(":")
    if kind == "not":
        inner = parse_rule(value)
        return lambda text, ended: not inner(text, ended)
    if kind == "ends" and not value:
        return lambda text, ended: ended
    if kind == "length":
        return length_rule(value, spec)
    if kind == "regex" and value:
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise InputError(f"is no regular expression: {error}", spec) from None
        return lambda text, ended: pattern.search(text) is not None
    raise InputError(f"'{spec}' is no rule", how="rules are length:MIN-MAX, ends, regex:PATTERN, and not: before one")


def length_rule(value: str, spec: str) -> Rule:
    """Parse MIN-MAX, a range of words that is open on the side without a number."""
    bounds = LENGTH.fullmatch(value)
    if bounds is None or not any(bounds.groups()):
        raise InputError(f"'{value}' is no range of words", spec, "write length:4-30, length:4- or length:-30")
    least, most = int(bounds[1] or 0), int(bounds[2]) if bounds[2] else None
    if most is not None and most < least:
        raise InputError(f"no text has {least} to {most} words", spec, "write the smaller number first")
    return lambda text, ended: least <= len(text.split()) and (most is None or len(text.split()) <= most)
