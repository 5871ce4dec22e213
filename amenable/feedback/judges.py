"""Judges: callables that rank the answers to one prompt (simulated annotators, reward models, rules, LLMs)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from amenable.data.types import Prompt

Answer = tuple[str, bool]
"""a completion, and whether it ended with an end token"""


class Judge(Protocol):
    """Ranks K completions of one prompt: 1 the best, ties share. Random choices use the generator."""

    def __call__(
        self, prompt: Prompt, completions: Sequence[str], ended: Sequence[bool], generator: torch.Generator
    ) -> Sequence[float]: ...


def preference(judge: Judge, prompt: Prompt, a: Answer, b: Answer, generator: torch.Generator) -> float:
    """Return 1 where a is preferred in both orders, 0 where b is, one half where the orders differ or tie."""
    return combine_orders(both_orders(judge, prompt, a, b, generator))


def both_orders(judge: Judge, prompt: Prompt, a: Answer, b: Answer, generator: torch.Generator) -> tuple[float, float]:
    """Return the score of a (1 preferred, one half tied, else 0) when a is shown first, and when a is shown second."""
    return first_wins(judge, prompt, a, b, generator), 1 - first_wins(judge, prompt, b, a, generator)


def first_wins(judge: Judge, prompt: Prompt, first: Answer, second: Answer, generator: torch.Generator) -> float:
    """Return 1 where the answer shown first is preferred, one half for a tie, else 0."""
    ranks = judge(prompt, [first[0], second[0]], [first[1], second[1]], generator)
    if len(ranks) != 2:
        raise ValueError(f"the judge gave {len(ranks)} ranks to 2 answers")
    return 1.0 if ranks[0] < ranks[1] else 0.5 if ranks[0] == ranks[1] else 0.0


def combine_orders(orders: tuple[float, float]) -> float:
    """Return the score in both orders where they are equal, else one half."""
    return orders[0] if orders[0] == orders[1] else 0.5


def position_bias(orders: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (win rate of the answer shown first, share of consistent pairs) from a judge's `both_orders`.

    A judge without position bias has (0.5, 1).
    """
    if not orders:
        raise ValueError("no comparisons")
    first = sum(when_first + 1 - when_second for when_first, when_second in orders) / (2 * len(orders))
    return first, sum(a == b for a, b in orders) / len(orders)
