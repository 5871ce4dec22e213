"""Experience: a rollout as tensors, with what every algorithm's advantages are made of. Letters: T steps, E copies of
the environment, N = the steps that there were.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t)      s_{t+1}: what really came next, before a reset
    gamma -> 0 after the end of the task; an end by the time limit counts as none: V of the observation that was cut off
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Critic, Policy
from amenable.control.rollout import Rollout


@dataclass
class Experience:
    """A rollout's steps: in time as [E, T], as `functional.gae` reads them, and flat as [N, ...], as losses do."""

    rewards: Tensor
    """[E, T], scaled, with gamma V(what was cut off) added where the time limit has ended an episode"""
    discounts: Tensor
    """[E, T]: gamma, and 0 where an episode has ended"""
    values: Tensor
    """[E, T], of the critic before the updates"""
    last_values: Tensor
    """[E]: of what comes after the last steps"""
    mask: Tensor
    """[E, T]: True where there was a step"""
    observations: Tensor
    """[N, ...], normalised"""
    actions: Tensor
    """[N] or [N, A]"""
    logps: Tensor
    """[N]: log-probabilities of the policy that acted"""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """[N]: `advantages` and `returns` (value targets), once an algorithm has estimated them"""

    def __len__(self) -> int:
        return len(self.observations)

    def flat(self, numbers: Tensor) -> Tensor:
        """Return numbers [E, T] of the steps that there were, [N], in the order of `observations`."""
        return numbers[self.mask]

    def batch(self) -> dict[str, Tensor]:
        """Return the columns that losses read, [N, ...] by name."""
        columns = {"observations": self.observations, "actions": self.actions, "logps": self.logps}
        return {**columns, "values": self.flat(self.values), **self.columns}

    def set_advantages(self, advantages: Tensor, returns: Tensor) -> None:
        """Set advantages and value targets, [E, T] each."""
        self.columns = {"advantages": self.flat(advantages), "returns": self.flat(returns)}


@torch.no_grad()
def prepare(
    rollout: Rollout, rewards: Tensor, policy: Policy, critic: Critic, normalizer: ObservationNormalizer, gamma: float
) -> Experience:
    """Return the experience of a rollout with scaled rewards [T, E], the environment's or a learned function's."""
    mask = torch.from_numpy(rollout.mask.T.copy())
    normalized = torch.from_numpy(normalizer.normalize(rollout.observations)).transpose(0, 1)
    observations = normalized[mask]
    actions = torch.from_numpy(rollout.actions).transpose(0, 1)[mask]
    values = torch.zeros(mask.shape).masked_scatter(mask, critic(observations))
    rewards = rewards.t().float().clone()
    cut = torch.from_numpy(rollout.truncated.T.copy())
    if cut.any():
        after = critic(torch.from_numpy(normalizer.normalize(rollout.cut_observations)))
        order = torch.from_numpy(rollout.truncated.copy()).nonzero()  # by step, then by environment
        rewards[order[:, 1], order[:, 0]] += gamma * after
    ended = torch.from_numpy(rollout.ended.T.copy())
    discounts = torch.where(ended, 0.0, gamma)
    last_values = critic(torch.from_numpy(normalizer.normalize(rollout.last_observations)))
    logps = policy(observations).log_prob(actions)
    return Experience(rewards, discounts, values, last_values, mask, observations, actions, logps)
