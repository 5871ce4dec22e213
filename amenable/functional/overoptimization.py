"""Scaling laws of reward-model over-optimization: gold against d, the root of the KL to the starting policy.

    best of n               gold(d) - gold(0) = d (alpha - beta d)          highest at d = alpha / 2 beta
    reinforcement learning  gold(d) - gold(0) = d (alpha - beta log d)      highest at log d = alpha / beta - 1

beta > 0 says that gold falls in the end. Gao, Schulman and Hilton (2022, "Scaling laws for reward model
overoptimization", section 3.1).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Law = Literal["best-of-n", "rl"]


def fit_law(distances: Tensor, gains: Tensor, law: Law) -> tuple[Tensor, Tensor]:
    """Return alpha, beta [D] of the law with the least squared error.

    distances: d > 0 [S]; gains [D, S]: D draws of gold less that of the start, at each d. ValueError for fewer than two
    different distances, or one that is not above 0.
    """
    if not bool((distances > 0).all()) or len(distances.unique()) < 2:
        raise ValueError(f"a law needs two or more distances above 0, not {distances.tolist()}")
    d = distances.double()
    bend = d.square() if law == "best-of-n" else d * d.log()
    solution = torch.linalg.lstsq(torch.stack([d, -bend], dim=1), gains.double().T).solution
    return solution[0], solution[1]


def law_at(distance: float, alpha: float, beta: float, law: Law) -> float:
    """Return the gain of gold at a distance d > 0 by the law."""
    return distance * (alpha - beta * (distance if law == "best-of-n" else math.log(distance)))


def peak_distance(alpha: float, beta: float, law: Law) -> float:
    """Return the d at which the law is highest; infinite for beta <= 0, 0 for best of n with alpha <= 0."""
    if beta <= 0:
        return math.inf
    if law == "best-of-n":
        return max(0.0, alpha / (2 * beta))
    exponent = alpha / beta - 1
    return math.exp(exponent) if exponent < 100 else math.inf


def bootstrap_gains(values: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return gains [1 + draws, S - 1] over the first of S settings: of the N prompts, then of resamples of them.

    values [S, N]: a figure of each prompt at each setting; whole prompts are drawn, with all their settings.
    """
    count = values.shape[1]
    resampled = torch.randint(count, (draws, count), generator=generator)
    chosen = torch.cat([torch.arange(count)[None], resampled])
    gains = (values[1:] - values[:1]).double()
    return gains[:, chosen].mean(-1).T
