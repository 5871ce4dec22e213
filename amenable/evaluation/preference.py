"""Which of two answers is preferred, and how sure that is.

A panel of annotators sees both in both orders, and ties count half; where no world knows the truth, the reward model
decides. A share of preferences has Wilson's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.functional.statistics import Z95, wilson
from amenable.seeds import seeded_generator
from amenable.world.closed_world import ClosedWorld
from amenable.world.gold import GoldReport

Decoding = Literal["sampled", "greedy"]
DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")
PANELS = ("heldout", "training")
"""annotators who labelled nothing that is trained on, and those who did"""

GRAIN = 2.0**-32
"""shares are rounded to multiples of it, so that 1 - (1 - share) is the share to the bit"""

Row = dict[str, Any]
"""an answer: its text, whether it ended, and what was measured of it"""
Said = Mapping[str, Sequence[Row] | None]
"""a model's answers by decoding"""


class Jury:
    """A world's judges. They read each answer once, however often they are asked about it."""

    def __init__(self, world: ClosedWorld):
        self.world = world
        self.known: dict[tuple[str, str, bool], GoldReport] = {}

    def parts(self, prompt_id: str, answer: Row) -> GoldReport:
        """Gold and its parts."""
        key = (prompt_id, answer["text"], answer["ended"])
        if key not in self.known:
            self.known[key] = self.world.gold(*key)
        return self.known[key]


def outcomes(
    world: ClosedWorld | Jury, ids: Sequence[str], a: Sequence[Row], b: Sequence[Row], judges: str, seed: int
) -> Tensor:
    """Share of a panel that prefers the answer of `a` to that of `b` [N], one for each prompt; two equal ones: 0.5.

    judges: "heldout" or "training". Exactly 1 - outcomes(b, a): the panel is shown the pair in an order of its own.
    """
    jury = world if isinstance(world, Jury) else Jury(world)
    turned = [order_of(x) > order_of(y) for x, y in zip(a, b, strict=True)]
    pairs = [(y, x) if turn else (x, y) for x, y, turn in zip(a, b, turned)]
    first, second = ([jury.parts(name, pair[side]) for name, pair in zip(ids, pairs, strict=True)] for side in (0, 1))
    generator = seeded_generator(seed, "prefer", judges)
    votes = jury.world.votes(first, second, generator, judges == "heldout").double()
    votes = (votes / GRAIN).round() * GRAIN
    same = torch.tensor([order_of(x) == order_of(y) for x, y in pairs])
    return torch.where(torch.tensor(turned), 1 - votes, votes).masked_fill(same, 0.5)


def order_of(answer: Row) -> tuple[str, bool]:
    """What an answer is to a reader; also an order that does not depend on who gave it."""
    return answer["text"], answer["ended"]


def by_reward(a: Sequence[Row], b: Sequence[Row]) -> Tensor:
    """1 where the reward model prefers the answer of `a`, 0 where that of `b`, 0.5 where they are equal. [N]."""
    gaps = [
        0.0 if order_of(x) == order_of(y) else float(x["reward"]) - float(y["reward"])
        for x, y in zip(a, b, strict=True)
    ]
    return (torch.tensor(gaps, dtype=torch.float64).sign() + 1) / 2


def preferences(
    models: Mapping[str, Said], ids: Sequence[str], jury: Jury | None, rewarded: bool, seed: int
) -> list[dict[str, Any]]:
    """How often the first of two models is preferred: a row for each pair, decoding and judge.

    A model that answered only the first prompts is compared on these. Without a jury the reward model judges, if there
    are rewards.
    """
    table = []
    for decoding in DECODINGS:
        for a, b in combinations(models, 2):
            one, other = models[a].get(decoding), models[b].get(decoding)
            if one is None or other is None:
                continue
            n = min(len(one), len(other))
            one, other = one[:n], other[:n]
            votes: dict[str, Tensor] = {}
            if jury is not None:
                votes = {judges: outcomes(jury, ids[:n], one, other, judges, seed) for judges in PANELS}
            elif rewarded:
                votes = {"reward": by_reward(one, other)}
            for judges, shares in votes.items():
                table.append({"a": a, "b": b, "decoding": decoding, "judges": judges, **won(shares)})
    return table


def half_width(n: int) -> float:
    """Half the 95 % interval of a share of n that lies around one half; of any other share it is smaller."""
    return Z95 * math.sqrt(0.25 / n)


def won(shares: Tensor) -> dict[str, float]:
    """The mean of shares [N] of preferences, with its interval."""
    wins, n = float(shares.sum()), len(shares)
    low, high = wilson(wins, n)
    return {"wins": wins / n, "low": low, "high": high, "n": n}
