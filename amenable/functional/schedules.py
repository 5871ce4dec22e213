"""Learning-rate schedules: a step to the factor of the peak learning rate. Factors multiply."""

from __future__ import annotations

import math


def warmup(step: int, steps: int) -> float:
    """Linear warm-up: rises in equal parts to 1 over the first `steps` steps, counted from 1; always 1 for 0 steps."""
    return min(1.0, step / steps) if steps > 0 else 1.0


def cosine(step: int, total: int, floor: float = 0.1) -> float:
    """Cosine decay: falls along half a cosine from 1 at step 0 to `floor` at step `total`, and stays there."""
    if total < 1:
        raise ValueError(f"a schedule over {total} steps")
    progress = min(max(step / total, 0.0), 1.0)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
