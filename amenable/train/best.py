"""Model selection: weights of the best evaluation, by a metric that training does not use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from amenable.train.trained_weights import trained_state


class BestWeights:
    """Copy of a module's weights at the best value of a metric, saved in checkpoints."""

    def __init__(self, module: nn.Module, metric: str, lowest: bool = False):
        self.module, self.metric, self.sign = module, metric, -1.0 if lowest else 1.0
        self.score = float("-inf")
        self.step = 0
        self.weights: dict[str, torch.Tensor] = {}

    def update(self, metrics: Mapping[str, Any], step: int) -> bool:
        """Copy the weights if the metric is measured and better than before; return True if they are copied."""
        if self.metric not in metrics or self.sign * metrics[self.metric] <= self.score:
            return False
        self.score, self.step = self.sign * float(metrics[self.metric]), step
        self.weights = {name: value.detach().cpu().clone() for name, value in trained_state(self.module).items()}
        return True

    def restore(self) -> None:
        """Load the best weights into the module, if any evaluation was made."""
        if self.weights:
            self.module.load_state_dict(self.weights, strict=False)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score if self.step else None, "step": self.step, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score = float("-inf") if state["score"] is None else state["score"]
        self.step, self.weights = state["step"], dict(state["weights"])
