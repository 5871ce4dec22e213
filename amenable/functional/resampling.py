"""A model's samples, weighted by the optimum of a KL-penalised reward, and what that optimum reaches.

    pi*(y) = pi_ref(y) exp(r(y) / beta) / Z  maximises  E r - beta KL(pi || pi_ref);  Z = E_{y ~ ref} exp(r(y) / beta)

Rafailov et al. (2023, equation 4). Samples of pi_ref, drawn again by exp(r / beta), are samples of pi* (Rubin, 1988,
sampling-importance resampling; Liu et al., 2024, RSO). An answer may have a weight of its own beside that: where it is
not sampled to its end, the probability that it ends there, which is its expectation (Rao and Blackwell).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def optimum_probabilities(rewards: Tensor, log_weights: Tensor, kl_coef: float) -> Tensor:
    """Return the probability under pi* of each answer to a prompt, [N]. rewards, log_weights [N]; kl_coef: beta > 0."""
    return torch.softmax(log_weights + rewards / kl_coef, dim=0)


def optimum(rewards: Tensor, log_weights: Tensor, kl_coef: float, samples: int) -> tuple[float, float]:
    """Return E r and KL(pi* || pi_ref) of pi*, in nats, by the answers to a prompt.

    rewards, log_weights [N]: of the answers that `samples` samples of pi_ref gave. The KL is at most log(sum of the
    weights / the least), so that few samples understate it where the reward is rare.
    """
    reward = float(optimum_probabilities(rewards, log_weights, kl_coef) @ rewards)
    log_z = float(torch.logsumexp(log_weights + rewards / kl_coef, dim=0)) - math.log(samples)
    return reward, max(0.0, reward / kl_coef - log_z)
