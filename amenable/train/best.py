"""Model selection: weights of the best evaluation, by a metric that training does not use, within a KL budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from amenable.models.sharding import load_weights, own_part, portable
from amenable.train.trained_weights import trained_state


class BestWeights:
    """Copy of a module's weights at the best value of a metric, saved in checkpoints.

    kl_budget: nats; weights whose held-out KL to the reference (the metric `kl`) is above it are not kept. The first
    weights, at KL 0, are kept until an evaluation within the budget. 0 is no budget.
    """

    def __init__(self, module: nn.Module, metric: str, lowest: bool = False, kl: str = "", kl_budget: float = 0.0):
        self.module, self.metric, self.sign = module, metric, -1.0 if lowest else 1.0
        self.kl, self.kl_budget = kl, kl_budget
        self.score = float("-inf")
        self.step = 0
        self.weights: dict[str, torch.Tensor] = self._copy() if kl_budget else {}

    def exceeds(self, metrics: Mapping[str, Any]) -> bool:
        """Return True if the held-out KL of an evaluation is above the budget."""
        return bool(self.kl_budget) and metrics.get(self.kl, 0.0) > self.kl_budget

    def update(self, metrics: Mapping[str, Any], step: int) -> bool:
        """Copy the weights if the metric is measured, better than before and within the KL budget; return True if they
        are copied."""
        if self.metric not in metrics or self.sign * metrics[self.metric] <= self.score or self.exceeds(metrics):
            return False
        self.score, self.step = self.sign * float(metrics[self.metric]), step
        self.weights = self._copy()
        return True

    def restore(self) -> None:
        """Load the best weights into the module, if any evaluation was made."""
        if self.weights:
            load_weights(self.module, self.weights)

    def end_line(self, metrics: Mapping[str, Any]) -> str | None:
        """Return the line on why training ends where the held-out KL is above the budget; None where it is not."""
        if not self.exceeds(metrics):
            return None
        choice = f"the weights of step {self.step} are kept"
        if not self.step:
            choice = "no evaluation was within it, so the first weights are kept: evaluate more often, or learn slower"
        return (
            f"{self.kl} is {metrics[self.kl]:.3g} nats, above --kl-budget {self.kl_budget:g}: training ends; {choice}"
        )

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in trained_state(self.module).items()}

    def state_dict(self) -> dict[str, Any]:
        parameters = dict(self.module.named_parameters())
        weights = {name: portable(value, parameters[name]) for name, value in self.weights.items()}
        return {"score": self.score if self.step else None, "step": self.step, "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score = float("-inf") if state["score"] is None else state["score"]
        parameters = dict(self.module.named_parameters())
        self.step = state["step"]
        self.weights = {name: own_part(value, parameters[name]).cpu() for name, value in state["weights"].items()}
