"""Difference of two models on the same rows, with its interval and a paired test, for each measure of a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from amenable.functional.statistics import bootstrap_mean, mcnemar, sign_flip
from amenable.seeds import seeded_generator

Values = Sequence[float | None]
"""of each row True or False, a number, or None where the measure does not apply"""


def difference(first: Values, second: Values) -> dict[str, Any] | None:
    """Return by how much the second model's mean is above the first's over the rows that both have: value, low and high
    of the bootstrap interval over rows (None for a single row), p and n; None where there is no such row.

    p is McNemar's (exact) where all values are True or False, else that of flipping the differences' signs.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    gaps = torch.tensor([float(b) - float(a) for a, b in pairs], dtype=torch.float64)
    value, low, high = bootstrap_mean(gaps, seeded_generator(0, "difference"))
    if all(type(value) is bool for pair in pairs for value in pair):
        p_value = mcnemar(int((gaps < 0).sum()), int((gaps > 0).sum()))
    else:
        p_value = sign_flip(gaps, seeded_generator(0, "sign flip"))
    ends = (low, high) if math.isfinite(low) else (None, None)
    return {"value": value, "low": ends[0], "high": ends[1], "p": p_value, "n": len(pairs)}
