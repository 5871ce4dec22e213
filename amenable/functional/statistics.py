"""How sure a number is: intervals for shares and means, calibration, and what a value function explains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.functional.masked import masked_var

Z95 = 1.959964
"""standard deviations on either side of a normal mean that hold 95 %"""


def wilson(wins: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval (low, high) of a share of `wins` out of n (Wilson, 1927); (0, 1) for n = 0. A tie may be half a win.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    if not 0 <= wins <= n:
        raise ValueError(f"{wins} wins out of {n}")
    if n == 0:
        return 0.0, 1.0
    p = wins / n
    center, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    below, above = (center - reach) / (1 + z * z / n), (center + reach) / (1 + z * z / n)
    return max(0.0, below), min(1.0, above)


def binomial_p_value(wins: int, n: int, p: float = 0.5) -> float:
    """Chance of a result at most as likely as `wins` out of n, each won with probability p (exact, two-sided)."""
    if not 0 <= wins <= n or not 0 < p < 1:
        raise ValueError(f"{wins} wins out of {n} at probability {p}")
    log_chance = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]
    seen = log_chance[wins] + 1e-9  # equally likely results differ in their last digits
    return min(1.0, math.fsum(math.exp(chance) for chance in log_chance if chance <= seen))


def mean_interval(values: Tensor, z: float = Z95) -> tuple[float, float, float]:
    """Mean and its normal interval (mean, low, high) of values [N]; the interval of a single value is infinite."""
    values = values.double().flatten()
    if values.numel() == 0:
        raise ValueError("the mean of no values")
    mean = float(values.mean())
    if values.numel() == 1:
        return mean, -math.inf, math.inf
    reach = z * float(values.std()) / math.sqrt(values.numel())
    return mean, mean - reach, mean + reach


def bootstrap_mean(
    values: Tensor, generator: torch.Generator, n: int = 1000, clusters: Tensor | None = None, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean and its percentile interval (mean, low, high) over n resamples of values [N].

    With clusters [N] (which prompt a value belongs to) whole clusters are drawn, not single values: those of one prompt
    are not independent, and drawing them one by one gives intervals that are too narrow.
    """
    values = values.to(generator.device, torch.float64).flatten()
    if values.numel() == 0:
        raise ValueError("the mean of no values")
    sums, counts = values, torch.ones_like(values)
    if clusters is not None:
        _, owner = clusters.to(values.device).flatten().unique(return_inverse=True)
        groups = int(owner.max()) + 1
        sums = values.new_zeros(groups).index_add_(0, owner, values)
        counts = torch.bincount(owner, minlength=groups).to(values)
    means = torch.empty(n, dtype=torch.float64, device=values.device)
    for i in range(n):
        drawn = torch.randint(len(sums), (len(sums),), generator=generator, device=values.device)
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    tail = (1 - level) / 2
    low, high = torch.quantile(means, means.new_tensor([tail, 1 - tail])).tolist()
    return float(values.mean()), low, high


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - var(returns - values) / var(returns) over the mask, a scalar; all [B, T]. nan where returns do not vary.

    1: the values are the returns, up to a constant. 0: no better than a constant. Below 0: worse than one.
    """
    variance = masked_var(returns, mask)
    return torch.where(variance > 0, 1 - masked_var(returns - values, mask) / variance, torch.nan)


@dataclass(frozen=True)
class Calibration:
    """Predicted against observed shares in bins of equal width over [0, 1]; empty bins are left out."""

    predicted: list[float]
    """mean prediction of each bin"""
    observed: list[float]
    """share that came true in each bin"""
    counts: list[int]
    error: float
    """expected calibration error: mean |predicted - observed|, weighted by the counts"""


def calibration(probabilities: Tensor, outcomes: Tensor, bins: int = 10) -> Calibration:
    """Do things said to happen with probability p happen so often? probabilities [N] in [0, 1], outcomes [N] 0 to 1.

    The expected calibration error is that of Naeini et al. (2015). For a reward model give sigma(|gap|), and 1 where
    the better answer is ahead.
    """
    p, seen = probabilities.double().flatten(), outcomes.double().flatten()
    if p.numel() == 0 or p.shape != seen.shape:
        raise ValueError(f"{p.numel()} probabilities and {seen.numel()} outcomes")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ValueError("probabilities outside [0, 1]")
    place = (p * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(place, minlength=bins)
    predicted, observed = (torch.bincount(place, weights=x, minlength=bins) / counts for x in (p, seen))
    filled = counts > 0
    gaps = (predicted - observed).abs()[filled]
    return Calibration(
        predicted=predicted[filled].tolist(),
        observed=observed[filled].tolist(),
        counts=counts[filled].tolist(),
        error=float((gaps * counts[filled]).sum() / p.numel()),
    )


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: nats between the best of n samples and one sample (Stiennon et al., 2020, appendix G.3).

    Exact where no two samples score the same, else an upper bound.
    """
    if n < 1:
        raise ValueError(f"the best of {n}")
    return math.log(n) - (n - 1) / n
