"""KL penalty coefficient: fixed, or adapted so that measured KL approaches a target."""

from __future__ import annotations

from typing import Any

from amenable.functional import kl

RANGE = 1e6
"""times its first value that a coefficient may grow or shrink to: thousands of steps that all push one way would
otherwise end at 0 or infinity in floating point, and neither comes back"""


class AdaptiveKLController:
    """KL coefficient that a checkpoint carries. With a target it follows Ziegler et al. (2019, section 2.2).

    A coefficient above 0 stays above 0; one that begins at 0 stays 0.
    """

    def __init__(self, value: float, target: float, horizon: float):
        self.value, self.target, self.horizon = value, target, horizon
        self.least, self.most = value / RANGE, value * RANGE

    def update(self, measured: float, samples: int) -> None:
        """Move towards the target after `samples` responses of `measured` nats each; a target of 0 keeps it fixed."""
        if self.target:
            value = kl.adapt_kl_coef(self.value, measured, self.target, self.horizon, samples)
            self.value = min(max(value, self.least), self.most)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
