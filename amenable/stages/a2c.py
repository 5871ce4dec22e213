"""A2C from any reward: sample, score, estimate advantages with a critic, take one step of both, repeat.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token
    A_t = r_t + gamma r_{t+1} + ... + gamma^n V_{t+n} - V_t   (--n-steps n),   or GAE(r, V)
    L   = -mean over tokens  log pi(y_t) A_t  - entropy_coef H,           L_V = vf_coef (V_t - A_t - V_t^old)^2 / 2

One update a rollout, so that no ratio is needed. --kl-in loss has the KL in the loss, as GopherCite does. Mnih et al.
(2016, A3C; A2C is its synchronous form); Menick et al. (2022, GopherCite); Glaese et al. (2022, Sparrow). Policy,
reference, critic and loop are PPO's: rl/improve.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import masked_gae, n_step_advantages
from amenable.rl.algorithm import Columns, MeanOver, penalized_rewards, policy_logprobs, regularizers
from amenable.rl.critic import (
    Critic,
    CriticOptions,
    add_value_loss,
    add_values,
    critic_loss,
    critic_optimizer,
    head_of,
)
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.online import run_online, with_critic
from amenable.train import plan
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("A2C", "The policy learns what the critic did not expect, one update a rollout.")


@dataclass(frozen=True)
class Config(CriticOptions):
    """Train a policy by advantage actor-critic, one update a rollout."""

    out: Path = Path("runs/a2c")
    num_mini_batches: int = 1
    n_steps: int = 0
    """rewards in an advantage before the critic's value takes their place; 0 is GAE with lam"""
    normalize_advantages: bool = False
    """standardise advantages over a step's tokens"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "n_steps")
        several = self.num_mini_batches * self.num_ppo_epochs > 1
        problem = "A2C makes one update a rollout: its loss has no ratio to the sampling policy"
        plan.forbid(several, problem, "leave out --num-mini-batches and --num-ppo-epochs, or use amenable ppo")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("a2c", config, with_critic(A2C))


class A2C:
    """Advantage actor-critic (Mnih et al., 2016), a KL penalty in every token's reward or in the loss."""

    mean_over: MeanOver = "tokens"
    group = 1

    def __init__(self, models: Models, critic: Critic, config: Config):
        self.all, self.critic, self.config = models, critic, config
        self.models = {"policy": models.policy, "critic": critic}
        self.optimizers = {
            "policy": Optimizer([models.policy], config.optimizer),
            "critic": critic_optimizer(critic, config),
        }
        self.losses = (self.policy_loss,) if head_of(critic) else (self.policy_loss, self.value_loss)
        self.standardize_advantages = config.normalize_advantages
        self.kl_coef = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add the critic's values of the state before every response token."""
        add_values(self.critic, experience, self.all, self.config, bars)

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add token rewards, advantages and value targets, and remember the coefficient for the loss."""
        config, mask, self.kl_coef = self.config, experience.rollout.mask, kl_coef
        rewards, values = penalized_rewards(experience, kl_coef, config), experience.columns["values"]
        if config.n_steps:
            advantages, returns = n_step_advantages(rewards, values, mask, config.gamma, config.n_steps)
        else:
            advantages, returns = masked_gae(rewards, values, mask, config.gamma, config.lam)
        experience.columns.update(rewards=rewards, advantages=advantages, returns=returns)

    def policy_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss; plus L_V where the critic is a head on the policy's trunk."""
        config, models, head = self.config, self.all, head_of(self.critic)
        logps, entropies, old, stats = policy_logprobs(models.policy, batch, old, models.runtime, config, head)
        loss = -(logps * old["advantages"]).mean()
        others = regularizers(models, config, self.kl_coef, batch, logps, entropies, old).mean()
        return add_value_loss(loss + others, {**stats, "loss/policy_avg": loss.detach()}, old, config.vf_coef)

    def value_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L_V, unclipped."""
        return critic_loss(self.critic, self.all, batch, old, self.config.vf_coef)
