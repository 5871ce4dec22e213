"""TRPO from any reward: sample, score, estimate advantages, take the natural gradient's step within a KL constraint.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token               A = GAE(r, V)
    L   = -mean  rho_t A_t,   rho_t = pi(y_t) / pi_old(y_t)             mean KL(pi_old || pi) <= --trust-region
    s   = -sqrt(2 delta / x^T F x) x,   F x = grad L          L_V = vf_coef (V_t - R_t)^2 / 2

F is the Fisher matrix of the policy's token distributions, x is by conjugate gradient, and the step is halved until L
is lower and the KL, summed over the vocabulary on the whole rollout, within the constraint. The policy steps once a
rollout; further epochs and minibatches are the critic's. All weights, the top layers (--frozen-layers) or adapters.
Schulman et al. (2015, TRPO). Policy, reference, critic and loop are PPO's: rl/improve.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import masked_gae
from amenable.functional.losses import ppo_policy_loss
from amenable.rl.algorithm import Columns, MeanOver, every, penalized_rewards, policy_logprobs, regularizers
from amenable.rl.critic import Critic, CriticOptions, add_values, critic_loss, critic_optimizer
from amenable.rl.experience import Experience
from amenable.rl.improve import MinibatchLoss, add_old_logprobs
from amenable.rl.models import Models
from amenable.rl.online import run_online, with_critic
from amenable.rl.trust_region import TrustRegion, TrustRegionOptions
from amenable.train import plan
from amenable.train.log import Bars
from amenable.train.objective import Stats, accumulate
from amenable.train.stage_report import online_report

REPORT = online_report("TRPO", "The policy takes the longest step that keeps it near the one that sampled.")


@dataclass(frozen=True)
class Config(CriticOptions, TrustRegionOptions):
    """Train a policy by natural gradient within a trust region, one step a rollout."""

    out: Path = Path("runs/trpo")
    num_mini_batches: int = 1
    num_ppo_epochs: int = 4
    """passes of the critic over the samples; the policy steps in the first"""

    def __post_init__(self) -> None:
        super().__post_init__()
        problem = "TRPO's step is one of a whole rollout"
        plan.forbid(self.num_mini_batches > 1, problem, "leave out --num-mini-batches, or use amenable ppo")
        plan.forbid(self.ptx_coef, "TRPO's line search knows no other loss", "leave out --ptx-coef")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("trpo", config, with_critic(TRPO))


class TRPO:
    """Trust region policy optimisation (Schulman et al., 2015) with a critic, a KL penalty in every token's reward."""

    mean_over: MeanOver = "tokens"
    standardize_advantages = True
    group = 1

    def __init__(self, models: Models, critic: Critic, config: Config):
        self.all, self.critic, self.config = models, critic, config
        self.models = {"policy": models.policy, "critic": critic}
        self.region = TrustRegion(models.policy, config, models.runtime)
        self.optimizers = {"policy": self.region, "critic": critic_optimizer(critic, config)}
        self.losses = (self.first_loss, self.value_loss)
        self.kl_coef = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add the critic's values of the state before every response token."""
        add_values(self.critic, experience, self.all, self.config, bars)

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add token rewards, advantages and value targets, and hand the rollout to the trust region."""
        config, columns, self.kl_coef = self.config, experience.columns, kl_coef
        rewards = penalized_rewards(experience, kl_coef, config)
        advantages, returns = masked_gae(rewards, columns["values"], experience.rollout.mask, config.gamma, config.lam)
        columns.update(rewards=rewards, advantages=advantages, returns=returns)
        self.region.aim(experience.rollout.rows(), lambda: self.mean_loss(experience))

    def first_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L before the policy's step; after it, statistics alone."""
        with torch.set_grad_enabled("logps" not in old):
            return self.policy_loss(batch, old)

    def policy_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss, less entropy_coef H."""
        config, models = self.config, self.all
        logps, entropies, old, stats = policy_logprobs(models.policy, batch, old, models.runtime, config)
        loss, _ = ppo_policy_loss(logps, old["logps"], old["advantages"], every(logps), math.inf)
        loss = loss + regularizers(models, config, self.kl_coef, batch, logps, entropies, old).mean()
        return loss, {**stats, "loss/policy_avg": loss.detach()}

    def mean_loss(self, experience: Experience) -> float:
        """Return L on a whole rollout; the first call is by the policy that sampled."""
        if "logps" not in experience.columns:
            add_old_logprobs(experience, range(len(experience.scores)), self.all, self.config)
        objective = MinibatchLoss(experience, self.policy_loss, self.all.runtime.device, self.mean_over)
        answers, limit = range(len(experience.scores)), self.config.max_tokens_per_pass
        return accumulate(objective, answers, self.all.runtime, limit)["loss/policy_avg"]

    def value_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L_V, unclipped; a head on the policy's trunk learns alone, since only the step may move the policy."""
        return critic_loss(self.critic, self.all, batch, old, self.config.vf_coef)

    def adapt(self, experience: Experience) -> dict[str, float]:
        """Return the metrics of the policy's step."""
        return self.region.metrics

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load nothing: a step is a function of its rollout."""
