"""Pairs of answers in rankings, and the accuracy of scores on them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.data.batches import shuffled
from amenable.functional.statistics import bootstrap_mean, clustered_share


@dataclass(frozen=True)
class TokenizedRanking:
    """One prompt with its K ranked answers, tokenized: one element of a reward model's batch."""

    rows: list[tuple[list[int], list[bool]]]
    """K rows (ids, loss mask) of prompt and answer; the mask is True on the answer"""
    ranks: list[float]
    """K ranks, 1 the best; tied answers share a rank"""
    lengths: list[int]
    """K numbers of characters of the answers"""
    annotator: str
    margin: float = 0.0
    """target difference of a pair's rewards"""


def pairs_of(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """Return (better, worse) for every pair that is not tied."""
    pairs = []
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] != ranks[j]:
            pairs.append((i, j) if ranks[i] < ranks[j] else (j, i))
    return pairs


Choice = Literal["all", "best-worst", "random"]
"""choice of the pairs of a ranking"""


def choose_pairs(ranks: Sequence[float], choice: Choice, at_most: int, seed: int) -> list[tuple[int, int]]:
    """Return (better, worse) for the chosen pairs of a ranking; none of them is tied.

    all: every pair. best-worst: the best answer against the worst; of several that tie for best or worst the seed draws
    one. random: `at_most` pairs, drawn by the seed; 0 takes all.
    """
    pairs = pairs_of(ranks)
    order = shuffled(len(pairs), seed, 0)
    if choice == "best-worst":
        extremes = [pairs[i] for i in order if ranks[pairs[i][0]] == min(ranks) and ranks[pairs[i][1]] == max(ranks)]
        return extremes[:1]
    if choice == "random" and at_most:
        return [pairs[i] for i in order[:at_most]]
    return pairs


def split_into_pairs(items: Sequence[TokenizedRanking]) -> list[TokenizedRanking]:
    """Return every pair as a ranking of its own, the better answer first; an answer is in each of its pairs."""
    return [
        replace(item, rows=[item.rows[i] for i in pair], ranks=[1.0, 2.0], lengths=[item.lengths[i] for i in pair])
        for item in items
        for pair in pairs_of(item.ranks)
    ]


def ranking_metrics(
    items: Sequence[TokenizedRanking], scores: Sequence[Tensor], generator: torch.Generator
) -> dict[str, Any]:
    """Return accuracy and loss of scores on the items' pairs: a tied score counts one half; intervals are over prompts.

    Margins are not used. Keys: accuracy, low, high, loss (mean of -log sigma(gap)), loss_low, loss_high, pairs,
    longer_wins (always preferring the longer answer), accuracy_length_matched (where lengths are within 10 %),
    by_annotator, and calibration: for bins of the score gap the mean predicted probability sigma(gap), the share that
    are correct, and the count.
    """
    hits, longer, gaps, prompts, names, matched = [], [], [], [], [], []
    for number, (item, score) in enumerate(zip(items, scores)):
        for better, worse in pairs_of(item.ranks):
            first, second = item.lengths[better], item.lengths[worse]
            gap = float(score[better] - score[worse])
            hits.append(correct(gap))
            longer.append(correct(first - second))
            matched.append(abs(first - second) <= 0.1 * max(first, second))
            gaps.append(gap)
            prompts.append(number)
            names.append(item.annotator)
    if not hits:
        return {
            **{"accuracy": 0.5, "low": 0.0, "high": 1.0, "loss": math.log(2), "loss_low": None, "loss_high": None},
            **{"pairs": 0, "longer_wins": 0.5, "by_annotator": {}},
        }
    owners = torch.tensor(prompts)
    mean, low, high = clustered_share(torch.tensor(hits), owners)
    losses = -F.logsigmoid(torch.tensor(gaps, dtype=torch.float64))
    loss, loss_low, loss_high = bootstrap_mean(losses, generator, clusters=owners)
    close = [hit for hit, near in zip(hits, matched) if near]
    return {
        "accuracy": mean,
        "low": low,
        "high": high,
        "loss": loss,
        "loss_low": loss_low if math.isfinite(loss_low) else None,
        "loss_high": loss_high if math.isfinite(loss_high) else None,
        "pairs": len(hits),
        "longer_wins": sum(longer) / len(longer),
        "accuracy_length_matched": sum(close) / len(close) if close else None,
        "by_annotator": accuracy_by_annotator(hits, names),
        "calibration": calibration(gaps),
    }


def correct(gap: float) -> float:
    """Return 1 for a gap above 0, where the better answer scores higher, one half for a gap of 0, else 0."""
    return 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0


def accuracy_by_annotator(hits: Sequence[float], annotators: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {name: {accuracy, pairs}} of the pairs of each annotator; hits and annotators have an entry a pair."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for hit, name in zip(hits, annotators):
        by_name[name].append(hit)
    return {name: {"accuracy": sum(own) / len(own), "pairs": len(own)} for name, own in sorted(by_name.items())}


def calibration(gaps: list[float], bins: int = 8) -> list[dict[str, float]]:
    """Return predicted and actual share of correct pairs, in bins of equal count by the size of the gap.

    Most gaps of a reward model are small: bins of equal width would leave those of large gaps nearly empty.
    """
    sizes = torch.tensor(gaps)
    order = sizes.abs().argsort()
    out = []
    for part in order.chunk(min(bins, len(gaps))):
        gap = sizes[part]
        actual = sum(correct(float(value)) for value in gap) / len(part)
        out.append({"predicted": float(torch.sigmoid(gap.abs()).mean()), "actual": actual, "count": len(part)})
    return out
