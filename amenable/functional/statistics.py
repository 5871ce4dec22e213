"""Confidence intervals of shares, means and other statistics, paired tests and their correction,
correlations, the explained variance of a value function, and the KL of best-of-n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from amenable.functional.masked import masked_var

Z95 = 1.959964
"""97.5 % quantile of the normal distribution: half the width of a 95 % interval in standard deviations"""
T95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5 % quantiles of Student's t with 1 to 9 degrees of freedom"""
FEW = 10
"""clusters, below which the spread between them is too uncertain to use"""


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


def decisive_size(share: float, z: float = Z95) -> float:
    """Return the least n for which the interval of a share p (`wilson`) leaves out one half; infinite for a half.

    |p - 1/2| > z sqrt(1/4n), the score test, which Wilson's interval inverts:   n > z^2 / (2p - 1)^2
    """
    return math.inf if share == 0.5 else math.floor(z * z / (2 * share - 1) ** 2) + 1


def clustered_share(values: Tensor, clusters: Tensor) -> tuple[float, float, float]:
    """Mean and interval (share, low, high) of values [N] from 0 to 1 in clusters [N], such as the pairs of a prompt.

    Wilson's interval with the effective sample size (Korn and Graubard, 1998) p (1 - p) / V, at most N, where V is the
    variance of p over C clusters of n_c values with sums S_c:

        V = C / (C - 1) sum_c (S_c - p n_c)^2 / N^2

    With fewer than FEW clusters, or where all have the same mean, V is not used: a cluster then counts as a single
    value (N^2 / sum_c n_c^2 values, which is C where all clusters have one size).
    """
    sums, counts = _by_cluster(values, clusters)
    n, share = float(counts.sum()), float(sums.sum() / counts.sum())
    effective = n * n / float(counts.square().sum())
    variance = _ratio_variance(sums, counts)
    if len(sums) >= FEW and variance > 0:
        effective = min(n, share * (1 - share) / variance)
    return (share, *wilson(share * effective, effective))


def _by_cluster(values: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums and counts [C] of values [N] in clusters [N]; ValueError for no values."""
    if values.numel() == 0:
        raise ValueError("the mean of no values")
    values = values.double().flatten()
    _, owner = clusters.to(values.device).flatten().unique(return_inverse=True)
    counts = torch.bincount(owner).double()
    return torch.zeros_like(counts).index_add_(0, owner, values), counts


def _ratio_variance(sums: Tensor, counts: Tensor) -> float:
    """Variance V in `clustered_share`, of sum(sums) / sum(counts) [C] over clusters; infinite for a single cluster."""
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

    With clusters [N] (each value's prompt) whole clusters are drawn, not single values: values of one prompt are not
    independent, and drawing them one by one gives intervals that are too narrow.

    Percentiles are expanded for C clusters (Hesterberg, 2015): those of t instead of the normal distribution, times
    sqrt(C / (C - 1)), the factor by which resamples vary too little. With few clusters the ends are the extreme
    resamples.
    """
    values = values.to(generator.device, torch.float64).flatten()
    clusters = torch.arange(len(values)) if clusters is None else clusters
    sums, counts = _by_cluster(values, clusters)
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


def bootstrap(
    statistic: Callable[[Tensor], float], count: int, generator: torch.Generator, n: int = 1000
) -> tuple[float, float, float]:
    """Value of a statistic of `count` rows and its percentile interval (value, low, high) over n resamples; infinite
    where no resample has a value. statistic: indices of rows [count] -> its value, nan where it has none.
    """
    value = statistic(torch.arange(count))
    drawn = torch.randint(count, (n, count), generator=generator)
    values = torch.tensor([statistic(rows) for rows in drawn], dtype=torch.float64)
    values = values[~values.isnan()]
    if not len(values):
        return value, -math.inf, math.inf
    low, high = torch.quantile(values, values.new_tensor([0.025, 0.975])).tolist()
    return value, low, high


def mcnemar(first: int, second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of the rows on which two classifiers differ, `first` are right
    by the first alone, and `second` by the second alone.

    2 sum_{k <= min} C(n, k) / 2^n with n = first + second, at most 1
    """
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**n)


def sign_flip(differences: Tensor, generator: torch.Generator, n: int = 10_000) -> float:
    """Two-sided p-value of a paired randomization test (Fisher, 1935) of differences [N]: where two models are alike,
    each difference is as likely with the other sign.

    (1 + #{|mean of the flipped| >= |mean|}) / (1 + n) over n flips of all signs; 1 where all differences are 0.
    """
    values = differences.double().flatten()
    values = values[values != 0]
    if not len(values):
        return 1.0
    observed = values.sum().abs() * (1 - 1e-12)  # sums of the same numbers in another order round differently
    least, block = 0, 500
    for start in range(0, n, block):
        size = min(block, n - start)
        signs = 1 - 2 * torch.randint(2, (size, len(values)), generator=generator)
        least += int(((signs * values).sum(1).abs() >= observed).sum())
    return (1 + least) / (1 + n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979), in the same order: the k-th least of m times m - k + 1,
    never below those before it, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = most
    return corrected


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - var(returns - values) / var(returns) over the mask, a scalar; all [B, T]. nan where returns do not vary.

    1: the values are the returns, up to a constant. 0: no better than a constant. Below 0: worse than a constant.
    """
    variance = masked_var(returns, mask)
    return torch.where(variance > 0, 1 - masked_var(returns - values, mask) / variance, torch.nan)


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: KL in nats of the best of n samples from one sample (Stiennon et al., 2020, appendix G.3).

    Exact where no two samples score the same, else an upper bound.
    """
    if n < 1:
        raise ValueError(f"the best of {n}")
    return math.log(n) - (n - 1) / n


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two samples [N], Pearson's of their ranks; equal values share their mean rank.

    nan where one of them does not vary.
    """
    return pearson(mean_ranks(first), mean_ranks(second))


def concordance(predicted: Tensor, true: Tensor) -> float:
    """Harrell's concordance index of two samples [N]: the share of pairs with different true values that the predicted
    ones order alike, equal predictions counting one half.

    nan where the true values are all equal. Unlike a rank correlation it can reach 1 where many of them are.
    """
    orders = [(values[:, None] - values[None, :]).sign() for values in (predicted.flatten(), true.flatten())]
    differing = orders[1] > 0
    return float(((orders[0][differing] + 1) / 2).double().mean())


def pearson(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two samples [N]; nan where one of them does not vary."""
    samples = torch.stack([first.double().flatten(), second.double().flatten()])
    centred = samples - samples.mean(dim=1, keepdim=True)
    norms = centred.square().sum(dim=1).prod().sqrt()
    return float((centred[0] * centred[1]).sum() / norms) if norms > 0 else math.nan


def mean_ranks(values: Tensor) -> Tensor:
    """Return the ranks of values [N] from 1, the least first; equal values have the mean of their ranks."""
    _, owner, counts = values.double().flatten().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[owner]
