"""REINFORCE from any reward: each token's log-probability, times the rewards from there on less a baseline. No critic.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token           G_t = r_t + gamma G_{t+1}
    A_t = G_t - b         b: 0, a running mean of earlier steps, or the mean G_0 of other answers of the step or prompt
    L   = -mean over answers  sum_t min(rho_t A_t, clamp(rho_t, 1 - low, 1 + high) A_t),   rho_t = pi(y_t) / pi_old(y_t)

No baseline has the answer itself in it, so that the first update of a step, where rho = 1, has the policy gradient in
expectation. REINFORCE++ is --normalize-advantages with --baseline none, its form with groups --baseline leave-one-out
--num-generations 4. Williams (1992); Ahmadian et al. (2024); Hu et al. (2025, REINFORCE++). Loop: rl/improve.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import discounted_returns, rloo_advantages
from amenable.functional.losses import group_policy_losses, mean_of_tokens
from amenable.rl.algorithm import Columns, MeanOver, answers_of, penalized_rewards, policy_logprobs, regularizers
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.online import run_online
from amenable.rl.options import ClipOptions
from amenable.train import plan
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("REINFORCE", "The policy learns what its rewards exceed a baseline by.")


@dataclass(frozen=True)
class Config(ClipOptions):
    """Train a policy by REINFORCE with reward-to-go and a baseline."""

    out: Path = Path("runs/reinforce")
    num_mini_batches: int = 1
    gamma: float = 1.0
    """discount of later rewards, a token"""
    baseline: Literal["none", "running", "batch", "leave-one-out"] = "batch"
    """mean return that is subtracted: of earlier steps, of the step's other answers, of the others to the prompt"""
    baseline_decay: float = 0.9
    """share of its value that the running baseline keeps in a step"""
    normalize_advantages: bool = False
    """standardise advantages over a step's tokens (REINFORCE++)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_share(self, "gamma", "baseline_decay")
        alone = self.baseline == "leave-one-out" and self.num_generations < 2
        problem = f"--baseline leave-one-out needs other answers to a prompt: num_generations is {self.num_generations}"
        plan.forbid(alone, problem, "sample 2 or more, or give --baseline batch")
        problem = "--baseline batch needs another answer in a step"
        plan.forbid(self.baseline == "batch" and self.samples < 2, problem, "sample 2 or more")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("reinforce", config, Reinforce)


class Reinforce:
    """REINFORCE (Williams, 1992) with reward-to-go; the running baseline goes on from step to step."""

    mean_over: MeanOver = "answers"

    def __init__(self, models: Models, config: Config):
        self.all, self.config = models, config
        self.models = {"policy": models.policy}
        self.optimizers = {"policy": Optimizer([models.policy], config.optimizer)}
        self.losses = (self.loss,)
        self.standardize_advantages = config.normalize_advantages
        self.group = config.num_generations if config.baseline == "leave-one-out" else 1
        self.kl_coef = self.running = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add nothing: REINFORCE needs no other model's columns."""

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add token rewards, returns and advantages, and remember the coefficient for the loss."""
        config, mask, self.kl_coef = self.config, experience.rollout.mask, kl_coef
        rewards = penalized_rewards(experience, kl_coef, config)
        returns = discounted_returns(rewards, mask, config.gamma)
        advantages = (returns - self.baselines(returns[:, 0])[:, None]) * mask
        experience.columns.update(rewards=rewards, returns=returns, advantages=advantages)

    def baselines(self, totals: Tensor) -> Tensor:
        """Return the baseline [B] of each answer from the returns [B] of whole answers, its own left out."""
        baseline = self.config.baseline
        if baseline in ("none", "running") or len(totals) < 2:
            return totals.new_full(totals.shape, self.running)
        groups = totals.view(-1, self.group) if baseline == "leave-one-out" else totals.view(1, -1)
        return totals - rloo_advantages(groups).view(-1)

    def loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss, less entropy_coef H; sums over an answer's tokens."""
        config, models = self.config, self.all
        logps, entropies, old, stats = policy_logprobs(models.policy, batch, old, models.runtime, config)
        answers, count = answers_of(batch)
        terms, surrogate = group_policy_losses(logps, old["logps"], old["advantages"], answers, count, *config.clips)
        loss = mean_of_tokens(terms, answers, count, "constant")
        stats |= {"loss/policy_avg": loss.detach(), "policy/clipfrac_avg": surrogate["clip_fraction"]}
        others = regularizers(models, config, self.kl_coef, batch, logps, entropies, old)
        return loss + mean_of_tokens(others, answers, count, "constant"), stats

    def adapt(self, experience: Experience) -> dict[str, float]:
        """Move the running baseline towards the mean return of the step."""
        if self.config.baseline != "running":
            return {}
        mean = float(experience.columns["returns"][:, 0].mean())
        before, decay = self.running, self.config.baseline_decay
        self.running = decay * before + (1 - decay) * mean
        return {"reinforce/baseline": before}

    def state_dict(self) -> dict[str, Any]:
        return {"running": self.running}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running = state["running"]
