"""Finite Markov decision processes solved exactly: the oracle that agents are compared with.

    P(s' | s, a) transitions     r(s') reward on arrival     G = r_1 + gamma r_2 + gamma^2 r_3 + ...
    V_pi(s) = sum_a pi(a | s) Q_pi(s, a)        Q_pi(s, a) = sum_s' P(s' | s, a) (r(s') + gamma V_pi(s'))

Sutton and Barto (2018), chapters 3 and 4. Letters: S states, A actions, T steps. Nothing follows a terminal state, so
its value is 0. All numbers are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MarkovDecisionProcess:
    """States, actions and rewards of a finite world."""

    transitions: Array
    """[S, A, S]: probability of the next state; those of a terminal state are not read"""
    rewards: Array
    """[S]: reward on arrival in a state"""
    terminal: NDArray[np.bool_]
    """[S]: True where an episode ends"""
    start: int
    """state in which an episode begins"""

    @property
    def num_actions(self) -> int:
        """Number of actions, the same in every state."""
        return self.transitions.shape[1]


def action_values(world: MarkovDecisionProcess, values: Array, gamma: float) -> Array:
    """Return Q [S, A] of the state values [S] that follow; 0 in terminal states."""
    after = np.where(world.terminal, 0.0, values)
    returns = world.transitions @ (world.rewards + gamma * after)
    return np.where(world.terminal[:, None], 0.0, returns)


def evaluate_policy(world: MarkovDecisionProcess, policy: Array, gamma: float) -> Array:
    """Return V_pi [S] of a policy [S, A] (probabilities), the solution of its linear equations.

    gamma is below 1, or 1 for a policy that comes to an end from everywhere. ValueError where it does not.
    """
    goes_on = ~world.terminal
    chain = np.einsum("sa,sat->st", policy, world.transitions)[np.ix_(goes_on, goes_on)]
    immediate = np.einsum("sa,sat,t->s", policy, world.transitions, world.rewards)[goes_on]
    values = np.zeros(len(world.rewards))
    try:
        values[goes_on] = np.linalg.solve(np.eye(len(chain)) - gamma * chain, immediate)
    except np.linalg.LinAlgError:
        raise ValueError(f"with gamma {gamma} the policy has no finite value: it never ends from some state") from None
    return values


def value_iteration(world: MarkovDecisionProcess, gamma: float, tolerance: float = 1e-10) -> tuple[Array, int]:
    """Return the optimal values [S], and the sweeps taken.

        V(s) <- max_a Q(s, a)    until no value is further than `tolerance` from V* (Sutton and Barto, 4.4)

    gamma is below 1. A sweep that changes no value by more than d is within gamma d / (1 - gamma) of V*.
    """
    values, sweeps, change = np.zeros(len(world.rewards)), 0, np.inf
    while change * gamma > tolerance * (1 - gamma):
        new = action_values(world, values, gamma).max(axis=1)
        change, values, sweeps = float(np.abs(new - values).max()), new, sweeps + 1
    return values, sweeps


def policy_iteration(world: MarkovDecisionProcess, gamma: float) -> tuple[Array, NDArray[np.int64], int]:
    """Return the optimal values [S], an optimal action of every state [S], and the improvements made.

    Evaluation by linear equations and greedy improvement in turn, until no action is better by more than rounding
    (Sutton and Barto, 4.3). gamma is below 1.
    """
    actions, improvements = np.zeros(len(world.rewards), np.int64), 0
    while True:
        values = evaluate_policy(world, deterministic(actions, world.num_actions), gamma)
        quality = action_values(world, values, gamma)
        taken = np.take_along_axis(quality, actions[:, None], 1)[:, 0]
        better = quality.max(axis=1) > taken + 1e-9
        if not better.any():
            return values, actions, improvements
        actions, improvements = np.where(better, quality.argmax(axis=1), actions), improvements + 1


def optimal_actions(world: MarkovDecisionProcess, values: Array, gamma: float, tolerance: float = 1e-6) -> NDArray:
    """Return True [S, A] for every action that is as good as the best, given the optimal values [S]."""
    quality = action_values(world, values, gamma)
    return quality >= quality.max(axis=1, keepdims=True) - tolerance


def deterministic(actions: NDArray[np.int64], num_actions: int) -> Array:
    """Return the policy [S, A] that takes one action in every state [S]."""
    return np.eye(num_actions)[actions]


def discounted_return(rewards: Sequence[float], gamma: float) -> float:
    """Return r_1 + gamma r_2 + gamma^2 r_3 + ... of a trajectory's rewards [T]."""
    total = 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
    return total


def trajectory_probability(
    world: MarkovDecisionProcess, policy: Array, states: Sequence[int], actions: Sequence[int]
) -> float:
    """Return the probability of a trajectory s_0 a_0 s_1 a_1 ... s_T, T actions between T + 1 states, from its start.

    prod_t pi(a_t | s_t) P(s_{t+1} | s_t, a_t); 0 for one that begins elsewhere than the world's start.
    """
    if len(states) != len(actions) + 1:
        raise ValueError(f"{len(states)} states and {len(actions)} actions: a trajectory has one state more")
    probability = float(states[0] == world.start)
    for state, action, after in zip(states, actions, states[1:]):
        probability *= 0.0 if world.terminal[state] else policy[state, action] * world.transitions[state, action, after]
    return float(probability)


def simulate(
    world: MarkovDecisionProcess, policy: Array, generator: np.random.Generator, max_steps: int
) -> tuple[list[int], list[int], list[float]]:
    """Draw a trajectory: states [T + 1], actions [T] and rewards [T], at most `max_steps` long."""
    states, actions, rewards = [world.start], list[int](), list[float]()
    while len(actions) < max_steps and not world.terminal[states[-1]]:
        action = int(generator.choice(world.num_actions, p=policy[states[-1]]))
        state = int(generator.choice(len(world.rewards), p=world.transitions[states[-1], action]))
        actions.append(action)
        states.append(state)
        rewards.append(float(world.rewards[state]))
    return states, actions, rewards
