"""A2C: one step on each short rollout (Mnih et al., 2016; A2C is A3C's synchronous form).

A = GAE(r, V), with lambda 1 the n-step return less V, n up to --num-steps
L = -mean log pi(a | s) A - entropy_coef H + vf_coef (V - R)^2 / 2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from amenable.control.agent import Agent, Metrics
from amenable.control.experience import Experience


class A2C(Agent):
    """Advantage actor-critic."""

    defaults: ClassVar[Mapping[str, float]] = {"num_steps": 8, "num_epochs": 1, "lam": 1.0, "learning_rate": 7e-4}

    def update(self, experience: Experience, multiplier: float) -> Metrics:
        """Take one step of policy and critic."""
        return self.policy_gradient_step(experience, experience.columns["advantages"], multiplier)
