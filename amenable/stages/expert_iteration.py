"""Expert iteration from any reward: sample K answers to a prompt, fine-tune on the best of them, repeat. No critic.

    R_k = score_k - kl_coef sum_t (log pi(y_t) - log ref(y_t))             best: the --num-best answers of highest R_k
    L   = -mean log pi(y_t)   over the tokens of the best answers, EOS included                         the loss of sft

An iteration fits the policy to the best-of-K distribution of the policy before it, so that KL from the reference adds
up: --kl-coef takes it from what the answers are chosen by, and --kl-budget ends the run where held-out KL is above it.
The sampling temperature divides the logits in the loss too, so that an iteration of --num-best K changes nothing in
expectation. Anthony et al. (2017, expert iteration); Touvron et al. (2023, section 3.2.3, Llama 2's rejection sampling
fine-tuning); Dong et al. (2023, RAFT). Loop and options are PPO's: rl/improve.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import best_of_group
from amenable.rl.algorithm import Columns, MeanOver, penalized_scores, policy_logprobs, regularizers
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.online import run_online
from amenable.rl.options import OnlineOptions
from amenable.train import plan
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.stage_report import online_report

REPORT = online_report("Expert iteration", "The policy imitates the best of its own answers to a prompt.")


@dataclass(frozen=True)
class Config(OnlineOptions):
    """Fine-tune a policy on the best of its own answers to each prompt, again and again."""

    out: Path = Path("runs/expert-iteration")
    num_generations: int = 8
    """samples of each prompt, K >= 2"""
    num_best: int = 1
    """answers to each prompt that are learned from, less than K"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "num_best")
        problem = f"num_best is {self.num_best} of num_generations {self.num_generations}: nothing is selected"
        plan.forbid(self.num_best >= self.num_generations, problem, "sample more answers, or keep fewer")
        best = self.prompts_per_step * self.num_best
        problem = f"num_mini_batches {self.num_mini_batches} does not divide the {best} best answers of a step"
        plan.forbid(best % self.num_mini_batches, problem, "prompts_per_step times num_best is a multiple of it")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    best = config.prompts_per_step * config.num_best
    size = f"{best} best answers / {config.num_mini_batches} = {best // config.num_mini_batches} an update"
    return run_online("expert-iteration", config, ExpertIteration, [size])


class ExpertIteration:
    """Fine-tuning on the best of K answers by the reward (Touvron et al., 2023)."""

    mean_over: MeanOver = "tokens"
    standardize_advantages = False

    def __init__(self, models: Models, config: Config):
        self.all, self.config = models, config
        self.models = {"policy": models.policy}
        self.optimizers = {"policy": Optimizer([models.policy], config.optimizer)}
        self.losses = (self.loss,)
        self.group = config.num_generations
        self.kl_coef = 0.0

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add nothing: the scores are enough."""

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add the weight of each answer to its tokens, 1 of the best and 0 of others, as its advantage."""
        config, self.kl_coef = self.config, kl_coef
        scores = penalized_scores(experience, kl_coef, config).view(-1, self.group)
        best = best_of_group(scores, config.num_best).view(-1)
        experience.columns["advantages"] = best[:, None] * experience.rollout.mask
        experience.reward_metrics["objective/best_scores"] = float(experience.raw_scores[best.bool()].mean())

    def select(self, experience: Experience) -> Sequence[int]:
        """Return the best answers."""
        return experience.columns["advantages"].any(dim=1).nonzero().flatten().tolist()

    def loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L, with the penalty of KL in the loss, less entropy_coef H."""
        config, models = self.config, self.all
        logps, entropies, old, stats = policy_logprobs(models.policy, batch, old, models.runtime, config)
        loss = -(old["advantages"] * logps).mean()
        others = regularizers(models, config, self.kl_coef, batch, logps, entropies, old).mean()
        return loss + others, {**stats, "loss/policy_avg": loss.detach()}
