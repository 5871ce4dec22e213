"""A scripted judge of backflips: what somebody would say who watches clips of `amenable/Backflip-v0`.

A clip is better that turns further backwards, and of two that turn about as far the one that leaves the ground higher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, SINE, COSINE = 0, 1, 2
"""columns of an observation"""
CLOSE = 0.02
"""turns: rotations nearer than this are alike to the eye"""


def rotation(observations: NDArray) -> float:
    """Return the backward rotation in a clip [L, D], in turns."""
    pitch = np.unwrap(np.arctan2(observations[:, SINE], observations[:, COSINE]))
    return float(pitch[0] - pitch[-1]) / (2 * np.pi)


def compare(left: NDArray, right: NDArray) -> float:
    """Return left's share of the vote between two clips [L, D]: 1, 0, or .5 where they look alike."""
    gap = rotation(left) - rotation(right)
    if abs(gap) < CLOSE:
        gap = float(left[:, HEIGHT].max() - right[:, HEIGHT].max())
        if abs(gap) < CLOSE:
            return 0.5
    return float(gap > 0)
