"""Calibration of probabilities: expected calibration error, bins of a reliability diagram, area under the ROC."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amenable.functional.statistics import mean_ranks

BINS = 10
"""of equal width, as in Guo et al. (2017)"""
RESAMPLES, BLOCK = 1000, 50
"""resamples of an interval, and those that are computed at once"""


def reliability(confidence: Tensor, hits: Tensor, bins: int = BINS) -> list[dict[str, float]]:
    """Return the bins of a reliability diagram that are not empty: mean confidence (`predicted`), share of right
    answers (`actual`) and `count`.

    confidence: probabilities [N]. hits: 1 for a right answer, else 0, [N]. bins: of equal width in [0, 1].
    """
    owner = _bins_of(confidence, bins)
    parts = [(confidence[owner == i].double(), hits[owner == i].double()) for i in range(bins)]
    return [
        {"predicted": float(own.mean()), "actual": float(right.mean()), "count": len(own)}
        for own, right in parts
        if len(own)
    ]


def calibration_error(
    confidence: Tensor, hits: Tensor, generator: torch.Generator, bins: int = BINS
) -> tuple[float, float, float]:
    """Expected calibration error and its bootstrap interval (error, low, high), 0 to 1 (Naeini et al., 2015; Guo et
    al., 2017). confidence, hits, bins: as in `reliability`. A single row has an infinite interval.

        sum_b |B_b| / N |mean confidence in b - share right in b|  =  sum_b |sum_{i in b} (p_i - y_i)| / N

    The error is never below 0, so resamples are above it on average: the interval is the basic one, of the differences
    from the error (2 error - quantile), cut at 0.
    """
    owner, gaps = _bins_of(confidence, bins), confidence.double() - hits.double()
    count = len(gaps)
    error = _error(owner[None], gaps[None], bins)
    if count == 1:
        return float(error), -math.inf, math.inf
    errors = []
    for _ in range(RESAMPLES // BLOCK):
        drawn = torch.randint(count, (BLOCK, count), generator=generator)
        errors.append(_error(owner[drawn], gaps[drawn], bins))
    low, high = torch.quantile(torch.cat(errors), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    value = float(error)
    return value, max(0.0, 2 * value - high), max(value, 2 * value - low)


def expected_calibration_error(confidence: Tensor, hits: Tensor, bins: int = BINS) -> float:
    """Expected calibration error alone, as `calibration_error` has it."""
    owner, gaps = _bins_of(confidence, bins), confidence.double() - hits.double()
    return float(_error(owner[None], gaps[None], bins))


def _error(owner: Tensor, gaps: Tensor, bins: int) -> Tensor:
    """Expected calibration errors [R] of rows of bins and of confidence less hit, both [R, N]."""
    sums = gaps.new_zeros(len(gaps), bins).scatter_add_(1, owner, gaps)
    return sums.abs().sum(1) / gaps.shape[1]


def _bins_of(confidence: Tensor, bins: int) -> Tensor:
    """Bin of each probability [N]; ValueError for none, or for one outside of [0, 1]."""
    if not len(confidence) or not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("confidence holds probabilities, at least one")
    return (confidence.double() * bins).long().clamp(max=bins - 1)


def auroc(scores: Tensor, hits: Tensor) -> float:
    """Area under the ROC: probability that a right answer scores higher than a wrong one, ties half (Mann and Whitney,
    1947). scores, hits (1 for right, else 0): [N]. nan where all are right, or all wrong.

        (sum of the ranks of the right - n (n + 1) / 2) / (n m),    n right, m wrong
    """
    right = hits.bool()
    n, m = int(right.sum()), int((~right).sum())
    if not n or not m:
        return math.nan
    return (float(mean_ranks(scores)[right].sum()) - n * (n + 1) / 2) / (n * m)
