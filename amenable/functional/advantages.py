"""Advantages: how much better an action was than expected.

Letters: B rows, T steps, P prompts, K samples of a prompt. No gradient is meant to flow through an advantage.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from amenable.functional.masked import zero_outside


def gae(rewards: Tensor, values: Tensor, discounts: Tensor, lam: float, last_value: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16): advantages and value targets, [B, T] each.

        delta_t = r_t + discount_t V_{t+1} - V_t      A_t = delta_t + lam discount_t A_{t+1}      target_t = A_t + V_t

    rewards, values, discounts [B, T]; discounts are gamma, or 0 where nothing follows. last_value [B] is the value
    after the last step.
    """
    next_values = torch.cat([values[:, 1:], last_value[:, None]], dim=1)
    deltas = rewards + discounts * next_values - values
    advantages, running = torch.zeros_like(deltas), torch.zeros_like(last_value)
    for t in reversed(range(deltas.shape[1])):
        advantages[:, t] = running = deltas[:, t] + lam * discounts[:, t] * running
    return advantages, advantages + values


def masked_gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """`gae` over completions of different lengths: advantages and value targets [B, T], 0 outside the mask.

    All inputs are [B, T]. Steps outside the mask do not exist: their numbers are never read, and a step's next one is
    the next inside the mask, without a discount for those between (text that a tool wrote into a completion). Nothing
    follows a row's last step.
    """
    order = torch.argsort(~mask, dim=1, stable=True)  # a row's steps first, in their order; zeros after them
    rewards, values = (zero_outside(x, mask).gather(1, order) for x in (rewards, values))
    nothing = torch.zeros_like(rewards)
    advantages, targets = gae(rewards, values, torch.full_like(rewards, gamma), lam, nothing.new_zeros(len(nothing)))
    return nothing.scatter(1, order, advantages), nothing.scatter(1, order, targets)


def n_step_advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, n: int) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of n-step returns (Mnih et al., 2016), [B, T] each, 0 outside the mask.

        target_t = r_t + gamma r_{t+1} + ... + gamma^(n-1) r_{t+n-1} + gamma^n V_{t+n}       A_t = target_t - V_t

    Inputs are those of `masked_gae`, and so are steps outside the mask; an n of a row's length or more makes its whole
    return.
    """
    order = torch.argsort(~mask, dim=1, stable=True)
    rewards, values = (zero_outside(x, mask).gather(1, order) for x in (rewards, values))
    nothing, targets = torch.zeros_like(rewards), values
    for _ in range(min(n, rewards.shape[1])):
        targets = rewards + gamma * torch.cat([targets[:, 1:], nothing[:, :1]], dim=1)
    return nothing.scatter(1, order, targets - values), nothing.scatter(1, order, targets)


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1}, [B, T], 0 outside the mask: `masked_gae` with values of 0 and lam = 1."""
    return masked_gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)[0]


def rloo_advantages(scores: Tensor) -> Tensor:
    """Score less the mean of its prompt's other scores (RLOO; Ahmadian et al., 2024). [P, K] -> [P, K], K >= 2."""
    size = group_size(scores)
    return (scores - scores.mean(1, keepdim=True)) * size / (size - 1)


def grpo_advantages(
    scores: Tensor,
    scale: Literal["group", "batch", "none"] = "group",
    baselines: Tensor | None = None,
    epsilon: float = 1e-4,
) -> Tensor:
    """(score - baseline) / (std + epsilon) within a prompt (GRPO; Shao et al., 2024). [P, K] -> [P, K], K >= 2.

    baselines [P, K]: by default the mean of the prompt's scores, which the score itself is part of; that of the greedy
    completion is ReMax (Li et al., 2024). scale: std of the prompt's scores, of all scores (Lite PPO), or none (Dr.
    GRPO; Liu et al., 2025); it divides by K - 1. A prompt of equal scores has advantages 0 around its mean.
    """
    group_size(scores)
    advantages = scores - (scores.mean(1, keepdim=True) if baselines is None else baselines)
    if scale == "none":
        return advantages
    return advantages / ((scores.std(1, keepdim=True) if scale == "group" else scores.std()) + epsilon)


def pass_at_k_advantages(scores: Tensor, k: int) -> Tensor:
    """Advantages for the expected best of k samples, pass@k where scores are 0 or 1. [P, K] -> [P, K], 2 <= k <= K.

        A_i = k mean over sets T of k - 1 other samples  max(score_i - max of T, 0)

    The mean of A_i grad log pi(y_i) is an unbiased estimate of the gradient of E[max of k] (Walder and Karkhanis, 2025,
    with the baseline that leaves the sample itself out). The j-th smallest of a sample's others is the best of
    C(j - 1, k - 2) of the C(K - 1, k - 1) sets.
    """
    size = group_size(scores)
    if not 2 <= k <= size:
        raise ValueError(f"k is {k}, which is not from 2 to the {size} samples of a prompt")
    ordered, order = scores.sort(1)
    shares = [math.comb(j, k - 2) / math.comb(size - 1, k - 1) for j in range(size)]
    above = (ordered[:, :, None] - ordered[:, None, :]).clamp(min=0)  # [P, sample, other]; 0 for those that rank higher
    advantages = k * (above * torch.tensor(shares, dtype=scores.dtype, device=scores.device)).sum(2)
    return torch.zeros_like(scores).scatter(1, order, advantages)


def best_of_group(scores: Tensor, count: int = 1) -> Tensor:
    """1 for the `count` highest of a prompt's scores, 0 for the others; of equal scores the first. [P, K] -> [P, K]."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores).scatter(1, best, 1.0)


def group_size(scores: Tensor) -> int:
    """Return K of scores [P, K]; ValueError for K below 2, where a score has no other to be compared with."""
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores {tuple(scores.shape)} are not [P, K] with K of 2 or more")
    return scores.shape[1]
