"""Online DPO from any reward: sample K answers to a prompt, prefer the best to the worst, repeat. No critic.

    y_w, y_l   the answers of highest and lowest score - kl_coef KL among K to a prompt; none where all are equal
    L          = -log sigma(beta [(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))]),   or a relative: --loss

The loss is dpo's on pairs of the policy's own answers, labelled at each step by any reward or judge, so that it learns
about what it says now; beta is the price of KL from the reference, and --kl-coef, 0 by default, another one in what is
preferred. The sampling temperature divides the logits in every log-probability. Guo et al. (2024, "Direct language
model alignment from online AI feedback"). Loop and options are PPO's: rl/improve.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import best_of_group
from amenable.functional.masked import masked_sum
from amenable.rl.algorithm import Loss, MeanOver, penalized_scores, sampler_stats
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.online import run_online
from amenable.rl.options import OnlineOptions
from amenable.train import forward, plan
from amenable.train.defaults import FromModel
from amenable.train.log import Bars
from amenable.train.objective import Output, Stats
from amenable.train.optimizer import Optimizer
from amenable.train.pair_loss import PairLossOptions, pair_loss, parse_losses
from amenable.train.rankings import Pair
from amenable.train.stage_report import online_report

REPORT = online_report("Online DPO", "The policy learns to prefer the better of its own answers to a prompt.")


@dataclass(frozen=True)
class Config(PairLossOptions, OnlineOptions):
    """Fit a policy to comparisons of its own answers, labelled by a reward as they are sampled."""

    out: Path = Path("runs/online-dpo")
    prompts_per_step: int = 64
    num_generations: int = 2
    """samples of each prompt, K >= 2; the best is preferred to the worst"""
    num_mini_batches: int = 1
    kl_coef: FromModel[float] = 0.0
    """price of a nat from the reference in what is preferred, beside beta"""
    adaptive_kl_target: FromModel[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        problem = f"num_generations is {self.num_generations}: a pair has two answers"
        plan.forbid(self.num_generations < 2, problem, "sample 2 or more")
        coupled = "aot" in parse_losses(self.loss)
        plan.forbid(coupled, "loss is aot, of all pairs of a step at once", "use it in amenable dpo")
        apart = "ld_alpha" if self.front else "use_weighting" if self.use_weighting else ""
        plan.forbid(apart, f"{apart} reads more of a pair than its log-probabilities", "use it in amenable dpo")
        unused = {"entropy_coef": self.entropy_coef, "target_kl": self.target_kl, "kl_in loss": self.kl_in == "loss"}
        unused |= {"sampler_correction": self.sampler_correction != "none"}
        given = next((name for name, value in unused.items() if value), None)
        plan.forbid(given, f"a loss on pairs has no {given}", "leave it out")

    @property
    def weighs_samples(self) -> bool:
        """False: the loss is on pairs."""
        return False


def run(config: Config) -> Path:
    """Train and return the run directory."""
    return run_online("online-dpo", config, OnlineDPO)


class OnlineDPO:
    """DPO on pairs of a step's answers (Guo et al., 2024)."""

    mean_over: MeanOver = "answers"
    standardize_advantages = False
    losses: Sequence[Loss] = ()

    def __init__(self, models: Models, config: Config):
        self.all, self.config = models, config
        self.models = {"policy": models.policy}
        self.optimizers = {"policy": Optimizer([models.policy], config.optimizer)}
        self.group = config.num_generations

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add nothing: the scores are enough."""

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add to all tokens of an answer 1 for the preferred, -1 for the other of its pair, as its advantage."""
        scores = penalized_scores(experience, kl_coef, self.config).view(-1, self.group)
        sides = (best_of_group(scores) - best_of_group(-scores)) * (scores.amax(1) > scores.amin(1))[:, None]
        experience.columns["advantages"] = sides.view(-1, 1) * experience.rollout.mask

    def select(self, experience: Experience) -> Sequence[tuple[int, int]]:
        """Return the pairs of answers, the preferred first."""
        sides = experience.columns["advantages"][:, 0]
        return list(zip(*((sides == side).nonzero().flatten().tolist() for side in (1, -1))))

    def objective(self, experience: Experience) -> PairObjective:
        """Return the loss on pairs of an experience."""
        return PairObjective(self.all, self.config, experience)


class PairObjective:
    """Mean loss over pairs of sampled answers; an element is a pair of their numbers, the preferred first."""

    share_prefixes = True
    couples_elements = False
    output: Output = "logprobs"

    def __init__(self, models: Models, config: Config, experience: Experience):
        self.all, self.config, self.rollout = models, config, experience.rollout
        columns = experience.columns["ref_logps"], self.rollout.logps
        self.ref_sums, self.sampler_sums = (masked_sum(column, self.rollout.mask, 1) for column in columns)

    def rows(self, answers: tuple[int, int]) -> list[forward.Row]:
        return self.rollout.rows(answers)

    def weight(self, answers: tuple[int, int]) -> float:
        return 1.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.summed_logprobs(self.all.policy, batch, self.config.temperature)

    def loss(self, pairs: Sequence[tuple[int, int]], sums: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; sums [2 * pairs]: log-probability of each answer of each pair."""
        answers, refs = torch.tensor(pairs).flatten(), self.ref_sums.tolist()
        rows = [(self.rollout.rows(pair), pair) for pair in pairs]
        preferences = [
            Pair(chosen, rejected, ref_chosen=refs[best], ref_rejected=refs[worst])
            for (chosen, rejected), (best, worst) in rows
        ]
        loss, stats = pair_loss(self.config, preferences, sums)
        stats["loss/policy_avg"] = stats.pop("loss")
        moved = (sums.detach().cpu() - self.sampler_sums[answers]) / self.rollout.lengths[answers]
        return loss, stats | sampler_stats(moved)
