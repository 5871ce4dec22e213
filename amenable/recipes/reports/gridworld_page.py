"""Page of the gridworld: the map with optimal arrows and values, sliders for slip and discount, walks that are played.

Every position of the sliders is solved here, exactly; the page only shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from amenable.control.dynamic_programming import (
    deterministic,
    discounted_return,
    evaluate_policy,
    optimal_actions,
    policy_iteration,
    simulate,
)
from amenable.control.gridworld import REWARDS, world_of
from amenable.recipes.reports.rendering import render

SLIPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
DISCOUNTS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
WALKS, MAX_STEPS = 3, 80
"""trajectories of each position of the sliders, and their greatest length"""


def page(rows: Sequence[str], command: str) -> str:
    """Return the page of a map. command: the one that makes it."""
    values = {"data": solutions(rows), "slips": SLIPS, "discounts": DISCOUNTS, "rewards": REWARDS}
    return render("gridworld.jinja", css="report.css", js="gridworld.js", command=command, **values)


def solutions(rows: Sequence[str]) -> dict[str, Any]:
    """Return the map and, by slip and discount, what gridworld.js shows: `solutions[slip][discount]`."""
    return {
        "rows": list(rows),
        "slips": SLIPS,
        "discounts": DISCOUNTS,
        "start": "".join(rows).index("S"),
        "solutions": [[solution(rows, slip, gamma) for gamma in DISCOUNTS] for slip in SLIPS],
    }


def solution(rows: Sequence[str], slip: float, gamma: float) -> dict[str, Any]:
    """Return optimal values, the optimal actions of each cell, the random policy's return, and walks with returns."""
    world = world_of(rows, slip)
    values, actions, improvements = policy_iteration(world, gamma)
    best = optimal_actions(world, values, gamma)
    policy = deterministic(actions, world.num_actions)
    generator = np.random.default_rng(0)
    walks = [simulate(world, policy, generator, MAX_STEPS) for _ in range(WALKS)]
    uniform = np.full(best.shape, 1 / world.num_actions)
    return {
        "values": [round(float(value), 2) for value in values],
        "actions": [[a for a in range(world.num_actions) if row[a]] for row in best],
        "improvements": improvements,
        "random": round(float(evaluate_policy(world, uniform, gamma)[world.start]), 2),
        "walks": [{"states": w[0], "return": round(discounted_return(w[2], gamma), 2)} for w in walks],
    }
