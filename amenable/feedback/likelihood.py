"""Maxima of concave log-likelihoods, and profile-likelihood intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DROP95 = 1.920729
"""by which the log-likelihood is lower at the ends of a 95 % interval: half of chi-squared's 95 % quantile, 1 degree"""


@dataclass(frozen=True)
class Likelihood:
    """A concave log-likelihood of weights [P]."""

    value: Callable[[Tensor], Tensor]
    """weights [P] -> scalar"""
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]]
    """weights [P] -> gradient [P], negative Hessian [P, P], which has an inverse"""
    scale: float = 1.0
    """number of observations: a gradient below 1e-10 of it is zero"""


def maximize(likelihood: Likelihood, start: Tensor, held: Tensor | None = None) -> Tensor:
    """Return the weights [P] of the greatest likelihood, from `start` [P], by Newton's method with halved steps.

    held [P]: a direction along which the weights stay where they start, held . weights = held . start.
    """
    at = start
    for _ in range(200):
        gradient, curvature = likelihood.slopes(at)
        free = gradient if held is None else gradient - held * (held @ gradient) / (held @ held)
        if free.abs().max() < 1e-10 * max(1.0, likelihood.scale):
            break
        step = torch.linalg.solve(curvature, gradient)
        if held is not None:
            across = torch.linalg.solve(curvature, held)
            step = step - across * (held @ step) / (held @ across)
        before = likelihood.value(at)
        while likelihood.value(at + step) < before - 1e-12 * before.abs():
            step = step / 2
        at = at + step
    return at


def profile_interval(
    likelihood: Likelihood, best: Tensor, contrast: Tensor, drop: float = DROP95
) -> tuple[float, float]:
    """Return the ends (low, high) of contrast . weights with a likelihood within `drop` of its maximum, at `best`.

    best, contrast: [P]. The profile likelihood (Venzon and Moolgavkar, 1988) must fall below any bound on both sides,
    as it does with a prior on every weight.
    """
    low, high = (_profile_end(likelihood, best, contrast, side, drop) for side in (-1.0, 1.0))
    return low, high


def _profile_end(likelihood: Likelihood, best: Tensor, contrast: Tensor, side: float, drop: float) -> float:
    """Value v beyond contrast . best at which max {likelihood(w): contrast . w = v} is `drop` below the maximum.

    That profile is concave in v: a step of Newton's method from anywhere leads to the outer side of its root, and
    further steps approach the root steadily. Its slope is the multiplier of the constraint.
    """
    across = torch.linalg.solve(likelihood.slopes(best)[1], contrast)
    variance, top = contrast @ across, likelihood.value(best)
    value, at = contrast @ best + side * (2 * drop * variance).sqrt(), best
    for _ in range(200):
        at = maximize(likelihood, at + across * (value - contrast @ at) / variance, held=contrast)
        beyond = top - drop - likelihood.value(at)
        if beyond.abs() < 1e-6:
            break
        slope = contrast @ likelihood.slopes(at)[0] / (contrast @ contrast)
        value = value + beyond / slope
    return float(value)
