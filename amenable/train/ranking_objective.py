"""Loss of a reward model on rankings: its options, and the objective that reads the scores of their completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.data.rankings import pairs_of
from amenable.functional import losses
from amenable.models.heads import ScalarModel
from amenable.train import forward, plan
from amenable.train.objective import Output, Stats
from amenable.train.rankings import TokenizedRanking
from amenable.train.run_options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class RankingLossOptions(TrainingOptions):
    """Options of the loss of a reward model."""

    loss_type: Literal["bradley-terry", "plackett-luce", "best-of-k", "binary"] = "bradley-terry"
    """likelihood of each pair of a prompt's completions, of their whole order, of the choice of the best among all, or
    of each completion of a pair as good or bad, alone (for pretraining on naturally ranked text)"""
    label_smoothing: float = 0.0
    """share of pairs taken to be ranked the wrong way round; of bradley-terry"""
    center_rewards_coefficient: float = 0.0
    """weight of the square of the sum of both scores of a pair, which holds scores around 0 (TRL: 0.01)"""
    score_penalty: float = 0.0
    """weight of the mean square of the scores"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "center_rewards_coefficient", "score_penalty")
        smoothing = f"label_smoothing is {self.label_smoothing}"
        plan.forbid(not 0 <= self.label_smoothing < 0.5, smoothing, "it must lie in [0, 0.5)")
        other = self.label_smoothing and self.loss_type != "bradley-terry"
        plan.forbid(other, f"{smoothing} and loss_type is {self.loss_type}", "it is defined for bradley-terry")


class RankingObjective:
    """Mean ranking loss over prompts, from the scores of their completions. An element is a prompt's ranking."""

    share_prefixes = True
    couples_elements = False
    output: Output = "scalar"

    def __init__(self, model: ScalarModel, options: RankingLossOptions | None = None):
        self.model, self.options = model, options or RankingLossOptions()
        by_type: dict[str, Callable[..., tuple[Tensor, Stats]]] = {
            "bradley-terry": partial(losses.ranking_loss, label_smoothing=self.options.label_smoothing),
            "plackett-luce": losses.plackett_luce_loss,
            "best-of-k": partial(losses.plackett_luce_loss, best_only=True),
            "binary": losses.binary_ranking_loss,
        }
        self.ranking_loss = by_type[self.options.loss_type]

    def rows(self, ranking: TokenizedRanking) -> list[forward.Row]:
        return ranking.rows

    def weight(self, ranking: TokenizedRanking) -> float:
        return 1.0 if pairs_of(ranking.ranks) else 0.0

    def outputs(self, batch: Batch) -> Tensor:
        return forward.rewards(self.model, batch)

    def loss(self, elements: Sequence[TokenizedRanking], scores: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; scores [R]: those of all completions of the elements."""
        ranks = torch.tensor([rank for ranking in elements for rank in ranking.ranks], device=scores.device)
        prompts = torch.tensor([i for i, ranking in enumerate(elements) for _ in ranking.rows], device=scores.device)
        margins = torch.tensor([ranking.margin for ranking in elements], device=scores.device)
        loss, stats = self.ranking_loss(scores, ranks, prompts, margins)
        weights = losses.prompt_weights(prompts, scores.dtype)
        if self.options.center_rewards_coefficient:
            loss = loss + self.options.center_rewards_coefficient * losses.centering_penalty(scores, ranks, prompts)
        if self.options.score_penalty:
            loss = loss + self.options.score_penalty * (weights * scores.square()).sum()
        return loss, {"loss": loss.detach(), **stats, "mean_reward": (weights * scores.detach()).sum()}
