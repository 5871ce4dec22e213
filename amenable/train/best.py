"""The best weights seen so far, by a score that the training does not use."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Best:
    """Keeps a copy of the trainable weights whenever the score is a new highest; part of the checkpoint."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.score = float("-inf")
        self.step = 0
        self.weights: dict[str, torch.Tensor] = {}

    def offer(self, score: float, step: int) -> bool:
        """Keep the weights as they are now if `score` beats all before. True if it does."""
        if score <= self.score:
            return False
        self.score, self.step = score, step
        self.weights = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        return True

    def restore(self) -> None:
        """Put the best weights back into the module; nothing happens where none was offered."""
        if self.weights:
            self.module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score if self.step else None, "step": self.step, "weights": dict(self.weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score = float("-inf") if state["score"] is None else state["score"]
        self.step, self.weights = state["step"], dict(state["weights"])
