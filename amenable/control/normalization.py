"""Normalisation of observations and rewards by running moments, as in OpenAI's baselines.

    o' = clip((o - mean) / sqrt(var + 1e-8), -10, 10)          r' = clip(r / sqrt(var(R) + 1e-8), -10, 10)
    R_t = gamma R_{t-1} (0 after the end of an episode) + r_t

Moments are merged a rollout at a time, after it: one observation has one normalised value in the whole rollout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

EPSILON = 1e-8
LIMIT = 10.0
"""normalised numbers are clipped to this size"""


class RunningMoments:
    """Mean and variance of all numbers so far, by column (Chan et al., 1979, merge of two samples)."""

    def __init__(self, shape: tuple[int, ...] = ()):
        self.count, self.mean, self.var = 0.0, np.zeros(shape), np.ones(shape)

    def update(self, numbers: NDArray) -> None:
        """Add numbers [N, ...]."""
        if not len(numbers):
            return
        count, mean, var = len(numbers), numbers.mean(0, dtype=np.float64), numbers.var(0, dtype=np.float64)
        total, gap = self.count + count, mean - self.mean
        squares = (self.var * self.count if self.count else 0.0) + var * count + gap**2 * self.count * count / total
        self.mean, self.var, self.count = self.mean + gap * count / total, squares / total, total

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": torch.tensor(self.mean), "var": torch.tensor(self.var)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.var = state["count"], state["mean"].numpy(), state["var"].numpy()


class ObservationNormalizer(RunningMoments):
    """Normalisation of vectors; one that is off, as for images, leaves observations as they are."""

    def __init__(self, shape: tuple[int, ...], enabled: bool):
        super().__init__(shape if enabled else ())
        self.enabled = enabled
        self.derive()

    def derive(self) -> None:
        """Compute what `normalize` adds and multiplies by, in float32."""
        scale = 1 / np.sqrt(self.var + EPSILON)
        self.scale, self.shift = scale.astype(np.float32), (-self.mean * scale).astype(np.float32)

    def normalize(self, observations: NDArray) -> NDArray:
        """Return observations [..., D] normalised, in float32; images unchanged."""
        if not self.enabled:
            return observations
        return np.clip(observations * self.scale + self.shift, -LIMIT, LIMIT)

    def update(self, numbers: NDArray) -> None:
        if self.enabled:
            super().update(numbers)
            self.derive()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.derive()


class RewardScaler(RunningMoments):
    """Division of rewards by the standard deviation of the discounted return."""

    def __init__(self, num_envs: int, gamma: float, enabled: bool):
        super().__init__()
        self.gamma, self.enabled, self.running = gamma, enabled, np.zeros(num_envs)

    def scale(self, rewards: NDArray, ended: NDArray, mask: NDArray) -> NDArray:
        """Add a rollout's rewards [T, E] to the moments and return them scaled. ended [T, E] is True in an episode's
        last step; mask [T, E] where there was a step."""
        if not self.enabled:
            return rewards
        returns = np.empty_like(rewards)
        for t in range(len(rewards)):
            self.running = np.where(mask[t], self.gamma * self.running + rewards[t], self.running)
            returns[t] = self.running
            self.running = np.where(ended[t], 0.0, self.running)
        self.update(returns[mask])
        return np.clip(rewards / np.sqrt(self.var + EPSILON), -LIMIT, LIMIT)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "running": torch.from_numpy(self.running.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.running = state["running"].numpy()
