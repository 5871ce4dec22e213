"""From at most 200 comparisons of trajectories to the optimal policy of the gridworld."""

from __future__ import annotations

import numpy as np
import pytest

from amenable.control.gridworld import DEFAULT_MAP, world_of
from amenable.control.gridworld_preferences import learn_rewards, share_optimal, trajectories

SMALL = ["S..", "TB.", "..M"]
GAMMA = 0.9


def test_comparisons_of_trajectories_give_the_optimal_policy() -> None:
    world = world_of(SMALL)
    learned = learn_rewards(world, GAMMA, 80, 0)
    assert learned.rounds[-1] == (80, 1.0) and learned.rounds[0][1] < 1
    assert share_optimal(world, learned.rewards, GAMMA) == 1
    order = learned.rewards[[3, 4, 2, 8]]  # bathtub, broom, empty, meat
    assert np.all(np.diff(order) > 0)


@pytest.mark.slow
def test_nearly_every_cell_of_a_larger_map_has_an_optimal_move() -> None:
    shares = [learn_rewards(world_of(DEFAULT_MAP), GAMMA, 200, seed).rounds[-1][1] for seed in range(3)]
    assert min(shares) >= 0.9, shares


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_two_hundred_comparisons_are_enough_on_every_seed(seed: int) -> None:
    assert learn_rewards(world_of(SMALL), GAMMA, 200, seed).rounds[-1] == (200, 1.0)


def test_trajectories_begin_together_and_are_worth_their_discounted_return() -> None:
    world = world_of(SMALL)
    moves = [np.array([1, 1, 2, 0, 1, 2, 1, 1, 0])]
    for seed in range(20):
        for clip in trajectories(world, moves, GAMMA, np.random.default_rng(seed)):
            arrivals = clip.observations[0].astype(float)
            steps = round(float(np.log(1 - arrivals.sum() * (1 - GAMMA)) / np.log(GAMMA)))
            assert arrivals.sum() == pytest.approx((1 - GAMMA**steps) / (1 - GAMMA), rel=1e-4) and 1 <= steps <= 30
            assert clip.rewards[0] == pytest.approx(float(arrivals @ world.rewards), abs=1e-3)
            assert steps == 30 or arrivals[world.terminal].sum() == pytest.approx(GAMMA ** (steps - 1), rel=1e-4)


def test_a_wrong_reward_is_not_optimal() -> None:
    world = world_of(SMALL)
    assert share_optimal(world, world.rewards, GAMMA) == 1 and share_optimal(world, -world.rewards, GAMMA) < 0.5
