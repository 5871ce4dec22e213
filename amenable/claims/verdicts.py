"""From measured numbers to a verdict: holds, does not hold, or undecided at this size. Intervals decide, not points.

A number is measured once a seed, with its standard error over prompts. Over several seeds it is their mean. Three seeds
are no sample to draw an interval from: so besides the interval of the mean, every seed must be on the same side. What a
seed surely contradicts does not hold; nor does what has an effect surely smaller than the smallest worth speaking of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor

from amenable.functional.statistics import Z95

SMALLEST = {"share": 0.02, "accuracy": 0.02, "nats": 0.02, "bits": 0.005, "gold": 0.1, "reward": 0.05}
"""by unit, the smallest relevant effect: an effect that is surely smaller counts as none"""
TIES = (0.0, 0.5)
"""nulls of no difference and no preference; any other null is itself a tolerance"""
HOLDS, FAILS, UNDECIDED, UNMEASURED = "holds", "does not hold", "undecided", "not measured"


@dataclass(frozen=True)
class Estimate:
    """One number, measured on one seed."""

    value: float
    error: float
    """its standard error"""

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """Return the mean of values [N], one a prompt; the error of fewer than two is infinite."""
        values = values.double()
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
        return cls(float(values.mean()), error)

    @classmethod
    def between(cls, value: float, low: float, high: float) -> Estimate:
        """Return the estimate of a number with a known 95 % interval."""
        return cls(value, (high - low) / (2 * Z95))

    def minus(self, other: Estimate) -> Estimate:
        """Return the difference of two independent estimates."""
        return Estimate(self.value - other.value, math.hypot(self.error, other.error))


@dataclass(frozen=True)
class Part:
    """One quantity of a claim, which must lie above `null` (or below it), and its measurements."""

    quantity: str
    seeds: tuple[Estimate, ...]
    """one a seed; none where it was not measured"""
    null: float = 0.0
    side: Literal["above", "below"] = "above"
    unit: str = "share"
    """one of SMALLEST"""
    paper: str = ""
    decides: bool = True
    """False for a number that is shown with the claim and does not decide it"""

    @property
    def pooled(self) -> Estimate | None:
        """The mean over the seeds."""
        if not self.seeds:
            return None
        n = len(self.seeds)
        error = math.sqrt(sum(seed.error**2 for seed in self.seeds)) / n
        return Estimate(sum(seed.value for seed in self.seeds) / n, error)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean over the seeds, from the prompts' spread."""
        pooled = self.pooled
        assert pooled is not None
        return pooled.value - Z95 * pooled.error, pooled.value + Z95 * pooled.error

    @property
    def verdict(self) -> str:
        """The verdict: holds where the interval and every seed lie on the side `side`; does not hold where no effect is
        left, or where a seed surely lies on the other side (its interval widened by Bonferroni)."""
        if not self.seeds:
            return UNMEASURED
        sign = 1 if self.side == "above" else -1
        low, high = sorted(sign * (bound - self.null) for bound in self.interval)
        effects = [sign * (seed.value - self.null) for seed in self.seeds]
        if low > 0 and min(effects) > 0:
            return HOLDS
        z = NormalDist().inv_cdf(1 - 0.025 / len(self.seeds))
        if any(effect + z * seed.error < 0 for effect, seed in zip(effects, self.seeds)):
            return FAILS
        nothing = SMALLEST[self.unit] if self.null in TIES else 0.0
        return FAILS if high < nothing and max(effects) < nothing else UNDECIDED

    def as_row(self) -> dict[str, Any]:
        """Return the row of report.json."""
        row: dict[str, Any] = {"what": self.quantity, "paper": self.paper, "null": self.null, "unit": self.unit}
        row |= {"wanted": self.side, "decides": self.decides, "verdict": self.verdict}
        row |= {"measured": None, "low": None, "high": None, "seeds": [finite(seed.value) for seed in self.seeds]}
        if self.pooled is not None:
            low, high = self.interval
            row |= {"measured": finite(self.pooled.value), "low": finite(low), "high": finite(high)}
        return row


@dataclass(frozen=True)
class Verdict:
    """A claim of the papers and its verdict."""

    id: str
    claim: str
    paper: str
    parts: tuple[Part, ...]
    """the first of those that settle the verdict is shown beside the claim"""
    needs: tuple[str, ...] = ()
    """stage folders it is measured from"""
    note: str = ""

    @property
    def verdict(self) -> str:
        """The weakest of the parts that decide: one that does not hold, one not measured, one undecided, or holds."""
        verdicts = {part.verdict for part in self.parts if part.decides}
        return next(word for word in (FAILS, UNMEASURED, UNDECIDED, HOLDS) if word in verdicts)

    def as_row(self) -> dict[str, Any]:
        """Return the row of report.json: the figures of the part that settles it on top, all parts below."""
        verdict = self.verdict
        settling = next(part for part in self.parts if part.decides and part.verdict == verdict).as_row()
        rows = [part.as_row() for part in self.parts]
        figures = {key: settling[key] for key in ("what", "measured", "low", "high", "null", "wanted", "unit", "seeds")}
        row = {"id": self.id, "claim": self.claim, "paper": self.paper, "verdict": self.verdict, "note": self.note}
        return {**row, **figures, "needs": list(self.needs), "parts": rows}


@dataclass(frozen=True)
class Curve:
    """A quantity by prompt and step: values [S, N] at S steps on the same N prompts, beside each step's KL [S]."""

    steps: Sequence[int]
    kl: Tensor
    values: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def at(self, kl: float) -> Tensor:
        """Return values [N] where the curve reaches a KL, interpolated between steps (the last beyond the end)."""
        for i in range(1, len(self.kl)):
            below, above = float(self.kl[i - 1]), float(self.kl[i])
            if above >= kl > below or (i == 1 and kl <= below):
                share = min(1.0, max(0.0, (kl - below) / (above - below))) if above > below else 0.0
                return torch.lerp(self.values[i - 1], self.values[i], share)
        return self.values[-1]

    def peak(self, prompts: Tensor) -> int:
        """Return the index of the highest mean over the chosen prompts (a mask [N] or indices)."""
        return int(self.values[:, prompts].mean(1).argmax())


def paired(first: Tensor, second: Tensor) -> Estimate:
    """Return the mean of first - second [N], measured on the same prompts."""
    return Estimate.of(first.double() - second.double())


def finite(value: float) -> float | None:
    """Return the number, or None where JSON has no form for it (nan, infinity)."""
    return value if math.isfinite(value) else None
