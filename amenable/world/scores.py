"""What many judged answers come to: mean gold with its interval, and how often each part holds."""

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
"""names of the rates, and the parts of gold that they count"""
PASSAGES = ("closed", "summary")
"""kinds of prompts that come with a passage: answers that add to it are counted by themselves"""


def gold_figures(parts: Sequence[GoldReport], kinds: Sequence[str]) -> dict[str, Any]:
    """Mean gold and its 95 % interval, each rate where it applies (None where it never does), mean gold by kind."""
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
    """How often something is true, of those to whom it applies; None where it applies to none."""
    applies = [float(value) for value in values if value is not None]
    return sum(applies) / len(applies) if applies else None
