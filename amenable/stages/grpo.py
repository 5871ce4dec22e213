"""GRPO and its relatives from any reward: each answer against the others to its prompt, token by token. No critic.

    A_k    = (score_k - mean of its group) / (std of its group + 1e-4)                 the same for all of its tokens
    rho_t  = pi(y_t) / pi_old(y_t), or its geometric mean over the answer
    L      = mean of  -min(rho_t A, clamp(rho_t, 1 - low, 1 + high) A) + kl_coef k3_t

Relatives are options of this one loss: BNPO and DAPO --mean-over tokens (DAPO also --cliprange-high 0.28
--dynamic-sampling 3 --overlong-buffer 64 --kl-coef 0), Dr. GRPO --mean-over constant --scale-rewards none, GSPO
--importance-sampling-level sequence --cliprange 4e-4, CISPO --surrogate cispo --cliprange-high 4, ReMax --baseline
greedy --scale-rewards none, pass@k training --pass-at-k 4. k3 in the loss is the paper's, and has the gradient of
KL(ref || pi); --kl-estimator k2 has that of KL(pi || ref). Shao et al. (2024); Yu et al. (2025, DAPO); Liu et al.
(2025, Dr. GRPO); Zheng et al. (2025, GSPO); MiniMax (2025, CISPO); Li et al. (2024, ReMax); Walder and
Karkhanis (2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.errors import InputError
from amenable.functional.advantages import grpo_advantages, pass_at_k_advantages
from amenable.functional.losses import group_policy_losses, mean_of_tokens
from amenable.generation.rollout import greedy
from amenable.rewards.on_rollout import total_score
from amenable.rl.algorithm import Columns, MeanOver, answers_of, penalized_scores, policy_logprobs, regularizers
from amenable.rl.experience import Experience
from amenable.rl.improve import shape_scores
from amenable.rl.models import Models
from amenable.rl.online import run_online
from amenable.rl.options import ClipOptions, KLEstimator
from amenable.train import plan
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("GRPO", "The policy learns which of its answers to a prompt score above their mean.")


@dataclass(frozen=True)
class Config(ClipOptions):
    """Train a policy on each answer's score relative to those of the other answers to its prompt."""

    out: Path = Path("runs/grpo")
    prompts_per_step: int = 16
    num_generations: int = 8
    """samples of each prompt, K >= 2"""
    num_mini_batches: int = 1
    mean_over: Literal["answers", "tokens", "constant"] = "answers"
    """what the loss is the mean of: answers' means (GRPO), tokens (DAPO), answers' sums / max_new_tokens (Dr. GRPO)"""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """what has a probability ratio: a token (GRPO), or an answer, by its mean log-ratio (GSPO)"""
    surrogate: Literal["clip", "cispo"] = "clip"
    """the clipped surrogate, or CISPO: log-probabilities weighted by ratios of at most 1 + cliprange_high"""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """whose standard deviation divides the advantages"""
    baseline: Literal["group", "greedy"] = "group"
    """what scores are compared with: the group's mean, or the greedy answer's score (ReMax)"""
    pass_at_k: int = 0
    """learn for the best of k answers in place of the mean; 0 does not"""
    kl_in: Literal["reward", "loss"] = "loss"
    kl_estimator: KLEstimator | None = "k3"

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "pass_at_k")
        if self.num_generations < 2:
            problem = f"num_generations is {self.num_generations}: an answer is compared with the others to its prompt"
            raise InputError(problem, how="sample 2 or more, such as --num-generations 8")
        wrong = self.pass_at_k and not 2 <= self.pass_at_k <= self.num_generations
        plan.forbid(wrong, f"pass_at_k is {self.pass_at_k}", f"it is from 2 to num_generations {self.num_generations}")
        both = self.pass_at_k and self.baseline == "greedy"
        plan.forbid(both, "--pass-at-k has its own baseline", "leave out --baseline greedy")
        dual = self.surrogate == "cispo" and self.dual_clip > 0
        plan.forbid(dual, "--surrogate cispo has no dual clip", "leave out --dual-clip")

    @property
    def ratio_of_answers(self) -> bool:
        return self.importance_sampling_level == "sequence"


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("grpo", config, GRPO)


class GRPO:
    """Group-relative policy optimisation (Shao et al., 2024), with its relatives as options."""

    standardize_advantages = False

    def __init__(self, models: Models, config: Config):
        self.all, self.config = models, config
        self.models = {"policy": models.policy}
        self.optimizers = {"policy": Optimizer([models.policy], config.optimizer)}
        self.losses = (self.loss,)
        self.mean_over: MeanOver = "tokens" if config.mean_over == "tokens" else "answers"
        self.group = config.num_generations
        self.kl_coef = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add the greedy answer's score to all tokens of a prompt's answers, where that is the baseline."""
        if self.config.baseline != "greedy":
            return
        models, rollout = self.all, experience.rollout
        samples = len(rollout.prompts) // len(experience.prompts)
        prompts, limit = rollout.prompts[::samples], self.config.max_new_tokens
        with models.runtime.autocast():
            best = greedy(models.policy, prompts, limit, models.tokenizer.stop_ids, bars("greedy answers"))
        scores = shape_scores(total_score(models.reward, best, experience.prompts, models.tokenizer), best, self.config)
        experience.columns["baselines"] = scores.repeat_interleave(samples)[:, None] * rollout.mask

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add each answer's advantage to all of its tokens, and remember the coefficient for the loss."""
        config, mask, self.kl_coef = self.config, experience.rollout.mask, kl_coef
        scores = penalized_scores(experience, kl_coef, config).view(-1, self.group)
        if config.pass_at_k:
            advantages = pass_at_k_advantages(scores, config.pass_at_k)
        else:
            greedy = experience.columns["baselines"][:, 0].view_as(scores) if config.baseline == "greedy" else None
            advantages = grpo_advantages(scores, config.scale_rewards, greedy)
        experience.columns["advantages"] = advantages.view(-1, 1) * mask

    def loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, less entropy_coef H."""
        config, models = self.config, self.all
        logps, entropies, old, stats = policy_logprobs(models.policy, batch, old, models.runtime, config)
        answers, count = answers_of(batch)
        level, form = config.importance_sampling_level, config.surrogate
        terms, surrogate = group_policy_losses(
            logps, old["logps"], old["advantages"], answers, count, *config.clips, level, form
        )
        terms = torch.stack([terms, regularizers(models, config, self.kl_coef, batch, logps, entropies, old)])
        policy, others = (mean_of_tokens(t, answers, count, config.mean_over, config.max_new_tokens) for t in terms)
        stats |= {"loss/policy_avg": policy.detach(), "policy/clipfrac_avg": surrogate["clip_fraction"]}
        return policy + others, stats
