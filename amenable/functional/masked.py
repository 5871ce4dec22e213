"""Masked sums, means and variances. A mask is True where a token counts; without one (None) all of them do, which takes
a fraction of the operations.

Numbers outside the mask, nan and inf included, reach neither a value nor a gradient: they are replaced before anything
is computed, never multiplied by zero. Letters: B rows, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8
"""added to the variance in `standardize` and `scale`, as in lm-human-preferences"""


def zero_outside(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x where the mask is True, 0 elsewhere; same shape."""
    if mask is None:
        return x
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    """Sum of x over the mask, over everything or along one dimension; 0 where nothing counts."""
    inside = zero_outside(x, mask)
    return inside.sum() if dim is None else inside.sum(dim)


def masked_mean(x: Tensor, mask: Tensor | None, dim: int | None = None) -> Tensor:
    """Mean of x over the mask, over everything or along one dimension.

    A row in which nothing counts carries no weight: it adds nothing to the mean over everything, and along a dimension
    its own mean is 0, without gradient. A mask that is False everywhere raises ValueError: such a mean does not exist.
    """
    if mask is None:
        return x.mean() if dim is None else x.mean(dim)
    if not mask.any():
        raise ValueError("the mask is empty: a mean over nothing does not exist")
    count = mask.expand_as(x).sum() if dim is None else mask.expand_as(x).sum(dim).clamp(min=1)
    return masked_sum(x, mask, dim) / count


def masked_var(x: Tensor, mask: Tensor | None) -> Tensor:
    """Population variance (divided by n, not n - 1) over the mask, a scalar."""
    centered = zero_outside(x, mask) - masked_mean(x, mask)
    return masked_mean(centered.square(), mask)


def standardize(x: Tensor, mask: Tensor | None) -> Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the mask: mean 0, variance 1. Same shape, 0 outside the mask."""
    centered = zero_outside(x, mask) - masked_mean(x, mask)
    return zero_outside(centered * torch.rsqrt(masked_var(x, mask) + EPSILON), mask)


def scale(x: Tensor, mask: Tensor | None) -> Tensor:
    """`standardize`, with the mean put back: variance 1, the mean as it was. Same shape, 0 outside the mask."""
    return zero_outside(standardize(x, mask) + masked_mean(x, mask), mask)


def segment_sums(x: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sum of x [M] over each of `count` segments; segments [M]: each number's, from 0. -> [count]."""
    return torch.zeros(count, dtype=x.dtype, device=x.device).index_add(0, segments, x)


def segment_means(x: Tensor, segments: Tensor, count: int) -> Tensor:
    """Mean of x [M] over each of `count` segments, none of them empty; segments [M]: each number's, from 0."""
    return segment_sums(x, segments, count) / segment_sums(torch.ones_like(x), segments, count)
