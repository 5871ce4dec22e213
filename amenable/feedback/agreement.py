"""How far annotators agree: on pairs of answers, and beyond what chance would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import torch

from amenable.data.types import Conversation, Ranking
from amenable.functional.statistics import FEW, clustered_share

T = TypeVar("T")


@dataclass(frozen=True)
class Agreement:
    """Share of pairs on which two annotators agree, with its 95 % interval; all None where no pair can be compared."""

    share: float | None
    low: float | None
    high: float | None
    pairs: int


def agreeing_pairs(first: Sequence[float], second: Sequence[float]) -> list[bool]:
    """For every pair of answers that both rankings order strictly: do they order it alike? Ranks [K] and [K].

    A tie is no opinion: such a pair is left out (Stiennon et al., 2020).
    """
    if len(first) != len(second):
        raise ValueError(f"rankings of {len(first)} and {len(second)} answers")
    return [
        (first[i] < first[j]) == (second[i] < second[j])
        for i, j in combinations(range(len(first)), 2)
        if first[i] != first[j] and second[i] != second[j]
    ]


def agreement(items: Sequence[Sequence[Sequence[float]]]) -> Agreement:
    """Agreement of any two annotators over many items: items[i] holds one ranking of item i's answers per annotator.

    The mean is over pairs of answers; the interval (`clustered_share`) is over items, whose pairs are not independent.
    """
    hits: list[float] = []
    owners: list[int] = []
    for number, rankings in enumerate(items):
        for first, second in combinations(rankings, 2):
            alike = agreeing_pairs(first, second)
            hits += map(float, alike)
            owners += [number] * len(alike)
    if not hits:
        return Agreement(None, None, None, 0)
    share, low, high = clustered_share(torch.tensor(hits), torch.tensor(owners))
    return Agreement(share, low, high, len(hits))


def by_item(rankings: Iterable[Ranking]) -> list[list[tuple[float, ...]]]:
    """Rankings of the same answers to the same prompt put together, as `agreement` takes them.

    The answers may have been listed in any order. Of an annotator's rankings of one item the last counts.
    """
    items: dict[tuple[Conversation, tuple[str, ...]], dict[str | None, tuple[float, ...]]] = {}
    for ranking in rankings:
        order = sorted(range(len(ranking.completions)), key=lambda i: ranking.completions[i])
        answers = tuple(ranking.completions[i] for i in order)
        annotators = items.setdefault((ranking.prompt, answers), {})
        annotators[ranking.annotator] = tuple(ranking.ranks[i] for i in order)
    return [list(annotators.values()) for annotators in items.values()]


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance: (p_o - p_e) / (1 - p_e), of a label each for N things (Cohen, 1960).

    None where both use one label throughout: p_e is 1 and kappa is undefined, neither 0 nor 1.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} labels")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second)) / n
    ours, theirs = Counter(first), Counter(second)
    if sum(ours[label] * theirs[label] for label in ours) == n * n:
        return None
    expected = sum(ours[label] * theirs[label] for label in ours) / (n * n)
    return (observed - expected) / (1 - expected)


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float | None:
    """Agreement of many raters beyond chance (Fleiss, 1971): counts[i][c] raters put thing i into class c.

    Every thing has the same number of raters, two or more. None where only one class is ever used: undefined.
    """
    raters = sum(counts[0]) if counts else 0
    if raters < 2 or any(sum(row) != raters for row in counts):
        raise ValueError("every thing needs the same number of raters, two or more")
    things = len(counts)
    observed = sum(sum(c * (c - 1) for c in row) for row in counts) / (things * raters * (raters - 1))
    totals = [sum(column) for column in zip(*counts)]
    if max(totals) == things * raters:
        return None
    expected = sum((total / (things * raters)) ** 2 for total in totals)
    return (observed - expected) / (1 - expected)


def krippendorff_alpha(
    units: Sequence[Sequence[float]], distance: Callable[[float, float], float] = lambda a, b: float(a != b)
) -> float | None:
    """Agreement of any number of raters, some of whom may be missing: 1 - D_o / D_e (Krippendorff, 2004).

        D_o = sum over units of   sum_{i != j} d(v_i, v_j) / (m_u - 1)      / n
        D_e = sum over all values sum_{i != j} d(v_i, v_j) / (n - 1)        / n

    units[u] holds the m_u values that unit u was given; units of one value say nothing and are left out. distance: 0 or
    1 for classes, (a - b)^2 for numbers. None where all values are the same: undefined.
    """
    shared = [unit for unit in units if len(unit) > 1]
    counts = Counter(value for unit in shared for value in unit)
    n = sum(counts.values())
    expected = sum(counts[a] * counts[b] * distance(a, b) for a in counts for b in counts)
    if n < 2 or expected == 0:
        return None
    observed = 0.0
    for unit in shared:
        own = Counter(unit)
        observed += sum(own[a] * own[b] * distance(a, b) for a in own for b in own) / (len(unit) - 1)
    return 1 - observed * (n - 1) / expected


def resampled(
    statistic: Callable[[Sequence[T]], float | None], groups: Sequence[T], generator: torch.Generator, n: int = 200
) -> tuple[float, float] | None:
    """Percentile interval (low, high), 95 %, of a statistic over n resamples of whole groups (such as tasks).

    None where it cannot be told so: with fewer than FEW groups, where all resamples give the same (as where everybody
    always agrees), and where fewer than half of them define it.
    """
    values = []
    for _ in range(n if len(groups) >= FEW else 0):
        drawn = torch.randint(len(groups), (len(groups),), generator=generator).tolist()
        value = statistic([groups[i] for i in drawn])
        if value is not None:
            values.append(value)
    if 2 * len(values) < n or min(values) == max(values):
        return None
    low, high = torch.quantile(
        torch.tensor(values, dtype=torch.float64), torch.tensor([0.025, 0.975]).double()
    ).tolist()
    return low, high
