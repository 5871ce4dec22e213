"""Advantages: how much better an action was than expected.

Letters: B rows, T steps, P prompts, K samples of a prompt. No gradient is meant to flow through an advantage.
"""

from __future__ import annotations

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


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1}, [B, T], 0 outside the mask: `masked_gae` with values of 0 and lam = 1."""
    return masked_gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)[0]


def rloo_advantages(scores: Tensor) -> Tensor:
    """Score less the mean of its prompt's other scores (RLOO; Ahmadian et al., 2024). [P, K] -> [P, K], K >= 2."""
    size = group_size(scores)
    return (scores - scores.mean(1, keepdim=True)) * size / (size - 1)


def grpo_advantages(scores: Tensor, epsilon: float = 1e-4) -> Tensor:
    """(score - mean) / (std + epsilon) within a prompt (GRPO; Shao et al., 2024). [P, K] -> [P, K], K >= 2.

    std divides by K - 1. A prompt whose scores are all equal has advantages 0.
    """
    group_size(scores)
    return (scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + epsilon)


def group_size(scores: Tensor) -> int:
    """Return K of scores [P, K]; ValueError for K below 2, where a score has no other to be compared with."""
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores {tuple(scores.shape)} are not [P, K] with K of 2 or more")
    return scores.shape[1]
