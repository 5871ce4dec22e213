"""PPO from any reward: sample, score, estimate advantages, take a few clipped steps, repeat.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token
    A   = GAE(r, V), standardised over the batch
    L   = ppo_policy_loss - entropy_coef H,   L_V = vf_coef value_loss,   and  -ptx_coef log pi(raw text)  (PPO-ptx)

The policy's loss is --objective clip, L^CPI as it is (none), or L^CPI with a penalty on KL(old || new) in place of the
clip, whose coefficient is halved or doubled after each step to hold KL near --penalty-target (kl-penalty).

Policy and reference start as the SFT model, the critic as the reward model (as the policy where the reward is no
model); dropout is off everywhere; the sampling temperature divides the logits in every log-probability. Schulman et al.
(2017, eq. 6 to 8); Stiennon et al. (2020); Ouyang et al. (2022, eq. 2 and appendix C.4).

Reads run directories of `sft` (policy, reference) and `reward` (or another reward: --reward), and prompts. Writes a
model directory, answers to held-out prompts (answers.jsonl), and traces of single tokens (traces.jsonl, `amenable
inspect`). The loop (sampling, scores, KL control, updates, evaluation) is every online algorithm's: rl/improve.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional import kl
from amenable.functional.advantages import masked_gae
from amenable.functional.losses import ppo_kl_penalty_loss, ppo_policy_loss
from amenable.functional.masked import scale
from amenable.rl.algorithm import Columns, MeanOver, every, penalized_rewards, policy_logprobs, regularizers
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
from amenable.rl.options import ClipOptions
from amenable.train import forward, plan
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("PPO", "The policy learns to please the reward model without leaving SFT far behind.")


@dataclass(frozen=True)
class Config(CriticOptions, ClipOptions):
    """Train a policy to please a reward model without leaving its reference behind."""

    out: Path = Path("runs/ppo")
    objective: Literal["clip", "none", "kl-penalty"] = "clip"
    """what keeps the policy near the one that sampled: the clip, nothing, or a penalty on its KL"""
    penalty_coef: float = 1.0
    """first coefficient of that penalty"""
    penalty_target: float = 0.01
    """nats a token from the policy that sampled, after a step's updates; the penalty's coefficient adapts to it"""
    cliprange_value: float = 0.2
    whiten_rewards: bool = False
    """divide the token rewards by their standard deviation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "cliprange_value")
        plan.require_above_zero(self, "penalty_coef", "penalty_target")
        bounds = (self.cliprange_high is not None or self.dual_clip > 0) and self.objective != "clip"
        problem = f"--objective {self.objective} has no clip"
        plan.forbid(bounds, problem, "leave out --cliprange-high and --dual-clip, or give --objective clip")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("ppo", config, with_critic(PenaltyPPO if config.objective == "kl-penalty" else PPO))


class PPO:
    """Clipped surrogate with a critic (Schulman et al., 2017), a KL penalty in every token's reward."""

    mean_over: MeanOver = "tokens"
    standardize_advantages = True
    group = 1

    def __init__(self, models: Models, critic: Critic, config: Config):
        self.policy, self.critic, self.runtime, self.config = models.policy, critic, models.runtime, config
        self.all, self.kl_coef = models, 0.0
        self.models = {"policy": self.policy, "critic": critic}
        self.optimizers = {
            "policy": Optimizer([self.policy], config.optimizer),
            "critic": critic_optimizer(critic, config),
        }
        self.losses = (self.policy_loss,) if head_of(critic) else (self.policy_loss, self.value_loss)

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add the critic's values of the state before every response token."""
        add_values(self.critic, experience, self.all, self.config, bars)

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add token rewards, advantages and value targets, and remember the coefficient for the loss."""
        rollout, columns, config, self.kl_coef = experience.rollout, experience.columns, self.config, kl_coef
        rewards = penalized_rewards(experience, kl_coef, config)
        if config.whiten_rewards:
            rewards = scale(rewards, rollout.mask)
        advantages, returns = masked_gae(rewards, columns["values"], rollout.mask, config.gamma, config.lam)
        columns.update(rewards=rewards, advantages=advantages, returns=returns)

    def policy_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss; plus L_V where the critic is a head on the trunk."""
        config, head = self.config, head_of(self.critic)
        logps, entropies, old, stats = policy_logprobs(self.policy, batch, old, self.runtime, config, head)
        loss, surrogate = self.surrogate(logps, old)
        stats |= {"loss/policy_avg": loss.detach()}
        stats |= {"policy/clipfrac_avg": surrogate["clip_fraction"]} if "clip_fraction" in surrogate else {}
        loss = loss + regularizers(self.all, config, self.kl_coef, batch, logps, entropies, old).mean()
        return add_value_loss(loss, stats, old, config.vf_coef, config.cliprange_value)

    def surrogate(self, logps: Tensor, old: Columns) -> tuple[Tensor, Stats]:
        """Return the clipped surrogate, or L^CPI, and its statistics."""
        bounds = self.config.clips if self.config.objective == "clip" else (math.inf,)
        return ppo_policy_loss(logps, old["logps"], old["advantages"], every(logps), *bounds)

    def value_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L_V = vf_coef value_loss."""
        return critic_loss(self.critic, self.all, batch, old, self.config.vf_coef, self.config.cliprange_value)


class PenaltyPPO(PPO):
    """PPO with an adaptive KL penalty in place of the clip (Schulman et al., 2017, section 4)."""

    def __init__(self, models: Models, critic: Critic, config: Config):
        super().__init__(models, critic, config)
        self.penalty_coef = config.penalty_coef

    def surrogate(self, logps: Tensor, old: Columns) -> tuple[Tensor, Stats]:
        """Return the penalised surrogate and its statistics."""
        return ppo_kl_penalty_loss(logps, old["logps"], old["advantages"], every(logps), self.penalty_coef)

    def adapt(self, experience: Experience) -> dict[str, float]:
        """Measure KL(old || new) on the step's answers, and adapt the coefficient to it."""
        rows, limit, rollout = experience.rollout.rows(), self.config.max_tokens_per_pass, experience.rollout
        logps = forward.compute_logprobs(self.policy, rows, self.runtime, limit, self.config.temperature)
        old = experience.columns.get("logps", rollout.logps)
        moved = kl.k3(old[rollout.mask], torch.cat(logps)).mean()
        metrics = {"policy/penalty_coef": self.penalty_coef, "policy/penalty_kl": float(moved)}
        self.penalty_coef = kl.adapt_kl_penalty(self.penalty_coef, float(moved), self.config.penalty_target)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"penalty_coef": self.penalty_coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.penalty_coef = state["penalty_coef"]
