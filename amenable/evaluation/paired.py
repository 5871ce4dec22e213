"""Difference of two models on the same rows, with its interval and a paired test, for each measure of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from amenable.functional.calibration import auroc, expected_calibration_error
from amenable.functional.statistics import bootstrap, bootstrap_mean, mcnemar, sign_flip
from amenable.seeds import seeded_generator

RESAMPLES = 500
STATISTICS: dict[str, Callable[[Tensor, Tensor], float]] = {"ece": expected_calibration_error, "auroc": auroc}
"""of confidence and of what is right, by the name of the metric"""
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


def statistic_difference(
    name: str, first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> dict[str, Any] | None:
    """Return by how much a statistic of the second model's rows is above that of the first's, as `difference` does;
    None where one of them has no value.

    name: one of STATISTICS. first, second: of the same rows (confidence, right). p is that of a randomization test that
    exchanges the models row by row.
    """
    statistic, rows = STATISTICS[name], torch.tensor([first, second], dtype=torch.float64)
    count = rows.shape[1]

    def gap(pair: Tensor) -> float:
        return statistic(*pair[1].unbind(1)) - statistic(*pair[0].unbind(1))

    value, low, high = bootstrap(lambda i: gap(rows[:, i]), count, seeded_generator(0, name), RESAMPLES)
    if math.isnan(value):
        return None
    generator, least, known = seeded_generator(0, name, "exchange"), 0, 0
    for _ in range(RESAMPLES):
        exchanged = torch.randint(2, (count,), generator=generator).bool()[None, :, None]
        other = gap(torch.where(exchanged, rows.flip(0), rows))
        known += not math.isnan(other)
        least += abs(other) >= abs(value) * (1 - 1e-12)
    ends = (low, high) if math.isfinite(low) and count > 1 else (None, None)
    return {"value": value, "low": ends[0], "high": ends[1], "p": (1 + least) / (1 + known), "n": count}
