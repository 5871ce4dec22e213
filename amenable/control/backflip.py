"""The backflip of Christiano et al. (2017): MuJoCo's hopper without any reward. Comparisons alone say what to do.

Every reward is 0 and no state ends an episode, which lasts as long as its time limit. `info` measures what was learned
and is never observed: `rotation`, the torso's backward rotation since the start, in turns, and `full_turn`, 1 once that
has reached 1 in the episode. Metrics have their means over episodes, such as episode/rotation and eval/full_turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.spaces import Box
from numpy.typing import NDArray

PITCH = 2
"""position of the torso's hinge among the model's, in radians, forward positive"""


class Backflip(HopperEnv):
    """Hopper with the sine and cosine of its pitch in place of the angle, which would count turns."""

    episode_measures = ("rotation", "full_turn")

    def __init__(self, **options: Any):
        super().__init__(terminate_when_unhealthy=False, **options)
        self.observation_space = Box(-np.inf, np.inf, self._get_obs().shape, np.float64)
        self.first_pitch, self.full_turn = 0.0, 0.0

    def _get_obs(self) -> NDArray[np.float64]:
        """Return height, sine and cosine of the pitch, the three joints' angles, and the six velocities."""
        positions, velocities = self.data.qpos, np.clip(self.data.qvel, -10, 10)
        pitch = positions[PITCH]
        return np.concatenate([positions[1:PITCH], [np.sin(pitch), np.cos(pitch)], positions[PITCH + 1 :], velocities])

    def reset(self, **options: Any) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Stand the hopper up; rotation is counted from here."""
        observation, info = super().reset(**options)
        self.first_pitch, self.full_turn = float(self.data.qpos[PITCH]), 0.0
        return observation, {**info, "rotation": 0.0, "full_turn": 0.0}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Apply the torques; the reward is 0."""
        observation, _, _, _, info = super().step(action)
        rotation = (self.first_pitch - float(self.data.qpos[PITCH])) / (2 * np.pi)
        self.full_turn = max(self.full_turn, float(rotation >= 1))
        return observation, 0.0, False, False, {**info, "rotation": rotation, "full_turn": self.full_turn}
