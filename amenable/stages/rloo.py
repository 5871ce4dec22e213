"""RLOO from any reward: sample K answers to a prompt, compare each with the mean of the others, repeat. No critic.

    R_k = score_k - kl_coef sum_t (log pi(y_t) - log ref(y_t))             A_k = R_k - mean of the other R_j
    L   = -mean over answers  min(rho A, clamp(rho, 1 +- clip) A),         rho = pi(y) / pi_old(y)          sequence
    L   = -mean over tokens   min(rho_t A, clamp(rho_t, 1 +- clip) A),     rho_t = pi(y_t) / pi_old(y_t)    token

The first update of a step has rho = 1, so that its gradient is REINFORCE's: -A grad log pi(y). With `kl_in loss` the
scores alone are compared, and the loss has + kl_coef (log pi - log ref)^2 / 2, an estimate (k2) of KL(pi || ref) with
the right gradient. Ahmadian et al. (2024, "Back to basics"); Kool et al. (2019). PPO's options and loop: rl/improve.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.errors import InputError
from amenable.functional.advantages import rloo_advantages
from amenable.functional.losses import ppo_policy_loss
from amenable.rl.algorithm import (
    Columns,
    MeanOver,
    every,
    kl_in_loss,
    mean_by_answer,
    penalized_scores,
    policy_logprobs,
    sum_by_answer,
)
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.online import run_online
from amenable.rl.options import ClipOptions
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("RLOO", "The policy learns which of its answers to a prompt the reward prefers.")


@dataclass(frozen=True)
class Config(ClipOptions):
    """Train a policy on each answer's advantage over the other answers to its prompt."""

    out: Path = Path("runs/rloo")
    prompts_per_step: int = 32
    num_generations: int = 4
    """samples of each prompt, K >= 2"""
    num_mini_batches: int = 1
    loss_on: Literal["sequence", "token"] = "sequence"
    """what has a probability ratio, and is averaged over: whole answers, or their tokens"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_generations < 2:
            problem = f"num_generations is {self.num_generations}: an answer is compared with the others to its prompt"
            raise InputError(problem, how="sample 2 or more, such as --num-generations 4")

    @property
    def ratio_of_answers(self) -> bool:
        return self.loss_on == "sequence"


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("rloo", config, RLOO)


class RLOO:
    """REINFORCE leave-one-out: the baseline of an answer is the mean reward of the other answers to its prompt."""

    standardize_advantages = False

    def __init__(self, models: Models, config: Config):
        self.all, self.policy, self.runtime, self.config = models, models.policy, models.runtime, config
        self.models = {"policy": self.policy}
        self.optimizers = {"policy": Optimizer([self.policy], config.optimizer)}
        self.losses = (self.loss,)
        self.mean_over: MeanOver = "answers" if config.loss_on == "sequence" else "tokens"
        self.group = config.num_generations
        self.kl_coef = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add nothing: RLOO needs no other model's columns."""

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add each answer's advantage to all of its tokens, and remember the coefficient for the loss."""
        mask, self.kl_coef = experience.rollout.mask, kl_coef
        scores = penalized_scores(experience, kl_coef, self.config)
        advantages = rloo_advantages(scores.view(-1, self.group)).view(-1)
        experience.columns["advantages"] = advantages[:, None] * mask

    def loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss, less entropy_coef H."""
        config = self.config
        logps, entropies, old, stats = policy_logprobs(self.policy, batch, old, self.runtime, config)
        ours, theirs, advantages = logps, old["logps"], old["advantages"]
        penalty = kl_in_loss(self.all, config, batch, logps, old) if config.kl_in == "loss" else torch.zeros_like(logps)
        if config.loss_on == "sequence":
            ours, theirs, penalty = (sum_by_answer(column, batch) for column in (ours, theirs, penalty))
            advantages, entropies = (mean_by_answer(column, batch) for column in (advantages, entropies))
        loss, surrogate = ppo_policy_loss(ours, theirs, advantages, every(ours), *config.clips)
        stats |= {"loss/policy_avg": loss.detach(), "policy/clipfrac_avg": surrogate["clip_fraction"]}
        if config.kl_in == "loss":
            loss = loss + self.kl_coef * penalty.mean()
        return loss - config.entropy_coef * entropies.mean() if config.entropy_coef else loss, stats
