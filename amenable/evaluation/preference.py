"""Preference between two answers, with its interval.

A world's annotators see both answers in both orders, and ties count half; where no world knows the truth, the reward
model decides. A share of preferences has Wilson's interval. Judges and reward models like long answers: the regression
of length-controlled AlpacaEval (Dubois et al., 2024) says how often an answer is preferred at equal length,

    P(a preferred to b) = sigma(theta + phi tanh((length_a - length_b) / spread))         win rate = sigma(theta)

without its term of a prompt's difficulty, which takes the answers of many models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.feedback.ratings import Comparison, expected_score, rate_length_controlled
from amenable.functional.statistics import Z95, wilson
from amenable.seeds import seeded_generator
from amenable.world.closed_world import ClosedWorld
from amenable.world.gold import GoldReport

Decoding = Literal["sampled", "greedy"]
DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")
ANNOTATOR_SETS = ("heldout", "training")
"""annotators whose labels are not in the training data, and those whose labels are"""

ROUNDING = 2.0**-32
"""shares are rounded to multiples of it, so that 1 - (1 - share) is the share to the bit"""

Row = dict[str, Any]
"""an answer: its text, whether it ended, and its metrics"""
Compare = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""(answers to the first prompts by one model, by another) -> 1 where the first is preferred, 0 the second, or half"""
AnswerRows = Mapping[str, Sequence[Row] | None]
"""a model's answers by decoding"""


class GoldCache:
    """Gold of a world's annotators, computed once for each answer."""

    def __init__(self, world: ClosedWorld):
        self.world = world
        self.reports: dict[tuple[str, str, bool], GoldReport] = {}

    def report(self, prompt_id: str, answer: Row) -> GoldReport:
        """Return the gold of an answer, with its parts."""
        key = (prompt_id, answer["text"], answer["ended"])
        if key not in self.reports:
            self.reports[key] = self.world.gold(*key)
        return self.reports[key]


def outcomes(
    world: ClosedWorld | GoldCache, ids: Sequence[str], a: Sequence[Row], b: Sequence[Row], judges: str, seed: int
) -> Tensor:
    """Return the share of annotators that prefers the answer of `a` to that of `b`, by prompt [N]; 0.5 if both equal.

    judges: "heldout" or "training". Exactly 1 - outcomes(b, a): the annotators see each pair in `sort_key` order.
    """
    gold = world if isinstance(world, GoldCache) else GoldCache(world)
    turned = [sort_key(x) > sort_key(y) for x, y in zip(a, b, strict=True)]
    pairs = [(y, x) if turn else (x, y) for x, y, turn in zip(a, b, turned)]
    first, second = ([gold.report(name, pair[side]) for name, pair in zip(ids, pairs, strict=True)] for side in (0, 1))
    generator = seeded_generator(seed, "prefer", judges)
    votes = gold.world.votes(first, second, generator, judges == "heldout").double()
    votes = (votes / ROUNDING).round() * ROUNDING
    same = torch.tensor([sort_key(x) == sort_key(y) for x, y in pairs])
    return torch.where(torch.tensor(turned), 1 - votes, votes).masked_fill(same, 0.5)


def sort_key(answer: Row) -> tuple[str, bool]:
    """Return (text, ended): orders a pair of answers whichever model wrote which; equal keys are equal answers."""
    return answer["text"], answer["ended"]


def by_reward(a: Sequence[Row], b: Sequence[Row]) -> Tensor:
    """Return 1 where the reward of `a` is higher, 0 where that of `b` is, else 0.5. [N]."""
    gaps = [
        0.0 if sort_key(x) == sort_key(y) else float(x["reward"]) - float(y["reward"])
        for x, y in zip(a, b, strict=True)
    ]
    return (torch.tensor(gaps, dtype=torch.float64).sign() + 1) / 2


def preferences(
    models: Mapping[str, AnswerRows],
    ids: Sequence[str],
    gold: GoldCache | None,
    has_rewards: bool,
    seed: int,
    compare: Compare | None = None,
) -> list[dict[str, Any]]:
    """Return the win rate of the first of two models: a row for each pair, decoding and kind of judge.

    A model that answered only the first prompts is compared on these. Without gold the rewards decide, if any; a judge
    that compares texts decides besides.
    """
    table = []
    for decoding in DECODINGS:
        for a, b in combinations(models, 2):
            of_a, of_b = models[a].get(decoding), models[b].get(decoding)
            if of_a is None or of_b is None:
                continue
            n = min(len(of_a), len(of_b))
            of_a, of_b = of_a[:n], of_b[:n]
            votes: dict[str, Tensor] = {}
            if gold is not None:
                votes = {judges: outcomes(gold, ids[:n], of_a, of_b, judges, seed) for judges in ANNOTATOR_SETS}
            elif has_rewards:
                votes = {"reward": by_reward(of_a, of_b)}
            if compare is not None:
                texts = [[row["text"] for row in rows] for rows in (of_a, of_b)]
                votes["judge"] = torch.tensor(compare(*texts), dtype=torch.float64)
            for judges, shares in votes.items():
                row = {"a": a, "b": b, "decoding": decoding, "judges": judges, **mean_win_rate(shares)}
                if judges in ("judge", "reward"):
                    row["length_controlled"] = length_controlled(shares, of_a, of_b)
                table.append(row)
    return table


def length_controlled(shares: Tensor, a: Sequence[Row], b: Sequence[Row]) -> dict[str, float] | None:
    """Return the win rate of `a` at equal length with its 95 % interval (wins, low, high), and the Elo points that an
    answer gains by being longer by a usual difference (length_effect); None where all lengths are equal.

    shares: of preferences for `a` [N].
    """
    gaps = [float(len(x["text"]) - len(y["text"])) for x, y in zip(a, b, strict=True)]
    if not any(gaps):
        return None
    comparisons = [Comparison("a", "b", share) for share in shares.tolist()]
    ratings, effect = rate_length_controlled(comparisons, gaps, anchor="b", level=0.0)
    wins, low, high = (expected_score(rating, 0.0) for rating in ratings["a"])
    return {"wins": wins, "low": low, "high": high, "length_effect": effect.rating}


def half_width(n: int) -> float:
    """Return half the 95 % interval of a rate of one half over n; that of any other rate is smaller."""
    return Z95 * math.sqrt(0.25 / n)


def mean_win_rate(shares: Tensor) -> dict[str, float]:
    """Return the mean of shares [N] of preferences, with its 95 % interval and N."""
    wins, n = float(shares.sum()), len(shares)
    low, high = wilson(wins, n)
    return {"wins": wins / n, "low": low, "high": high, "n": n}
