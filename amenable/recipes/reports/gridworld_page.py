"""Page of the gridworld: the map with optimal arrows and values, sliders for slip and discount, walks that are played.

Every position of the sliders is solved here, exactly; the page only shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from amenable.control.dynamic_programming import (
    MarkovDecisionProcess,
    deterministic,
    discounted_return,
    evaluate_policy,
    optimal_actions,
    policy_iteration,
    simulate,
    value_iteration,
)
from amenable.control.gridworld import REWARDS, world_of
from amenable.control.gridworld_preferences import LearnedRewards, greedy
from amenable.recipes.reports.rendering import render

SLIPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
DISCOUNTS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
ARROWS = "↑→↓←"
"""of the actions, in their order"""
WALKS, MAX_STEPS = 3, 80
"""trajectories of each position of the sliders, and their greatest length"""


def page(rows: Sequence[str], command: str, slip: float, gamma: float, compared: dict[str, Any] | None = None) -> str:
    """Return the page of a map. command: the one that makes it. slip, gamma: where the sliders begin. compared: learned
    rewards, by `comparison`."""
    slips, discounts = sorted({*SLIPS, slip}), sorted({*DISCOUNTS, gamma})
    values: dict[str, Any] = {
        "data": solutions(rows, slips, discounts),
        "rewards": REWARDS,
        "slips": slips,
        "discounts": discounts,
    }
    values |= {"slip": slips.index(slip), "discount": discounts.index(gamma)}
    return render("gridworld.jinja", css="report.css", js="gridworld.js", command=command, compared=compared, **values)


def comparison(
    rows: Sequence[str], world: MarkovDecisionProcess, gamma: float, learned: LearnedRewards
) -> dict[str, Any]:
    """Return true and learned rewards of each cell, with the moves that are optimal for them, as the page shows."""
    best = optimal_actions(world, value_iteration(world, gamma)[0], gamma)
    moves, letters, most = greedy(world, learned.rewards, gamma), "".join(rows), np.abs(world.rewards).max()
    arrows = [
        ["".join(ARROWS[a] for a in np.nonzero(row)[0]) for row in best],
        [ARROWS[move] for move in moves],
    ]
    maps = [
        [
            {"letter": letters[i].strip("."), "reward": float(reward), "arrows": "" if world.terminal[i] else own[i]}
            | {"strength": round(0.75 * min(1, abs(reward) / most) ** 0.5, 3), "wrong": bool(not best[i, moves[i]])}
            for i, reward in enumerate(rewards)
        ]
        for own, rewards in zip(arrows, (world.rewards, learned.scaled))
    ]
    names = "true reward", f"learned from {learned.rounds[-1][0]} comparisons"
    return {"columns": len(rows[0]), "maps": list(zip(names, maps)), "rounds": learned.rounds}


def solutions(rows: Sequence[str], slips: Sequence[float], discounts: Sequence[float]) -> dict[str, Any]:
    """Return the map and, by slip and discount, what gridworld.js shows: `solutions[slip][discount]`."""
    return {
        "rows": list(rows),
        "slips": slips,
        "discounts": discounts,
        "start": "".join(rows).index("S"),
        "solutions": [[solution(rows, slip, gamma) for gamma in discounts] for slip in slips],
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
