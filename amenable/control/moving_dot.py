"""A moving dot: the smallest task from pixels. A dot is to be brought to the middle of the image.

Each step moves it by one pixel, or not at all. The reward is 1 for a step towards the middle, -1 for one away from it,
0 otherwise. Episodes have one length (the time limit), so that nothing but the image says how well it goes.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

SIZE = 36
"""pixels of a side: the least that three convolutions of strides 4, 2 and 1 take"""
RADIUS = 2
"""the dot is a square of 2 RADIUS + 1 pixels"""
MOVES = np.array([(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)])
"""(down, right) of stay, up, right, down, left"""

Image = NDArray[np.uint8]


class MovingDot(gymnasium.Env[Image, np.int64]):
    """Gymnasium environment: an image [SIZE, SIZE, 1] of a dot, and five moves."""

    observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(len(MOVES))

    def __init__(self) -> None:
        self.position = np.zeros(2, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        """Put the dot anywhere in the image."""
        super().reset(seed=seed)
        self.position = self.np_random.integers(RADIUS, SIZE - RADIUS, 2)
        return self.image(), {}

    def step(self, action: int | np.int64) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        """Move the dot; it stops at the edges."""
        before = self.distance()
        self.position = np.clip(self.position + MOVES[action], RADIUS, SIZE - 1 - RADIUS)
        return self.image(), float(before - self.distance()), False, False, {}

    def distance(self) -> int:
        """Return the steps from here to the middle."""
        return int(np.abs(self.position - SIZE // 2).sum())

    def image(self) -> Image:
        """Return the dot in white on black."""
        image = np.zeros((SIZE, SIZE, 1), np.uint8)
        (down, right), reach = self.position, RADIUS + 1
        image[down - RADIUS : down + reach, right - RADIUS : right + reach] = 255
        return image
