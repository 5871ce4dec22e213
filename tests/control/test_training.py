"""The loop: agents reach what dynamic programming says, from the environment's rewards or from a function's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amenable.control.agent import Agent
from amenable.control.dynamic_programming import deterministic, evaluate_policy, optimal_actions, value_iteration
from amenable.control.environments import Environments
from amenable.control.gridworld import world_of
from amenable.control.options import AgentOptions, fill
from amenable.control.ppo import PPO
from amenable.control.training import Progress, Training, evaluate, one_thread

MAP = ["S..", "TB.", "..M"]
"""the way through the broom is as short as that around it, and costs 1"""
GAMMA = 0.9
SIZES = {"PPO": (24, 15), "TRPO": (24, 12), "A2C": (8, 90), "Reinforce": (24, 30)}
"""steps of a copy in a rollout, and rollouts"""


def trained(kind: type[Agent], seed: int, reward: object = None) -> Training:
    """An agent trained briefly on the map."""
    copies = Environments("amenable/Gridworld-v0", 4, seed, rows=MAP, max_episode_steps=30)
    steps, rollouts = SIZES[kind.__name__]
    options = AgentOptions(
        num_envs=4, num_steps=steps, gamma=GAMMA, num_epochs=4, learning_rate=1e-2, hidden=(32,), entropy_coef=0.01
    )
    agent = kind(copies.spaces, fill(options, kind.defaults), seed)
    training = Training(agent, copies, rollouts * steps * 4, reward)  # type: ignore[arg-type]
    with one_thread():
        for iteration in range(1, rollouts + 1):
            training.step(iteration)
    return training


def is_optimal(training: Training) -> bool:
    """True if the likeliest action is an optimal one from every cell on the way, and their values are exact."""
    world = world_of(MAP)
    actions = training.agent.policy.act(np.eye(len(world.rewards), dtype=np.float32), 0.0)
    values, _ = value_iteration(world, GAMMA)
    state, best = world.start, optimal_actions(world, values, GAMMA)
    for _ in range(len(values)):
        if not best[state, actions[state]]:
            return False
        state = int(world.transitions[state, actions[state]].argmax())
    own = evaluate_policy(world, deterministic(actions, 4), GAMMA)[world.start]
    return bool(world.terminal[state]) and abs(own - values[world.start]) < 0.01


def test_rewards_may_come_from_a_function() -> None:
    """A cat that is paid for the bathtub goes there, whatever the environment says."""
    tubs = np.array([cell == "T" for row in MAP for cell in row])
    shapes = []

    def tub(observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """1 for the move into a bathtub from the start: down."""
        shapes.append((observations.shape, actions.shape))
        return (observations.argmax(-1) == 0) * (actions == 2) * 1.0

    training = trained(PPO, 0, tub)
    assert tubs[3] and training.agent.policy.act(np.eye(9, dtype=np.float32)[:1], 0.0)[0] == 2
    assert set(shapes) == {((24, 4, 9), (24, 4))}
    returns = [value for value, _ in training.progress.recent]
    assert np.mean(returns[-20:]) == pytest.approx(-10, abs=3), "returns are the environment's all the same"


def test_metrics_and_learning_rate() -> None:
    copies = Environments("CartPole-v1", 2, 0)
    options = fill(AgentOptions(num_envs=2, num_steps=50, num_epochs=1, final_lr_frac=0.5), PPO.defaults)
    training = Training(PPO(copies.spaces, options, 0), copies, 400)
    assert training.iterations == 4 and [training.multiplier(i) for i in (1, 3)] == [1.0, 0.75]
    _, metrics = training.step(1)
    assert metrics["timesteps"] == 100 and metrics["episodes"] == len(training.progress.recent) > 0
    assert metrics["episode/return"] == metrics["episode/length"] > 5
    assert training.normalizer.count == 100 and not np.allclose(training.normalizer.mean, 0)


def test_evaluation_plays_each_copy_once_by_the_likeliest_actions() -> None:
    training = trained(PPO, 0)
    copies = Environments("amenable/Gridworld-v0", 3, 7, rows=MAP)
    facts = evaluate(copies, training.agent.policy, training.normalizer)
    assert facts["eval/return"] == 100 and facts["eval/length"] == 4 and facts["eval/return_std"] == 0


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_what_an_environment_measures_of_an_episode_is_reported() -> None:
    pytest.importorskip("mujoco")
    copies = Environments("amenable/Backflip-v0", 2, 0, True, max_episode_steps=10)
    options = fill(AgentOptions(num_envs=2, num_steps=12, num_epochs=1), PPO.defaults)
    training = Training(PPO(copies.spaces, options, 0), copies, 48)
    _, metrics = training.step(1)
    first = [row["rotation"] for row in training.progress.measured]
    assert len(first) == 2 and metrics["episode/rotation"] == sum(first) / 2 != 0 and metrics["episode/full_turn"] == 0
    again = Progress(48)
    again.load_state_dict(training.progress.state_dict())
    assert again.measured == training.progress.measured
    facts = evaluate(copies, training.agent.policy, training.normalizer)
    assert abs(facts["eval/rotation"]) < 0.5 and facts["eval/full_turn"] == 0
