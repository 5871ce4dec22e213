"""TRPO: the natural gradient's step within a KL constraint on each rollout (Schulman et al., 2015).

    L = -mean rho A - entropy_coef H,   rho = pi(a | s) / pi_old(a | s)          mean KL(pi_old || pi) <= --trust-region
    s = -sqrt(2 delta / x^T F x) x,   F x = grad L

A = GAE(r, V), standardised over the rollout. F is the Fisher matrix of the policy's distributions, x is by conjugate
gradient, and the step is halved until L is lower and the KL, in closed form, within the constraint. The critic takes
epochs of minibatches on (V - R)^2 / 2 afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from amenable.control.agent import Agent, Metrics, means
from amenable.control.experience import Experience
from amenable.control.vector_optimizer import VectorOptimizer
from amenable.functional.losses import ppo_policy_loss
from amenable.functional.masked import standardize
from amenable.functional.natural_gradient import flatten, line_search, trust_region_step
from amenable.train.optimizer import Optimizer


class TRPO(Agent):
    """Trust region policy optimisation."""

    defaults: ClassVar[Mapping[str, float]] = {
        "num_steps": 256,
        "num_epochs": 10,
        "minibatch_size": 128,
        "lam": 0.95,
        "learning_rate": 1e-3,
    }

    def make_optimizers(self) -> Mapping[str, Optimizer]:
        """Return the critic's optimizer; the policy's step has no state."""
        return {"critic": VectorOptimizer([self.critic], self.options.adam)}

    def update(self, experience: Experience, multiplier: float) -> Metrics:
        """Step the policy, then the critic. The constraint has the multiplier squared, the step its root."""
        metrics = self.step_policy(experience, self.options.trust_region * multiplier**2)
        rows = []
        for batch in self.minibatches(experience):
            loss = self.value_loss(batch)
            loss.backward()
            self.optimizers["critic"].step(multiplier)
            rows.append({"loss": loss.detach(), "value/loss": loss.detach()})
        return {**metrics, **means(rows)}

    def step_policy(self, experience: Experience, limit: float) -> Metrics:
        """Take the longest of the step, its half, ... that lowers the loss within the constraint, or none."""
        options, parameters = self.options, list(self.policy.parameters())
        advantages = standardize(experience.columns["advantages"], None)
        with torch.no_grad():
            old = self.policy(experience.observations)

        def losses() -> tuple[Tensor, Tensor, Tensor]:
            distribution = self.policy(experience.observations)
            logps, entropy = distribution.log_prob(experience.actions), distribution.entropy().mean()
            loss, _ = ppo_policy_loss(logps, experience.logps, advantages, None, math.inf)
            return loss - options.entropy_coef * entropy, old.kl(distribution).mean(), entropy

        loss, kl, entropy = losses()
        gradient = flatten(torch.autograd.grad(loss, parameters, retain_graph=True), parameters)
        if not gradient.isfinite().all():
            self.optimizers["critic"].on_nonfinite("the policy's gradient is not finite", "lower --trust-region")
        slope = torch.cat([part.flatten() for part in torch.autograd.grad(kl, parameters, create_graph=True)])

        def fisher_product(vector: Tensor) -> Tensor:
            return flatten(torch.autograd.grad(slope.dot(vector), parameters, retain_graph=True), parameters)

        step = trust_region_step(fisher_product, gradient, limit, options.cg_damping, options.cg_iterations)

        def measure() -> tuple[float, float]:
            loss, kl, _ = losses()
            return float(loss), float(kl)

        taken = line_search(parameters, step, float(loss.detach()), measure, limit, options.line_search_steps)
        return {
            "policy/loss": float(loss.detach()),
            "policy/entropy": float(entropy.detach()),
            "policy/approx_kl": taken.kl,
            "policy/loss_fall": taken.fall,
            "policy/halvings": taken.halvings,
        }
