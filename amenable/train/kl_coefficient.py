"""The price of a nat away from the reference: fixed, or adapting to a target."""

from __future__ import annotations

from typing import Any

from amenable.functional import kl


class KLCoefficient:
    """A coefficient that a checkpoint carries. With a target it follows Ziegler et al. (2019, section 2.2)."""

    def __init__(self, value: float, target: float, horizon: float):
        self.value, self.target, self.horizon = value, target, horizon

    def adapt(self, measured: float, samples: int) -> None:
        """Move towards the target after `samples` responses of `measured` nats each; a target of 0 keeps it fixed."""
        if self.target:
            self.value = kl.adapt_kl_coef(self.value, measured, self.target, self.horizon, samples)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
