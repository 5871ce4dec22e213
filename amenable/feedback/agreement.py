"""Agreement of annotators: on pairs of answers, and beyond what chance would give.

Statistics take labels [N][A], N items by A annotators, None where an annotator has not labelled an item. Rankings
become such labels by `pair_labels`, whose items are pairs of answers. Pairs of one task are not independent: intervals
are over tasks, each a matrix of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias, TypeVar

import torch

from amenable.data.types import Conversation, Ranking
from amenable.functional.statistics import FEW, clustered_share

T = TypeVar("T", bound=Hashable)
Labels: TypeAlias = Sequence[Sequence[T | None]]
"""[N][A]"""
Ranks = Sequence[float]


@dataclass(frozen=True)
class Share:
    """Mean of n numbers from 0 to 1, with its 95 % interval; None where there are none."""

    share: float | None
    low: float | None
    high: float | None
    n: int


def share_of(groups: Sequence[Sequence[float]]) -> Share:
    """Return the mean of all numbers in all groups; its interval (`clustered_share`) is over groups."""
    values = [float(value) for group in groups for value in group]
    if not values:
        return Share(None, None, None, 0)
    clusters = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    return Share(*clustered_share(torch.tensor(values), clusters), len(values))


def pair_labels(rankings: Sequence[Ranks | None]) -> list[list[int | None]]:
    """Return labels [pairs][A] of the rankings [A][K] of K answers by A annotators, for each pair of answers.

    -1: the first answer of the pair is better, 0: tied, 1: the second is better. ValueError for different K.
    """
    sizes = {len(ranks) for ranks in rankings if ranks is not None}
    if len(sizes) > 1:
        raise ValueError(f"rankings of {' and '.join(map(str, sorted(sizes)))} answers")
    return [
        [None if ranks is None else (ranks[i] > ranks[j]) - (ranks[i] < ranks[j]) for ranks in rankings]
        for i, j in combinations(range(sizes.pop() if sizes else 0), 2)
    ]


def agreements(labels: Labels[int]) -> list[bool]:
    """Return, for every two annotators of every item, whether their labels are equal.

    A tie, label 0, is no opinion: it is left out (Stiennon et al., 2020).
    """
    return [a == b for row in labels for a, b in combinations(row, 2) if a and b]


def pairwise_agreement(tasks: Sequence[Labels[int]]) -> Share:
    """Return the share of `agreements` in the `pair_labels` of many tasks, with its interval over tasks."""
    return share_of([agreements(labels) for labels in tasks])


def by_item(rankings: Iterable[Ranking]) -> list[list[Ranks | None]]:
    """Group rankings by prompt and answers: [items][annotators], ranks in the order of the sorted answers.

    Of an annotator's rankings of one item the last counts.
    """
    items: dict[tuple[Conversation, tuple[str, ...]], dict[str | None, Ranks]] = {}
    for ranking in rankings:
        order = sorted(range(len(ranking.completions)), key=lambda i: ranking.completions[i])
        answers = tuple(ranking.completions[i] for i in order)
        by_annotator = items.setdefault((ranking.prompt, answers), {})
        by_annotator[ranking.annotator] = tuple(ranking.ranks[i] for i in order)
    annotators = dict.fromkeys(name for item in items.values() for name in item)
    return [[item.get(name) for name in annotators] for item in items.values()]


def cohen_kappa(labels: Labels[T]) -> float | None:
    """Agreement of two annotators beyond chance: (p_o - p_e) / (1 - p_e) (Cohen, 1960). labels [N][2].

    Items without both labels are left out. None where there are no others, or one label throughout: p_e is 1 there.
    """
    both = [(a, b) for a, b in labels if a is not None and b is not None]
    n = len(both)
    first, second = Counter(a for a, _ in both), Counter(b for _, b in both)
    expected = sum(first[label] * second[label] for label in first)
    if expected == n * n:
        return None
    return (sum(a == b for a, b in both) / n - expected / (n * n)) / (1 - expected / (n * n))


def fleiss_kappa(labels: Labels[T]) -> float | None:
    """Agreement of many annotators beyond chance (Fleiss, 1971). labels [N][A].

    It needs the same number of labels for every item: items with the commonest number, two or more, are counted.
    None where there are none, or only one label is ever used.
    """
    rows = [[label for label in row if label is not None] for row in labels]
    sizes = Counter(len(row) for row in rows if len(row) > 1)
    if not sizes:
        return None
    size = sizes.most_common(1)[0][0]
    rows = [row for row in rows if len(row) == size]
    n, totals = len(rows) * size, Counter(label for row in rows for label in row)
    if max(totals.values()) == n:
        return None
    observed = sum(c * (c - 1) for row in rows for c in Counter(row).values()) / (n * (size - 1))
    expected = sum((total / n) ** 2 for total in totals.values())
    return (observed - expected) / (1 - expected)


def krippendorff_alpha(
    labels: Labels[float], distance: Callable[[float, float], float] = lambda a, b: float(a != b)
) -> float | None:
    """Agreement of any number of annotators: 1 - D_o / D_e (Krippendorff, 2004). labels [N][A].

        D_o = sum over items of   sum_{i != j} d(v_i, v_j) / (m_u - 1)      / n
        D_e = sum over all values sum_{i != j} d(v_i, v_j) / (n - 1)        / n

    Item u has m_u values; items with a single one are left out. distance: 0 or 1 for classes, (a - b)^2 for numbers.
    None where all values are the same: undefined.
    """
    rows = [[value for value in row if value is not None] for row in labels]
    rows = [row for row in rows if len(row) > 1]
    values = [value for row in rows for value in row]
    n, expected = len(values), _disagreement(values, distance)
    if expected == 0:
        return None
    observed = sum(_disagreement(row, distance) / (len(row) - 1) for row in rows)
    return 1 - observed * (n - 1) / expected


def _disagreement(values: Sequence[float], distance: Callable[[float, float], float]) -> float:
    """Sum of the distances of all ordered pairs of the values."""
    counts = Counter(values)
    return sum(counts[a] * counts[b] * distance(a, b) for a in counts for b in counts)


def bootstrap_interval(
    statistic: Callable[[Labels[T]], float | None], tasks: Sequence[Labels[T]], generator: torch.Generator, n: int = 200
) -> tuple[float, float] | None:
    """Percentile interval (low, high), 95 %, of a statistic of labels over n resamples of whole tasks.

    None where it is undefined: with fewer than FEW tasks, where all resamples give the same (as where all annotators
    always agree), and where fewer than half of the resamples define the statistic.
    """
    values = []
    for _ in range(n if len(tasks) >= FEW else 0):
        drawn = torch.randint(len(tasks), (len(tasks),), generator=generator).tolist()
        value = statistic([row for i in drawn for row in tasks[i]])
        if value is not None:
            values.append(value)
    if 2 * len(values) < n or min(values) == max(values):
        return None
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(values, dtype=torch.float64), ends).tolist()
    return low, high
