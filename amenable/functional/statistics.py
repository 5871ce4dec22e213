"""How sure a number is: intervals for shares and means, calibration, and what a value function explains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.functional.masked import masked_var

Z95 = 1.959964
"""standard deviations on either side of a normal mean that hold 95 %"""
T95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""the same of Student's t with 1 to 9 degrees of freedom"""
FEW = 10
"""clusters, below which their spread says little of how sure their mean is"""


def wilson(wins: float, n: float, z: float = Z95) -> tuple[float, float]:
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


def clustered_share(values: Tensor, clusters: Tensor) -> tuple[float, float, float]:
    """Mean and interval (share, low, high) of values [N] from 0 to 1 in clusters [N], such as the pairs of a prompt.

    Wilson's interval for as many independent values as these are worth (Korn and Graubard, 1998): p (1 - p) / V, with
    the variance V of p over C clusters of n_c values, S_c their sum,

        V = C / (C - 1) sum_c (S_c - p n_c)^2 / N^2

    and no more than N. With fewer than FEW clusters, or where all have the same mean, V tells nothing: a cluster then
    counts as a single value (N^2 / sum_c n_c^2 values, which is C where all are of one size).
    """
    sums, counts = _by_cluster(values, clusters)
    n, share = float(counts.sum()), float(sums.sum() / counts.sum())
    worth = n * n / float(counts.square().sum())
    variance = _ratio_variance(sums, counts)
    if len(sums) >= FEW and variance > 0:
        worth = min(n, share * (1 - share) / variance)
    return (share, *wilson(share * worth, worth))


def _by_cluster(values: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and counts [C] of values [N] in clusters [N]."""
    if values.numel() == 0:
        raise ValueError("the mean of no values")
    values = values.double().flatten()
    _, owner = clusters.to(values.device).flatten().unique(return_inverse=True)
    counts = torch.bincount(owner).double()
    return torch.zeros_like(counts).index_add_(0, owner, values), counts


def _ratio_variance(sums: Tensor, counts: Tensor) -> float:
    """V of `clustered_share`: that of sum(sums) / sum(counts) [C] over clusters; infinite for one cluster."""
    size, mean = len(sums), sums.sum() / counts.sum()
    if size == 1:
        return math.inf
    return float(size / (size - 1) * (sums - mean * counts).square().sum() / counts.sum().square())


def t95(degrees: int) -> float:
    """97.5 % quantile of Student's t with 1 or more degrees of freedom, to 0.003.

    z + (z^3 + z) / 4d + (5 z^5 + 16 z^3 + 3 z) / 96 d^2 from 10 degrees on (Abramowitz and Stegun, 1964, 26.7.5).
    """
    if degrees <= len(T95):
        return T95[degrees - 1]
    z = Z95
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


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


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """Mean and its t interval (mean, low, high) of values [N]; the interval of a single value is infinite."""
    values = values.double().flatten()
    if values.numel() == 0:
        raise ValueError("the mean of no values")
    mean = float(values.mean())
    if values.numel() == 1:
        return mean, -math.inf, math.inf
    reach = t95(values.numel() - 1) * float(values.std()) / math.sqrt(values.numel())
    return mean, mean - reach, mean + reach


def bootstrap_mean(
    values: Tensor, generator: torch.Generator, n: int = 1000, clusters: Tensor | None = None
) -> tuple[float, float, float]:
    """Mean and its percentile interval (mean, low, high) over n resamples of values [N]; infinite for a single cluster.

    With clusters [N] (which prompt a value belongs to) whole clusters are drawn, not single values: those of one prompt
    are not independent, and drawing them one by one gives intervals that are too narrow.

    Percentiles are expanded for C clusters (Hesterberg, 2015): those of t instead of the normal distribution, times
    sqrt(C / (C - 1)), since resamples vary too little by that. Of few clusters the ends are the extreme resamples.
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
    if len(sums) == 1:
        return float(values.mean()), -math.inf, math.inf
    reach = t95(len(sums) - 1) * math.sqrt(len(sums) / (len(sums) - 1))
    tail = math.erfc(reach / math.sqrt(2)) / 2
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
