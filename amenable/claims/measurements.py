"""Quantities of a claim, measured once a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amenable.claims.evidence import Evidence
from amenable.claims.verdicts import Estimate, Part

Runs = Sequence[Evidence]

TOLERANCE = 0.05
"""two shares are equal when they differ by less"""


def per_seed(runs: Runs, measure: Callable[[Evidence], Estimate | None]) -> tuple[Estimate, ...]:
    """Return `measure` of every run; empty unless every run has it."""
    estimates = [estimate for run in runs if (estimate := measure(run)) is not None]
    return tuple(estimates) if len(estimates) == len(runs) else ()


def win_rate(
    runs: Runs,
    first: str,
    second: str,
    name: str = "",
    paper: str = "",
    decoding: str = "sampled",
    suite: str = "test",
    null: float = 0.5,
    decides: bool = True,
) -> Part:
    """Return the part that compares `first` with `second`: the win rate that held-out annotators give."""
    seeds = per_seed(runs, lambda run: run.preference(first, second, decoding, suite))
    return Part(name or f"{first} preferred to {second}, {decoding}", seeds, null, paper=paper, decides=decides)
