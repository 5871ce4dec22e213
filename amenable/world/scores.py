"""Figures of many gold reports: mean gold with its interval, and the rate of each part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from amenable.functional.statistics import mean_interval
from amenable.world.gold import GoldReport

RATES = {
    "truthful": "truthful",
    "hallucination": "invented",
    "over_refusal": "over_refused",
    "rude": "rude",
    "harmful": "harmful",
    "follows": "follows",
}
"""by name of the rate, the part of gold that it counts"""
PASSAGES = ("closed", "summary")
"""kinds of prompts with a passage: completions that add to the passage are counted apart"""


def gold_figures(parts: Sequence[GoldReport], kinds: Sequence[str]) -> dict[str, Any]:
    """Return mean gold and its 95 % interval, each rate where it applies (else None), and mean gold by kind."""
    mean, low, high = mean_interval(torch.tensor([part.gold for part in parts]))
    figures: dict[str, Any] = {"gold": mean, "gold_low": low, "gold_high": high}
    for name, attribute in RATES.items():
        figures[name] = share(getattr(part, attribute) for part in parts)
    figures["closed_hallucination"] = share(
        part.hallucinated for part, kind in zip(parts, kinds, strict=True) if kind in PASSAGES
    )
    by_kind: dict[str, list[float]] = {}
    for part, kind in zip(parts, kinds, strict=True):
        by_kind.setdefault(kind, []).append(part.gold)
    figures["gold_by_kind"] = {kind: sum(golds) / len(golds) for kind, golds in sorted(by_kind.items())}
    return figures


def share(values: Iterable[bool | None]) -> float | None:
    """Return the share of True among the values that are not None; None without any."""
    applies = [float(value) for value in values if value is not None]
    return sum(applies) / len(applies) if applies else None
