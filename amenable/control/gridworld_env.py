"""The gridworld (control/gridworld.py) as a gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from amenable.control.gridworld import DEFAULT_MAP, MOVES, world_of


class Gridworld(gymnasium.Env[np.int64, np.int64]):
    """Gymnasium environment of a map: observations are cells, actions the four moves."""

    def __init__(self, rows: Sequence[str] = DEFAULT_MAP, slip: float = 0.0, random_start: bool = False):
        """random_start: begin in any cell that ends no episode, each as likely, in place of S."""
        self.rows, self.world = tuple(rows), world_of(rows, slip)
        self.observation_space = gymnasium.spaces.Discrete(len(self.world.rewards))
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.cumulative = self.world.transitions.cumsum(axis=2)
        self.state = self.world.start
        self.starts = np.flatnonzero(~self.world.terminal) if random_start else np.array([self.world.start])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Put the cat on the start, or on a random one."""
        super().reset(seed=seed)
        self.state = int(self.starts[0] if len(self.starts) == 1 else self.np_random.choice(self.starts))
        return np.int64(self.state), {}

    def step(self, action: int | np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Move the cat; the episode ends in a bathtub, and with the meat."""
        reached = np.searchsorted(self.cumulative[self.state, action], self.np_random.random(), side="right")
        self.state = min(int(reached), len(self.world.rewards) - 1)
        reward, ends = float(self.world.rewards[self.state]), bool(self.world.terminal[self.state])
        return np.int64(self.state), reward, ends, False, {}
