"""Agreement of annotators: on pairs of answers, and beyond what chance would give.

Statistics take labels [N, A], N items by A annotators, nan where an annotator has not labelled an item, and weights
[..., N], how often each item counts (once by default); they return [...], nan where undefined. Rankings become labels
by `pair_labels`, whose items are pairs of answers. Pairs of one task are not independent: intervals are over tasks,
each with labels of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from amenable.data.types import Conversation, Ranking
from amenable.functional.statistics import FEW, clustered_share

Ranks = Sequence[float]


@dataclass(frozen=True)
class Share:
    """Mean of n numbers from 0 to 1, with its 95 % interval; None where there are none."""

    share: float | None
    low: float | None
    high: float | None
    n: int


def share_of(groups: Sequence[Tensor]) -> Share:
    """Return the mean of all numbers in all groups; its interval (`clustered_share`) is over groups."""
    sizes = torch.tensor([len(group) for group in groups])
    n = int(sizes.sum())
    if n == 0:
        return Share(None, None, None, 0)
    clusters = torch.arange(len(groups)).repeat_interleave(sizes)
    return Share(*clustered_share(torch.cat(tuple(groups)), clusters), n)


def pair_labels(rankings: Sequence[Ranks | None]) -> Tensor:
    """Return labels [pairs, A] of the rankings [A][K] of K answers by A annotators, for each pair of answers.

    -1: the first answer of the pair is better, 0: tied, 1: the second is better. ValueError for different K.
    """
    sizes = {len(ranks) for ranks in rankings if ranks is not None}
    if len(sizes) > 1:
        raise ValueError(f"rankings of {' and '.join(map(str, sorted(sizes)))} answers")
    size = sizes.pop() if sizes else 0
    ranks = torch.tensor([[nan] * size if row is None else list(row) for row in rankings], dtype=torch.float64)
    first, second = torch.triu_indices(size, size, 1)
    gaps = (ranks[:, first] - ranks[:, second]).T
    return gaps.sign().where(gaps.isfinite(), nan)


def agreements(labels: Tensor) -> Tensor:
    """Return, for every two annotators of every item, 1 where their labels are equal, else 0. labels [N, A].

    A tie, label 0, is no opinion: it is left out (Stiennon et al., 2020).
    """
    first, second = torch.triu_indices(labels.shape[1], labels.shape[1], 1)
    a, b = labels[:, first], labels[:, second]
    return (a == b)[(a * b).nan_to_num() != 0].double()


def pairwise_agreement(tasks: Sequence[Tensor]) -> Share:
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


def cohen_kappa(labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Agreement of two annotators beyond chance: (p_o - p_e) / (1 - p_e) (Cohen, 1960). labels [N, 2].

    Items without both labels are left out. nan where there are no others, or one label throughout: p_e is 1 there.
    """
    indicators = _indicators(labels)[1]
    both = indicators[:, 0, :, None] * indicators[:, 1, None]
    confusion = (_weights(labels, weights) @ both.flatten(1)).unflatten(-1, both.shape[1:])
    n = confusion.sum((-1, -2))
    observed = confusion.diagonal(dim1=-1, dim2=-2).sum(-1) / n
    expected = (confusion.sum(-1) * confusion.sum(-2)).sum(-1) / (n * n)
    return (observed - expected) / (1 - expected)


def fleiss_kappa(labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Agreement of many annotators beyond chance (Fleiss, 1971). labels [N, A].

    It needs the same number of labels for every item: items with the commonest number, two or more, are counted.
    nan where there are none, or only one label is ever used.
    """
    counts, weights = _indicators(labels)[1].sum(1), _weights(labels, weights)
    sizes, known = counts.sum(1), torch.arange(2, labels.shape[1] + 1)
    size = known[(weights @ (sizes[:, None] == known).double()).argmax(-1, keepdim=True)]
    weights = weights * (sizes == size)
    totals = weights @ counts
    n = totals.sum(-1)
    observed = weights @ (counts * (counts - 1)).sum(1) / (n * (size[..., 0] - 1))
    expected = (totals / n[..., None]).square().sum(-1)
    return (observed - expected) / (1 - expected)


def krippendorff_alpha(
    labels: Tensor, weights: Tensor | None = None, distance: Callable[[Tensor, Tensor], Tensor] = torch.ne
) -> Tensor:
    """Agreement of any number of annotators: 1 - D_o / D_e (Krippendorff, 2004). labels [N, A].

        D_o = sum over items of   sum_{i != j} d(v_i, v_j) / (m_u - 1)      / n
        D_e = sum over all values sum_{i != j} d(v_i, v_j) / (n - 1)        / n

    Item u has m_u values; items with a single one are left out. distance: 0 or 1 for classes, (a - b)^2 for numbers.
    nan where all values are the same: undefined.
    """
    classes, indicators = _indicators(labels)
    counts, distances = indicators.sum(1), distance(classes[:, None], classes).double()
    others = counts.sum(1) - 1
    weights = _weights(labels, weights) * (others > 0)
    totals = weights @ counts
    observed = weights @ (((counts @ distances) * counts).sum(1) / others.clamp(min=1))
    expected = ((totals @ distances) * totals).sum(-1) / (totals.sum(-1) - 1)
    return 1 - observed / expected


def _indicators(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the C different labels [C], and labels [N, A] as 0 and 1 [N, A, C], all 0 for a missing label."""
    classes = labels[~labels.isnan()].unique()
    return classes, (labels[..., None] == classes).double()


def _weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weights of N items, or ones."""
    return torch.ones(len(labels), dtype=torch.float64) if weights is None else weights


def bootstrap_interval(
    statistic: Callable[[Tensor, Tensor], Tensor], tasks: Sequence[Tensor], generator: torch.Generator, n: int = 200
) -> tuple[float, float] | None:
    """Percentile interval (low, high), 95 %, of a statistic of labels over n resamples of whole tasks.

    None where it is undefined: with fewer than FEW tasks, where all resamples give the same (as where all annotators
    always agree), and where fewer than half of the resamples define the statistic.
    """
    if len(tasks) < FEW:
        return None
    drawn = torch.randint(len(tasks), (n, len(tasks)), generator=generator)
    times = torch.zeros(n, len(tasks), dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    sizes = torch.tensor([len(labels) for labels in tasks])
    values = statistic(torch.cat(tuple(tasks)), times.repeat_interleave(sizes, dim=1))
    values = values[values.isfinite()]
    if 2 * len(values) < n or values.min() == values.max():
        return None
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
