"""Rollouts: steps of a policy in several environments side by side. Letters: T steps, E environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from amenable.control.environments import Environments
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy

BLOCK = 64
"""steps whose random numbers are drawn at once"""

Row = tuple[NDArray, ...]
RewardFunction = Callable[[NDArray, NDArray], NDArray]
"""(observations [T, E, ...], executed actions [T, E] or [T, E, A]) -> rewards [T, E]: in the environment's place"""


@dataclass
class Rollout:
    """Steps of E environments, in flat arrays [T, E, ...]."""

    observations: NDArray
    """as the environment gives them, not normalised; what each action was taken on"""
    actions: NDArray
    """[T, E] or [T, E, A], as drawn from the policy"""
    executed: NDArray
    """the same, clipped to the action space"""
    rewards: NDArray
    """[T, E]: the environment's own"""
    terminated: NDArray
    """[T, E]: the task has ended with this step, nothing follows"""
    truncated: NDArray
    """[T, E]: the time limit has cut the episode after this step"""
    mask: NDArray
    """[T, E]: True where there was a step; all of them, unless whole episodes were collected"""
    cut_observations: NDArray
    """[K, ...]: what came after each truncated step, in the order of np.nonzero(truncated)"""
    last_observations: NDArray
    """[E, ...]: what comes after the last steps that have ended no episode"""

    @property
    def ended(self) -> NDArray:
        """[T, E]: True in the last step of an episode."""
        return self.terminated | self.truncated

    @property
    def num_steps(self) -> int:
        """Number of steps that there were."""
        return int(self.mask.sum())


def collect(
    environments: Environments,
    policy: Policy,
    normalizer: ObservationNormalizer,
    num_steps: int,
    generator: torch.Generator | None,
    whole_episodes: bool = False,
) -> Rollout:
    """Take num_steps steps in every environment, from where each stands.

    whole_episodes: instead begin episodes until there are num_steps x E steps in all, and play each to its end; with 0,
    one in every environment. Without a generator the likeliest action is taken.
    """
    active, rows, cut = np.ones(len(environments), bool), list[Row](), list[NDArray]()
    noise: NDArray | None = None
    taken = 0
    while active.any():
        t = len(rows)
        if generator is not None and t % BLOCK == 0:
            noise = policy.noise((BLOCK, len(environments)), generator)
        observations, mask = environments.observations, active.copy()
        actions = policy.act(normalizer.normalize(observations), 0.0 if noise is None else noise[t % BLOCK])
        executed = environments.executed(actions)
        rewards, terminated, truncated, ends = environments.step(executed, active)
        rows.append((observations, actions, executed, rewards, terminated, truncated, mask))
        cut += [observation for index, observation in ends.items() if truncated[index]]
        taken += int(mask.sum())
        if not whole_episodes:
            active[:] = t + 1 < num_steps
        elif taken >= num_steps * len(environments):
            active &= ~(terminated | truncated)
    observations, actions, executed, rewards, terminated, truncated, mask = (np.stack(column) for column in zip(*rows))
    after_cuts = np.stack(cut) if cut else observations[:0, 0]
    last = environments.observations
    return Rollout(observations, actions, executed, rewards, terminated, truncated, mask, after_cuts, last)
