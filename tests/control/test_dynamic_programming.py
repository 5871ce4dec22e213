"""Exact values of small worlds: by hand, by linear equations, and two methods that agree."""

import numpy as np
import pytest

from amenable.control.dynamic_programming import (
    action_values,
    deterministic,
    discounted_return,
    evaluate_policy,
    optimal_actions,
    policy_iteration,
    simulate,
    trajectory_probability,
    value_iteration,
)
from amenable.control.gridworld import DEFAULT_MAP, world_of

CORRIDOR = world_of(["SBM"])
"""start, broom, meat"""
UNIFORM = np.full((3, 4), 0.25)
RIGHT = 1


def test_values_by_hand() -> None:
    """V(broom) = 100; V(start) = -1 + .5 x 100; of the random policy the solution of two equations."""
    values, sweeps = value_iteration(CORRIDOR, 0.5)
    assert values == pytest.approx([49, 100, 0]) and sweeps >= 2
    quality = action_values(CORRIDOR, values, 0.5)
    assert quality[0] == pytest.approx([24.5, 49, 24.5, 24.5]) and quality[1] == pytest.approx([49, 100, 49, 24.5])
    assert quality[2].tolist() == [0, 0, 0, 0], "nothing follows the end"
    random = evaluate_policy(CORRIDOR, UNIFORM, 0.5)
    broom = (24.5 + 0.125 * random[0]) / 0.75
    assert random == pytest.approx([6.344828, 33.724138, 0], abs=1e-6) and random[1] == pytest.approx(broom)
    assert optimal_actions(CORRIDOR, values, 0.5)[:2].tolist() == [[False, True, False, False]] * 2


@pytest.mark.parametrize("slip", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("gamma", [0.5, 0.95])
def test_value_and_policy_iteration_agree(slip: float, gamma: float) -> None:
    world = world_of(DEFAULT_MAP, slip)
    values, _ = value_iteration(world, gamma)
    by_policies, actions, improvements = policy_iteration(world, gamma)
    assert np.abs(values - by_policies).max() < 1e-8 and improvements > 0
    assert optimal_actions(world, values, gamma)[np.arange(len(actions)), actions].all()
    assert evaluate_policy(world, deterministic(actions, 4), gamma) == pytest.approx(values)
    assert (evaluate_policy(world, np.full((len(values), 4), 0.25), gamma) <= values + 1e-9).all()


def test_without_discount_a_policy_must_come_to_an_end() -> None:
    assert evaluate_policy(CORRIDOR, deterministic(np.array([RIGHT] * 3), 4), 1.0) == pytest.approx([99, 100, 0])
    with pytest.raises(ValueError, match="never ends"):
        evaluate_policy(CORRIDOR, deterministic(np.array([0, 0, 0]), 4), 1.0)


def test_returns_and_probabilities_of_trajectories_by_hand() -> None:
    assert discounted_return([-1, 100], 0.5) == 49 and discounted_return([], 0.5) == 0
    assert trajectory_probability(CORRIDOR, UNIFORM, [0, 1, 2], [RIGHT, RIGHT]) == 1 / 16
    drunk = world_of(["SBM"], 0.4)
    staying = trajectory_probability(drunk, UNIFORM, [0, 0, 1], [RIGHT, RIGHT])
    assert staying == pytest.approx(0.25 * 0.3 * 0.25 * 0.7)
    assert trajectory_probability(CORRIDOR, UNIFORM, [1, 2], [RIGHT]) == 0, "it begins elsewhere"
    assert trajectory_probability(CORRIDOR, UNIFORM, [0, 1, 2, 2], [RIGHT] * 3) == 0, "it goes on after the end"
    with pytest.raises(ValueError, match="one state more"):
        trajectory_probability(CORRIDOR, UNIFORM, [0, 1], [RIGHT, RIGHT])


def test_simulated_returns_agree_with_the_exact_expectation() -> None:
    world, gamma, generator = world_of(["S.B", ".T.", "..M"], 0.3), 0.9, np.random.default_rng(0)
    policy = np.random.default_rng(1).dirichlet(np.ones(4), 9)
    returns = np.array([discounted_return(simulate(world, policy, generator, 300)[2], gamma) for _ in range(1500)])
    exact = evaluate_policy(world, policy, gamma)[world.start]
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - exact) < 4 * error and error < 0.2 * returns.std()


def test_probabilities_of_all_short_trajectories_are_the_share_that_is_drawn() -> None:
    world, generator = world_of(["SM"], 0.2), np.random.default_rng(0)
    policy = np.full((2, 4), 0.25)
    direct = sum(trajectory_probability(world, policy, [0, 1], [a]) for a in range(4))
    assert direct == pytest.approx(0.25)
    drawn = np.mean([len(simulate(world, policy, generator, 5)[1]) == 1 for _ in range(800)])
    assert abs(drawn - direct) < 4 * np.sqrt(direct * (1 - direct) / 800)
