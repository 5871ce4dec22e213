"""The scripted judge prefers backward rotation, then height."""

from __future__ import annotations

import numpy as np

from amenable.control.backflip_judge import compare, rotation


def turning(turns: float, height: float = 1.2) -> np.ndarray:
    """A clip of 50 steps in which the pitch falls by so many turns: backwards."""
    pitch = 1.0 - np.linspace(0, 2 * np.pi * turns, 50)
    return np.stack([np.full(50, height), np.sin(pitch), np.cos(pitch)], axis=1)


def test_rotation_is_counted_over_full_turns() -> None:
    assert abs(rotation(turning(1.75)) - 1.75) < 1e-9 and abs(rotation(turning(-0.6)) + 0.6) < 1e-9


def test_more_backward_rotation_wins_then_height() -> None:
    assert compare(turning(0.5), turning(0.2)) == 1 and compare(turning(-0.5), turning(0)) == 0
    assert compare(turning(0.3, 1.5), turning(0.305, 1.2)) == 1 and compare(turning(0.3), turning(0.3)) == 0.5
