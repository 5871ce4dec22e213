"""The papers' claims, each decided by a small function from measured numbers to a verdict.

Figures without a source are those of Ouyang et al. (2022). Ours are of a world a millionth the size, so the direction
is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amenable.claims.alignment_tax import tax, tax_paid_back
from amenable.claims.evidence import Evidence
from amenable.claims.measurements import Runs
from amenable.claims.overoptimization import cheap_best_of_n, over_optimised
from amenable.claims.preferences import (
    generalises,
    in_order,
    more_epochs,
    not_mere_sharpening,
    over_public_tasks,
    small_over_large,
)
from amenable.claims.reward_models import held_out_people, pairs_together
from amenable.claims.truth_and_harm import fewer_inventions, less_harm, more_truthful
from amenable.claims.verdicts import Verdict

CLAIMS: tuple[Callable[[Runs], Verdict], ...] = (
    small_over_large,
    in_order,
    over_public_tasks,
    more_truthful,
    fewer_inventions,
    less_harm,
    tax,
    tax_paid_back,
    held_out_people,
    pairs_together,
    more_epochs,
    over_optimised,
    cheap_best_of_n,
    generalises,
    not_mere_sharpening,
)
"""a to o, in the order of the table"""

LETTERS = tuple("abcdefghijklmno")


def decide(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Return every claim's verdict, as report.json keeps it, over runs that differ in their seed only."""
    seeds = [Evidence(run) for run in runs]
    return [claim(seeds).as_row() for claim in CLAIMS]


def needs(letter: str) -> tuple[str, ...]:
    """Return the stage folders that a claim is measured from."""
    return CLAIMS[LETTERS.index(letter)](()).needs
