"""An agent: a policy and a critic, their optimizers, and minibatches of an experience. Algorithms are its subclasses,
one a file: each says how policy and critic are updated."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.control.environments import Spaces
from amenable.control.experience import Experience
from amenable.control.options import AgentOptions
from amenable.control.policies import Critic, Policy
from amenable.control.vector_optimizer import VectorOptimizer
from amenable.functional.advantages import gae
from amenable.functional.losses import value_loss
from amenable.functional.statistics import explained_variance
from amenable.seeds import seeded_generator
from amenable.train.checkpoint import Stateful
from amenable.train.optimizer import Optimizer

Metrics = dict[str, float]
Minibatch = Mapping[str, Tensor]
"""[B, ...] by name: observations, actions, logps, values, advantages, returns"""


class Agent(ABC):
    """Policy and critic that learn from their own experience. An algorithm overrides `update`."""

    defaults: ClassVar[Mapping[str, float]] = {}
    """the algorithm's own values of options that are None"""
    whole_episodes: ClassVar[bool] = False
    """True for an algorithm that needs episodes to their end"""

    def __init__(self, spaces: Spaces, options: AgentOptions, seed: int):
        self.options, self.seed, self.rollouts = options, seed, 0
        networks = options.hidden, options.activation
        sizes = spaces.shape, spaces.num_actions, spaces.is_discrete
        self.policy = Policy(*sizes, *networks, seeded_generator(seed, "policy"))
        self.critic = Critic(spaces.shape, *networks, seeded_generator(seed, "critic"))
        self.optimizers = self.make_optimizers()

    def make_optimizers(self) -> Mapping[str, Optimizer]:
        """Return the optimizers by name; one for both networks, so that one norm limits their gradient."""
        return {"both": VectorOptimizer([self.policy, self.critic], self.options.adam)}

    def learn(self, experience: Experience, multiplier: float) -> Metrics:
        """Estimate advantages, update, and return metrics. multiplier: of the learning rates."""
        self.rollouts += 1
        self.compute_advantages(experience)
        advantages, returns = experience.columns["advantages"], experience.columns["returns"]
        explained = explained_variance(experience.flat(experience.values), returns, torch.ones_like(returns).bool())
        metrics = self.update(experience, multiplier)
        return {"value/explained_variance": float(explained), "advantages_std": float(advantages.std()), **metrics}

    def compute_advantages(self, experience: Experience) -> None:
        """Set advantages and value targets by GAE; with lambda 1 these are returns to the end of the episode, or of the
        rollout and the value there."""
        e, lam = experience, self.options.lam
        experience.set_advantages(*gae(e.rewards, e.values, e.discounts, 1.0 if lam is None else lam, e.last_values))

    @abstractmethod
    def update(self, experience: Experience, multiplier: float) -> Metrics:
        """Update policy and critic on an experience with advantages, and return metrics."""

    def policy_gradient_step(self, experience: Experience, advantages: Tensor, multiplier: float) -> Metrics:
        """Take one step on -mean log pi(a | s) A - entropy_coef H + vf_coef (V - R)^2 / 2 over a whole experience."""
        distribution = self.policy(experience.observations)
        entropy = distribution.entropy().mean()
        policy = -(distribution.log_prob(experience.actions) * advantages).mean()
        value = self.value_loss(experience.batch())
        loss = policy + value - self.options.entropy_coef * entropy
        loss.backward()
        self.optimizers["both"].step(multiplier)
        terms = {"loss": loss, "policy/loss": policy, "policy/entropy": entropy, "value/loss": value}
        return {name: float(term.detach()) for name, term in terms.items()}

    def minibatches(self, experience: Experience) -> Iterator[Minibatch]:
        """Yield an epoch's minibatches after another, each epoch in an order of its own."""
        columns = experience.batch()
        size = self.options.minibatch_size or len(experience)
        for epoch in range(self.options.num_epochs or 1):
            generator = seeded_generator(self.seed, "minibatches", self.rollouts, epoch)
            order = torch.randperm(len(experience), generator=generator)
            shuffled = {name: column[order] for name, column in columns.items()}
            for start in range(0, len(experience), size):
                yield {name: column[start : start + size] for name, column in shuffled.items()}

    def value_loss(self, batch: Minibatch, clip: float = math.inf) -> Tensor:
        """Return vf_coef (V - R)^2 / 2, the worse of clipped and unclipped where there is a clip."""
        values, targets = self.critic(batch["observations"]), batch["returns"]
        if math.isinf(clip):
            return self.options.vf_coef / 2 * F.mse_loss(values, targets)
        every = torch.ones_like(targets, dtype=torch.bool)
        return self.options.vf_coef * value_loss(values, batch["values"], targets, every, clip)[0]

    @property
    def parts(self) -> dict[str, Stateful]:
        """Networks and optimizers that a checkpoint holds, by name."""
        optimizers = {f"optimizer/{name}": optimizer for name, optimizer in self.optimizers.items()}
        return {"policy": self.policy, "critic": self.critic, **optimizers}

    def state_dict(self) -> dict[str, Any]:
        return {"rollouts": self.rollouts, **{name: part.state_dict() for name, part in self.parts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rollouts = state["rollouts"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def means(metrics: list[dict[str, Tensor]]) -> Metrics:
    """Return the mean over updates of each metric."""
    return {name: float(torch.stack([row[name] for row in metrics]).mean()) for name in metrics[0]} if metrics else {}
