"""Options of learning from comparisons of clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amenable.errors import InputError
from amenable.train import plan

WITH_ACTIONS = "observations_and_actions"


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """Options that are read with --from comparisons."""

    judge: str = "synthetic"
    """who compares: synthetic (by the environment's reward), people (in the browser: amenable label-clips), backflip
    (a scripted judge), or FILE.py:FUNCTION, (left, right) -> share of left's vote, or None where it cannot tell"""
    max_labels: int = 500
    """answers after which no more comparisons are shown"""
    first_labels: float = 0.25
    """share of them that compares clips of the untrained policy, before training"""
    label_annealing: float = 0.1
    """share of the run after which half as many labels are asked for in a step as at its start: their rate falls as
    1 / (1 + timesteps / this)"""
    label_lag: int = 25
    """labels by which people may be behind that schedule before training waits for them"""
    clip_steps: int | None = None
    """steps of a clip; by default a second of the environment's own time, or 10 where it has none"""
    query_strategy: Literal["disagreement", "random", "information_gain", "uncertainty"] = "disagreement"
    """of candidate pairs, those to compare: a rule of feedback/queries.py"""
    candidate_factor: int = 10
    """candidate pairs for each that is compared"""
    ensemble_size: int = 3
    """reward predictors; each learns from a bootstrap sample"""
    reward_inputs: Literal["observations", "observations_and_actions"] | None = None
    """what a reward predictor reads; by default discrete actions too, and no continuous ones: few comparisons do not
    show that an action has no part in the reward"""
    reward_hidden: tuple[int, ...] = (64, 64)
    """widths of the layers of a reward predictor"""
    reward_learning_rate: float = 1e-3
    reward_batch: int = 32
    """comparisons in an update of the predictors"""
    reward_updates: int = 20
    """updates of the predictors after each rollout; ten times as many before training"""
    reward_weight_decay: float = 0.01
    """of the predictors, at the start: it adapts itself (control/reward_learning.py); 0 stays 0"""
    label_noise: float = 0.1
    """share of answers that are taken to be a coin's, in the likelihood"""
    holdout: float = 0.1
    """share of the comparisons that no predictor learns from"""
    judge_rationality: float | None = None
    """synthetic judge: left is better with probability sigma(this x difference of returns); by default always"""
    judge_error_rate: float = 0.0
    """synthetic judge: share of its answers that are turned round"""
    judge_discount: float = 1.0
    """synthetic judge: weight of a step beside the next one; below 1 it is myopic, and goes by how a clip ends"""
    labels_db: Path = Path("runs/clips.db")
    """people: database that clips are written to, and labels read from"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "max_labels", "candidate_factor", "reward_batch", "reward_updates")
        plan.require_at_least(2, self, "clip_steps")
        plan.require_at_least(1, self, "ensemble_size")
        alone = self.ensemble_size == 1 and self.query_strategy in ("disagreement", "information_gain")
        hint = "give --query-strategy random, or more predictors"
        plan.forbid(alone, f"one predictor has no {self.query_strategy.replace('_', ' ')}", hint)
        plan.require_at_least(0, self, "label_lag", "reward_weight_decay", "judge_rationality")
        plan.require_share(self, "first_labels", "judge_error_rate", "judge_discount")
        plan.require_below_one(self, "holdout", "label_noise")
        plan.require_above_zero(self, "label_annealing", "reward_learning_rate")
        if self.reward_hidden and (min(self.reward_hidden) < 1 or max(self.reward_hidden) > 2**16):
            raise InputError(f"reward_hidden is {self.reward_hidden}", how="give widths from 1 to 65536, or none")
