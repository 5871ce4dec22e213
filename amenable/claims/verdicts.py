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
"""by unit, the smallest effect worth speaking of: one that is surely smaller is as good as none"""
TIES = (0.0, 0.5)
"""no difference, no preference: any other null is a tolerance, and says itself how much is too much"""
HOLDS, FAILS, UNDECIDED, UNMEASURED = "holds", "does not hold", "undecided", "not measured"


@dataclass(frozen=True)
class Estimate:
    """One number, measured on one seed."""

    value: float
    error: float
    """its standard error"""

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """The mean of values [N], one a prompt; with fewer than two there is no error to tell: infinity."""
        values = values.double()
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
        return cls(float(values.mean()), error)

    @classmethod
    def between(cls, value: float, low: float, high: float) -> Estimate:
        """A number whose 95 % interval is known."""
        return cls(value, (high - low) / (2 * Z95))

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two numbers measured apart from each other."""
        return Estimate(self.value - other.value, math.hypot(self.error, other.error))


@dataclass(frozen=True)
class Part:
    """One thing that a claim says, as a number that must lie above `null` (or below it), and what it came to."""

    what: str
    seeds: tuple[Estimate, ...]
    """one a seed; none where it was not measured"""
    null: float = 0.0
    wanted: Literal["above", "below"] = "above"
    unit: str = "share"
    """one of SMALLEST"""
    paper: str = ""
    decides: bool = True
    """False where the number is told beside the claim and does not decide it"""

    @property
    def pooled(self) -> Estimate | None:
        """The mean over the seeds."""
        if not self.seeds:
            return None
        n = len(self.seeds)
        error = math.sqrt(sum(one.error**2 for one in self.seeds)) / n
        return Estimate(sum(one.value for one in self.seeds) / n, error)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the mean over the seeds, from the prompts' spread."""
        pooled = self.pooled
        assert pooled is not None
        return pooled.value - Z95 * pooled.error, pooled.value + Z95 * pooled.error

    @property
    def verdict(self) -> str:
        """holds where the interval and every seed lie on the wanted side; does not hold where no effect is left, or
        where a seed surely lies on the other side (its interval widened for the number of seeds: Bonferroni)."""
        if not self.seeds:
            return UNMEASURED
        sign = 1 if self.wanted == "above" else -1
        low, high = sorted(sign * (bound - self.null) for bound in self.interval)
        effects = [sign * (one.value - self.null) for one in self.seeds]
        if low > 0 and min(effects) > 0:
            return HOLDS
        wide = NormalDist().inv_cdf(1 - 0.025 / len(self.seeds))
        if any(effect + wide * one.error < 0 for effect, one in zip(effects, self.seeds)):
            return FAILS
        nothing = SMALLEST[self.unit] if self.null in TIES else 0.0
        return FAILS if high < nothing and max(effects) < nothing else UNDECIDED

    def as_row(self) -> dict[str, Any]:
        """As report.json keeps it."""
        row: dict[str, Any] = {"what": self.what, "paper": self.paper, "null": self.null, "unit": self.unit}
        row |= {"wanted": self.wanted, "decides": self.decides, "verdict": self.verdict}
        row |= {"measured": None, "low": None, "high": None, "seeds": [finite(one.value) for one in self.seeds]}
        if self.pooled is not None:
            low, high = self.interval
            row |= {"measured": finite(self.pooled.value), "low": finite(low), "high": finite(high)}
        return row


@dataclass(frozen=True)
class Verdict:
    """A claim of the papers, and what became of it here."""

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
        found = {part.verdict for part in self.parts if part.decides}
        return next(word for word in (FAILS, UNMEASURED, UNDECIDED, HOLDS) if word in found)

    def as_row(self) -> dict[str, Any]:
        """As report.json keeps it: the figures of the part that settles it on top, all parts below."""
        verdict = self.verdict
        settling = next(part for part in self.parts if part.decides and part.verdict == verdict).as_row()
        rows = [part.as_row() for part in self.parts]
        first = {key: settling[key] for key in ("what", "measured", "low", "high", "null", "wanted", "unit", "seeds")}
        told = {"id": self.id, "claim": self.claim, "paper": self.paper, "verdict": self.verdict, "note": self.note}
        return {**told, **first, "needs": list(self.needs), "parts": rows}


@dataclass(frozen=True)
class Curve:
    """A quantity by prompt and step: values [S, N] at S steps on the same N prompts, beside each step's KL [S]."""

    steps: Sequence[int]
    kl: Tensor
    values: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def at(self, kl: float) -> Tensor:
        """Values [N] where the curve first reaches a KL, between the two steps around it (the last beyond its end)."""
        for place in range(1, len(self.kl)):
            below, above = float(self.kl[place - 1]), float(self.kl[place])
            if above >= kl > below or (place == 1 and kl <= below):
                share = min(1.0, max(0.0, (kl - below) / (above - below))) if above > below else 0.0
                return torch.lerp(self.values[place - 1], self.values[place], share)
        return self.values[-1]

    def peak(self, prompts: Tensor) -> int:
        """The place of the highest mean over the chosen prompts (a mask [N] or indices)."""
        return int(self.values[:, prompts].mean(1).argmax())


def paired(first: Tensor, second: Tensor) -> Estimate:
    """The mean of first - second [N], measured on the same prompts."""
    return Estimate.of(first.double() - second.double())


def finite(value: float) -> float | None:
    """A number that JSON can hold."""
    return value if math.isfinite(value) else None
