"""What the peak learning rate is multiplied by at a step. Numbers in, a number out; schedules multiply."""

from __future__ import annotations

import math


def warmup(step: int, steps: int) -> float:
    """Rises in equal parts to 1 over the first `steps` steps, counted from 1; always 1 without warm-up steps."""
    return min(1.0, step / steps) if steps > 0 else 1.0


def constant(step: int, total: int) -> float:
    """1, whatever the step."""
    return 1.0


def linear(step: int, total: int, floor: float = 0.0) -> float:
    """Falls in a line from 1 at step 0 to `floor` at step `total`, and stays there."""
    return 1 - (1 - floor) * progress(step, total)


def cosine(step: int, total: int, floor: float = 0.1) -> float:
    """Falls along half a cosine from 1 at step 0 to `floor` at step `total`, and stays there."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress(step, total))) / 2


def progress(step: int, total: int) -> float:
    """Share of `total` steps that are over, between 0 and 1."""
    if total < 1:
        raise ValueError(f"a schedule over {total} steps")
    return min(max(step / total, 0.0), 1.0)
