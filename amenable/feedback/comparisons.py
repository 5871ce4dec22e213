"""Pairs inside rankings, and how well scores agree with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from amenable.functional.statistics import bootstrap_mean


@dataclass(frozen=True)
class Item:
    """One prompt with its K answers: one element of a reward model's batch."""

    rows: list[tuple[list[int], list[bool]]]
    """K sequences, prompt and answer, with marks that are True on the answer"""
    ranks: list[float]
    """K ranks, 1 the best, ties share"""
    lengths: list[int]
    """characters of each answer"""
    annotator: str


def pairs_of(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """(better, worse) for every pair that is not tied."""
    pairs = []
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] != ranks[j]:
            pairs.append((i, j) if ranks[i] < ranks[j] else (j, i))
    return pairs


def summary(items: Sequence[Item], scores: Sequence[Tensor], generator: torch.Generator) -> dict[str, Any]:
    """Accuracy of scores on the items' pairs: a tied score counts one half; the interval resamples prompts.

    Returns accuracy, low, high, pairs, longer_wins (always preferring the longer answer), accuracy_length_matched
    (accuracy where lengths are within 10 %), by_annotator, and calibration: for bins of the score gap the mean
    predicted probability sigma(gap), the share that were right, and the count.
    """
    hits, longer, gaps, prompts, names, matched = [], [], [], [], [], []
    for number, (item, score) in enumerate(zip(items, scores)):
        for better, worse in pairs_of(item.ranks):
            first, second = item.lengths[better], item.lengths[worse]
            gap = float(score[better] - score[worse])
            hits.append(right(gap))
            longer.append(right(first - second))
            matched.append(abs(first - second) <= 0.1 * max(first, second))
            gaps.append(gap)
            prompts.append(number)
            names.append(item.annotator)
    if not hits:
        return {"accuracy": 0.5, "low": 0.0, "high": 1.0, "pairs": 0, "longer_wins": 0.5, "by_annotator": {}}
    values = torch.tensor(hits)
    mean, low, high = bootstrap_mean(values, generator, clusters=torch.tensor(prompts))
    close = [hit for hit, near in zip(hits, matched) if near]
    return {
        "accuracy": mean,
        "low": low,
        "high": high,
        "pairs": len(hits),
        "longer_wins": sum(longer) / len(longer),
        "accuracy_length_matched": sum(close) / len(close) if close else None,
        "by_annotator": {name: by_name(hits, names, name) for name in sorted(set(names))},
        "calibration": calibration(gaps),
    }


def right(gap: float) -> float:
    """1 where the better one is ahead, one half where they are level."""
    return 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0


def by_name(hits: list[float], names: list[str], name: str) -> dict[str, Any]:
    own = [hit for hit, owner in zip(hits, names) if owner == name]
    return {"accuracy": sum(own) / len(own), "pairs": len(own)}


def calibration(gaps: list[float], bins: int = 8) -> list[dict[str, float]]:
    """Pairs sorted by the size of their gap, in bins of equal count: predicted and actual share of right answers."""
    sizes = torch.tensor(gaps)
    order = sizes.abs().argsort()
    out = []
    for part in order.chunk(min(bins, len(gaps))):
        gap = sizes[part]
        actual = sum(right(float(value)) for value in gap) / len(part)
        out.append({"predicted": float(torch.sigmoid(gap.abs()).mean()), "actual": actual, "count": len(part)})
    return out
