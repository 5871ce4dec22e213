"""Audit of a judge that is a model: position, length and self-preference bias, and agreement with people.

Every question is asked in both orders of the two answers. Zheng et al. (2023, "Judging LLM-as-a-judge", section 3.3
and 4) name the biases:

    position          share of pairs with another verdict in the other order; win rate of the answer shown first
    length            how often the longer answer is preferred, less how often people prefer it
    padding           an answer against itself with its own words repeated: a win of the padded one is an error
    self-preference   win rate of the judge's own model, less its win rate by people on the same pairs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from amenable.data.rankings import pairs_of
from amenable.data.types import Conversation, Ranking
from amenable.feedback.agreement import Share, by_item, pair_labels, pairwise_agreement
from amenable.feedback.judges import combine_orders
from amenable.feedback.votes import models_of
from amenable.functional.statistics import FEW, bootstrap_mean, clustered_share
from amenable.seeds import seeded_generator

Row = dict[str, Any]

REPEATED = "\n\nIn other words: "
"""between an answer and its repetition"""


class PairJudge(Protocol):
    """Compares two answers to a prompt."""

    def both_orders(self, prompt: Conversation, a: str, b: str) -> tuple[float, float]:
        """Return the score of `a` (1 preferred, one half tied, else 0) when it is shown first, and when second."""
        ...


@dataclass(frozen=True)
class HumanPair:
    """Two answers to a prompt of which a person preferred one."""

    prompt: Conversation
    better: str
    worse: str
    annotator: str
    own: float | None
    """1 where the better answer alone is of the judge's model, 0 where the worse alone is, else None"""


def draw_pairs(rankings: Sequence[Ranking], limit: int, own: str, seed: int) -> list[HumanPair]:
    """Return pairs of people's rankings, one of each ranking that is no full tie, at most `limit` of them (0: all).

    own: name of the judge's model in the rankings' column `models`.
    """
    generator = seeded_generator(seed, "audit")
    usable = [ranking for ranking in rankings if pairs_of(ranking.ranks)]
    order = torch.randperm(len(usable), generator=generator).tolist()[: limit or None]
    return [draw_pair(usable[i], own, generator) for i in sorted(order)]


def draw_pair(ranking: Ranking, own: str, generator: torch.Generator) -> HumanPair:
    """Return a pair of a ranking's answers, drawn from those that are not tied."""
    pairs = pairs_of(ranking.ranks)
    better, worse = pairs[int(torch.randint(len(pairs), (), generator=generator))]
    models = models_of({"completions": ranking.completions, "meta": ranking.meta})
    is_own = [own in models[i] for i in (better, worse)]
    texts = ranking.completions[better], ranking.completions[worse]
    return HumanPair(
        ranking.prompt, *texts, ranking.annotator or "", float(is_own[0]) if is_own[0] != is_own[1] else None
    )


def audit(judge: PairJudge, pairs: Sequence[HumanPair], rankings: Sequence[Ranking], workers: int, seed: int) -> Row:
    """Return the figures of a judge on N pairs; intervals are over prompts.

    rankings: people's, for their agreement with each other. workers: questions to the judge at once.
    """
    with ThreadPoolExecutor(workers) as pool:
        orders = list(pool.map(lambda pair: judge.both_orders(pair.prompt, pair.better, pair.worse), pairs))
        padded = list(pool.map(lambda pair: judge.both_orders(pair.prompt, pad(pair.better), pair.better), pairs))
    numbers = dict[Conversation, int]()
    prompts = torch.tensor([numbers.setdefault(pair.prompt, len(numbers)) for pair in pairs])
    first, second = torch.tensor(orders, dtype=torch.float64).unbind(1)
    hits = torch.tensor(list(map(combine_orders, orders)), dtype=torch.float64)
    repeated = torch.tensor(list(map(combine_orders, padded)), dtype=torch.float64)
    lengths = torch.tensor([(len(pair.better), len(pair.worse)) for pair in pairs])
    return {
        "pairs": len(pairs),
        "prompts": len(numbers),
        "agreement": share_of(hits, prompts),
        "people": vars(people_agreement(rankings)),
        "by_annotator": by_annotator(hits, prompts, pairs),
        "position": {
            "consistent": share_of((first == second).double(), prompts),
            "first_wins": share_of((first + 1 - second) / 2, prompts),
        },
        "length": length_bias(hits, lengths, prompts, seed),
        "padding": {
            "padded_wins": share_of((repeated == 1).double(), prompts),
            "original_wins": share_of((repeated == 0).double(), prompts),
        },
        "self_preference": self_preference(hits, [pair.own for pair in pairs], prompts, seed),
    }


def pad(answer: str) -> str:
    """Return an answer with its own words repeated.

    >>> pad("It is red.")
    'It is red.\\n\\nIn other words: It is red.'
    """
    return f"{answer}{REPEATED}{answer}"


def length_bias(hits: Tensor, lengths: Tensor, prompts: Tensor, seed: int) -> Row | None:
    """Return how often the longer answer wins, by the judge and by people, their difference with its interval, and the
    judge's agreement with people where they preferred the longer, and the shorter. None where all lengths are equal.

    hits: 1 where the judge prefers the better answer, one half for a tie, else 0, [N]. lengths: characters of the
    better and the worse answer, [N, 2].
    """
    unequal = lengths[:, 0] != lengths[:, 1]
    if not unequal.any():
        return None
    hits, prompts = hits[unequal], prompts[unequal]
    people = (lengths[unequal, 0] > lengths[unequal, 1]).double()
    judge = hits * people + (1 - hits) * (1 - people)
    return {
        "judge": share_of(judge, prompts),
        "people": share_of(people, prompts),
        "difference": mean_of(judge - people, prompts, seed),
        "agreement_longer": share_of(hits[people == 1], prompts[people == 1]),
        "agreement_shorter": share_of(hits[people == 0], prompts[people == 0]),
    }


def self_preference(hits: Tensor, own: Sequence[float | None], prompts: Tensor, seed: int) -> Row | None:
    """Return the win rate of the judge's own model, by the judge and by people, and their difference; None without a
    pair of which one answer is its own."""
    known = torch.tensor([value is not None for value in own])
    if not known.any():
        return None
    people = torch.tensor([value for value in own if value is not None], dtype=torch.float64)
    hits, prompts = hits[known], prompts[known]
    judge = hits * people + (1 - hits) * (1 - people)
    return {
        "pairs": len(people),
        "judge": share_of(judge, prompts),
        "people": share_of(people, prompts),
        "difference": mean_of(judge - people, prompts, seed),
    }


def by_annotator(hits: Tensor, prompts: Tensor, pairs: Sequence[HumanPair]) -> Mapping[str, Row | None]:
    """Return the agreement with each annotator."""
    names = sorted({pair.annotator for pair in pairs})
    masks = {name: torch.tensor([pair.annotator == name for pair in pairs]) for name in names}
    return {name: share_of(hits[mask], prompts[mask]) for name, mask in masks.items()}


def people_agreement(rankings: Sequence[Ranking]) -> Share:
    """Return the agreement of people with each other, on pairs that several have ranked."""
    return pairwise_agreement([pair_labels(item) for item in by_item(rankings)])


def share_of(values: Tensor, prompts: Tensor) -> Row | None:
    """Return the mean of shares [N], its interval over prompts [N], and N; None for no values."""
    if not len(values):
        return None
    return {**dict(zip(("share", "low", "high"), clustered_share(values, prompts))), "n": len(values)}


def mean_of(values: Tensor, prompts: Tensor, seed: int) -> Row:
    """Return the mean of values [N] and its interval over prompts [N]; None for that of fewer than FEW prompts."""
    mean, low, high = bootstrap_mean(values, seeded_generator(seed, "audit interval"), clusters=prompts)
    enough = len(prompts.unique()) >= FEW
    return {"value": mean, "low": low if enough else None, "high": high if enough else None, "n": len(values)}
