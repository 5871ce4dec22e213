"""Ranks of scores, and pairs of a ranking's completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from amenable.data.batches import shuffled

PairSelection = Literal["all", "best-worst", "random"]
"""every pair; the best completion against the worst; pairs drawn at random"""


def from_scores(scores: Sequence[float]) -> list[float]:
    """Return the ranks of scores: 1 more than the number of higher scores, so that ties share (1, 1, 3)."""
    return [1.0 + sum(other > score for other in scores) for score in scores]


def pairs_of(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """Return (better, worse) of every pair that is not tied; ranks [K], 1 the best."""
    pairs = combinations(range(len(ranks)), 2)
    return [(i, j) if ranks[i] < ranks[j] else (j, i) for i, j in pairs if ranks[i] != ranks[j]]


def select_pairs(ranks: Sequence[float], selection: PairSelection, count: int, seed: int) -> list[tuple[int, int]]:
    """Return (better, worse) of the selected pairs of a ranking; none of them is tied.

    best-worst: where several tie for best or worst the seed draws one. random: `count` pairs, drawn by the seed; 0
    takes all.
    """
    pairs = pairs_of(ranks)
    order = shuffled(len(pairs), seed, 0)
    if selection == "best-worst":
        extremes = [pairs[i] for i in order if ranks[pairs[i][0]] == min(ranks) and ranks[pairs[i][1]] == max(ranks)]
        return extremes[:1]
    if selection == "random" and count:
        return [pairs[i] for i in order[:count]]
    return pairs
