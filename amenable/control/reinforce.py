"""REINFORCE with a learned baseline: one step on the returns of whole episodes (Williams, 1992).

    G_t = r_t + gamma r_{t+1} + ... to the end of the episode         A = G - V, standardised over the rollout
    L = -mean log pi(a | s) A - entropy_coef H + vf_coef (V - G)^2 / 2

Sutton and Barto (2018), 13.4, without their factor gamma^t, as is usual. Where the time limit cuts an episode,
gamma V of the observation that was cut off is added to the last reward, as for every algorithm here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from amenable.control.agent import Agent, Metrics
from amenable.control.experience import Experience
from amenable.functional.masked import standardize


class Reinforce(Agent):
    """Monte Carlo policy gradient with a baseline."""

    defaults: ClassVar[Mapping[str, float]] = {"num_steps": 256, "num_epochs": 1, "lam": 1.0, "learning_rate": 1e-3}
    whole_episodes: ClassVar[bool] = True

    def update(self, experience: Experience, multiplier: float) -> Metrics:
        """Take one step of policy and baseline."""
        advantages = experience.columns["advantages"]
        return self.policy_gradient_step(experience, standardize(advantages, None), multiplier)
