"""Claims are decided on the demo run of the recipes' tests, or on made-up measurements."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.claims.verdicts import Curve, Estimate

spec = importlib.util.spec_from_file_location("recipes_conftest", Path(__file__).parents[1] / "recipes" / "conftest.py")
assert spec is not None and spec.loader is not None
recipes_conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipes_conftest)
globals().update({name: value for name, value in vars(recipes_conftest).items() if not name.startswith("__")})

GOOD_ORDER = (
    *("base", "public", "prompted", "large", "large-prompted", "sft-1", "sft", "sharpened", "sft-16"),
    *("best16", "ppo-kl", "ppo", "ppo-ptx"),
)
"""from the least to the most preferred, where the claims hold"""


class Measured:
    """A demo in which every claim holds (or, with sign -1, its contrary), measured with a given error."""

    def __init__(self, sign: int = 1, error: float = 0.01, lacking: bool = False):
        self.sign, self.error, self.lacking = sign, error, lacking

    def estimate(self, value: float) -> Estimate | None:
        return None if self.lacking else Estimate(value, self.error)

    def preference(self, first: str, second: str, *_: Any, **__: Any) -> Estimate | None:
        ahead = GOOD_ORDER.index(first) > GOOD_ORDER.index(second)
        return self.estimate(0.5 + (0.2 if ahead else -0.2) * self.sign)

    def votes(self, first: str, second: str, judges: str) -> torch.Tensor | None:
        if self.lacking:
            return None
        spread = self.error * 20 * torch.linspace(-1, 1, 400).double()
        heldout = 0.6 if self.sign > 0 else 0.3
        return 0.6 + spread if judges == "training" else torch.full((400,), heldout).double()

    def change(self, before: str, after: str, judgement: Callable, *_: Any) -> Estimate | None:
        return self.estimate(0.3 * self.sign)

    def rate(self, model: str, *_: Any, **__: Any) -> Estimate | None:
        return self.estimate({"base": 0.3, "ppo": 0.6}[model])

    def bits(self, before: str, after: str) -> Estimate | None:
        return self.estimate(0.3 * self.sign)

    def accuracy(self, before: str, after: str, *_: Any) -> Estimate | None:
        return self.estimate(0.4 * self.sign if (before, after) == ("ppo", "base") else 0.0)

    def demonstration_loss(self, before: str, after: str) -> Estimate | None:
        return self.estimate(0.1 * self.sign)

    def interval(self, stage: str, key: str, low: str, high: str) -> Estimate | None:
        if key.endswith("loss"):
            return self.estimate(0.5 + (0.2 if stage == "reward-pairs" else 0) * self.sign)
        return self.estimate(0.7 - (0.03 if self.sign > 0 else 0.3) * (key.startswith("heldout")))

    def rows(self, model: str) -> dict[str, dict[str, Any]]:
        if self.lacking:
            return {}
        spread = 20 * self.error * torch.linspace(-1, 1, 400)
        kl = 2.0 if self.sign > 0 else 0.1
        levels = {"1": 0.0, "2": 0.5, "4": 1.0, "16": 1.5}
        return {
            str(i): {"reward": 1.0 - float(x), "kl": kl + float(x), "best_of": levels} for i, x in enumerate(spread)
        }

    def over_optimisation(self, stage: str) -> dict[str, Curve] | None:
        if self.lacking:
            return None
        kl, noise = torch.tensor([0.0, 2.0, 8.0]), 20 * self.error * torch.linspace(-1, 1, 400).double()
        wobble = torch.stack([0 * noise, noise, noise.flip(0)])
        free = torch.tensor([0.0, 1.0, -1.0]) if self.sign > 0 else torch.tensor([0.0, -1.0, -1.5])
        priced = torch.tensor([0.0, 1.0, 1.0]) if self.sign > 0 else torch.tensor([0.0, 1.0, 2.0])
        gold = (free if stage == "over" else priced).double()[:, None].expand(3, 400) + wobble
        reach = kl if stage == "over" else torch.tensor([0.0, 1.0, 2.0])
        proxy = self.sign * torch.tensor([0.0, 1.0, 2.0]).double()[:, None].expand(3, 400) + wobble
        return {"gold": Curve([0, 5, 10], reach, gold), "proxy": Curve([0, 5, 10], reach, proxy)}


@pytest.fixture
def measured() -> type[Measured]:
    """Measurements of a demo in which every claim holds."""
    return Measured
