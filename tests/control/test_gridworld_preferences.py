"""From at most 200 comparisons of trajectories to the optimal policy of the gridworld."""

from __future__ import annotations

import numpy as np
import pytest

from amenable.control.gridworld import world_of
from amenable.control.gridworld_preferences import learn_rewards, share_optimal, trajectories

SMALL = ["S..", "TB.", "..M"]
GAMMA = 0.9


def test_comparisons_of_trajectories_give_the_optimal_policy() -> None:
    world = world_of(SMALL)
    learned = learn_rewards(world, GAMMA, 120, 0)
    assert learned.rounds[-1] == (120, 1.0) and learned.rounds[0][1] < 1
    assert share_optimal(world, learned.rewards, GAMMA) == 1
    order = learned.rewards[[3, 4, 2, 8]]  # bathtub, broom, empty, meat
    assert np.all(np.diff(order) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_two_hundred_comparisons_are_enough_on_every_seed(seed: int) -> None:
    assert learn_rewards(world_of(SMALL), GAMMA, 200, seed).rounds[-1] == (200, 1.0)


def test_trajectories_begin_together_and_are_worth_their_discounted_return() -> None:
    world = world_of(SMALL)
    moves = [np.array([1, 1, 2, 0, 1, 2, 1, 1, 0])]
    for seed in range(20):
        for clip in trajectories(world, moves, GAMMA, np.random.default_rng(seed)):
            steps = clip.observations.sum(axis=1)
            taken = np.nonzero(steps)[0]
            assert np.allclose(steps[taken], GAMMA ** np.arange(len(taken))) and list(taken) == list(range(len(taken)))
            assert clip.rewards.sum() == pytest.approx(float(clip.observations.sum(axis=0) @ world.rewards), abs=1e-4)


def test_a_wrong_reward_is_not_optimal() -> None:
    world = world_of(SMALL)
    assert share_optimal(world, world.rewards, GAMMA) == 1 and share_optimal(world, -world.rewards, GAMMA) < 0.5
