"""PPO: a few epochs of clipped steps on each rollout (Schulman et al., 2017).

    A = GAE(r, V), standardised in each minibatch      rho = pi(a | s) / pi_old(a | s)
    L = -mean min(rho A, clamp(rho, 1 +- cliprange) A) - entropy_coef H + vf_coef (V - R)^2 / 2

docs/control.md lists the 37 implementation details of Huang et al. (2022), and which are here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from amenable.control.agent import Agent, Metrics, means
from amenable.control.experience import Experience
from amenable.functional.losses import ppo_policy_loss
from amenable.functional.masked import standardize


class PPO(Agent):
    """Proximal policy optimisation."""

    defaults: ClassVar[Mapping[str, float]] = {
        "num_steps": 256,
        "num_epochs": 10,
        "minibatch_size": 64,
        "lam": 0.95,
        "learning_rate": 3e-4,
    }

    def update(self, experience: Experience, multiplier: float) -> Metrics:
        """Take epochs of clipped steps; end them before the minibatch on which the KL is above target_kl."""
        options, optimizer, rows = self.options, self.optimizers["both"], []
        for batch in self.minibatches(experience):
            advantages = standardize(batch["advantages"], None)
            distribution = self.policy(batch["observations"])
            logps = distribution.log_prob(batch["actions"])
            with torch.set_grad_enabled(options.entropy_coef > 0):
                entropy = distribution.entropy().mean()
            policy, stats = ppo_policy_loss(logps, batch["logps"], advantages, None, options.cliprange)
            if options.target_kl and stats["approx_kl"] > options.target_kl:
                break
            value = self.value_loss(batch, options.cliprange_value or math.inf)
            loss = policy + value - options.entropy_coef * entropy
            loss.backward()
            optimizer.step(multiplier)
            rows.append(
                {
                    "loss": loss.detach(),
                    "policy/loss": policy.detach(),
                    "policy/entropy": entropy.detach(),
                    "policy/approx_kl": stats["approx_kl"],
                    "policy/clip_fraction": stats["clip_fraction"],
                    "value/loss": value.detach(),
                }
            )
        return {"updates": len(rows), **means(rows)}
