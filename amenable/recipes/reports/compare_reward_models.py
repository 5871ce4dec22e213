"""Two reward models on the same rankings: how often each sides with the annotators, and the two with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.types import Ranking
from amenable.errors import InputError
from amenable.feedback.comparisons import Item, pairs_of, right, summary
from amenable.functional.statistics import bootstrap_mean, clustered_share
from amenable.models import pretrained
from amenable.seeds import seeded_generator
from amenable.stages import reward
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import keep_usable
from amenable.train.runtime import Runtime

Row = dict[str, Any]

SHOWN = 6
"""disputes that are told"""


@dataclass(frozen=True)
class Judged:
    """One ranking with the scores that a reward model gives its answers."""

    ranking: Ranking
    item: Item
    scores: Tensor
    """[K]"""


def orders(a: Path, b: Path, rankings: Sequence[Ranking], runtime: Runtime, max_tokens: int, seed: int) -> Row:
    """Accuracy and loss of each, how much more often b is right, how often they agree, and where they do not."""
    one, other = items_of(a, rankings), items_of(b, rankings)
    kept = [place for place in range(len(rankings)) if one[place] is not None and other[place] is not None]
    if not kept:
        raise InputError("no ranking fits the context of both models", how="give --data with shorter ones")
    first, second = (
        judged(folder, [(rankings[i], item) for i in kept if (item := items[i]) is not None], runtime, max_tokens)
        for folder, items in ((a, one), (b, other))
    )
    return {
        "rankings": len(kept),
        "a": accuracy(first, seed),
        "b": accuracy(second, seed),
        "gain": mean_gain([gains(x, y) for x, y in zip(first, second)], seed),
        "agreement": mean_agreement([agreements(x.scores, y.scores) for x, y in zip(first, second)]),
        "disputes": disputes(first, second),
    }


def read(data: Path, limit: int = 0) -> list[Ranking]:
    """The rankings of a file, or so many of them."""
    return keep_usable(sources.read_rankings(data, limit=limit or None))


def items_of(folder: Path, rankings: Sequence[Ranking]) -> list[Item | None]:
    """The rankings as a model reads them; None for what does not fit its context."""
    tokenizer, context = Tokenizer.load(folder), pretrained.read_config(folder).context_length
    return [reward.tokenize_ranking(ranking, tokenizer, context) for ranking in rankings]


def judged(folder: Path, told: Sequence[tuple[Ranking, Item]], runtime: Runtime, max_tokens: int) -> list[Judged]:
    """Every ranking with a model's scores."""
    model = loading.load_reward_model(folder, runtime, Tokenizer.load(folder), frozen=True)
    scores = forward.compute_rewards(model, [row for _, item in told for row in item.rows], runtime, max_tokens)
    parts = scores.split([len(item.rows) for _, item in told])
    return [Judged(ranking, item, part) for (ranking, item), part in zip(told, parts)]


def accuracy(found: Sequence[Judged], seed: int) -> Row:
    """Share of pairs ordered as the annotators did, and the loss, both with intervals."""
    told = summary([one.item for one in found], [one.scores for one in found], seeded_generator(seed, "compare"))
    return {key: told[key] for key in ("accuracy", "low", "high", "loss", "loss_low", "loss_high", "pairs")}


def gains(a: Judged, b: Judged) -> list[float]:
    """For each pair that the annotator ordered: 1 where b is right and a wrong, -1 the other way round, or between."""
    pairs = pairs_of(a.item.ranks)
    return [right(gap(b.scores, better, worse)) - right(gap(a.scores, better, worse)) for better, worse in pairs]


def agreements(a: Tensor, b: Tensor) -> list[float]:
    """For each pair of answers, scores [K] and [K]: 1 where both put the same one first, one half where one sees a tie.

    >>> agreements(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 5.0]))
    [0.5, 0.0, 0.0]
    """
    return [right(gap(a, i, j) * gap(b, i, j)) for i, j in combinations(range(len(a)), 2)]


def gap(scores: Tensor, i: int, j: int) -> float:
    return float(scores[i] - scores[j])


def mean_gain(values: Sequence[Sequence[float]], seed: int) -> Row | None:
    """The mean of values that come several a prompt, an interval that resamples prompts, and how many there are.

    low and high are None where resamples tell nothing: of a single prompt, or where all values are the same.
    """
    every, owners = flat(values)
    if not len(every):
        return None
    mean, low, high = bootstrap_mean(every, seeded_generator(seed, "compare"), clusters=owners)
    is_told = math.isfinite(low) and low < high
    return {"value": mean, "low": low if is_told else None, "high": high if is_told else None, "n": len(every)}


def mean_agreement(values: Sequence[Sequence[float]]) -> Row | None:
    """The mean of shares that come several a prompt, with its interval, and how many there are."""
    every, owners = flat(values)
    if not len(every):
        return None
    mean, low, high = clustered_share(every, owners)
    return {"value": mean, "low": low, "high": high, "n": len(every)}


def flat(values: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Values [N] of all prompts, and the places [N] of their prompts."""
    owners = [place for place, part in enumerate(values) for _ in part]
    return torch.tensor([value for part in values for value in part]), torch.tensor(owners)


def disputes(a: Sequence[Judged], b: Sequence[Judged]) -> list[Row]:
    """Pairs of answers of which each model clearly prefers another, one a prompt, the sharpest first."""
    found = [row for x, y in zip(a, b) if (row := dispute(x, y)) is not None]
    return sorted(found, key=lambda row: row["strength"], reverse=True)[:SHOWN]


def dispute(a: Judged, b: Judged) -> Row | None:
    """The pair of a prompt's answers that divides the two most, if any does: `strength` is the lesser of their gaps."""
    choices = permutations(range(len(a.scores)), 2)
    strength, i, j = max((min(gap(a.scores, i, j), gap(b.scores, j, i)), i, j) for i, j in choices)
    if strength <= 0:
        return None
    return {
        "id": a.ranking.id,
        "annotator": a.ranking.annotator,
        "prompt": [{"role": message.role, "content": message.content} for message in a.ranking.prompt],
        "strength": strength,
        "answers": [
            {
                "text": a.ranking.completions[place],
                "rank": a.ranking.ranks[place],
                "a": float(a.scores[place]),
                "b": float(b.scores[place]),
            }
            for place in (i, j)
        ],
    }
