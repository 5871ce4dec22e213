"""Random numbers as a function of (seed, purpose, step, row).

Nothing depends on what ran before: a run that goes on after a stop needs no random state.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive_seed(seed: int, *parts: object) -> int:
    """Return a seed in [0, 2^63) for one purpose, from the run's seed and the purpose's names and numbers.

    The same on every machine; neighbouring seeds and purposes give unrelated values.
    """
    return _integer(repr((seed, *parts)))


def mix(seed: int, part: int) -> int:
    """Return a new seed from two numbers; near ones give unrelated seeds."""
    return _integer(f"{seed},{part}")


def seeded_generator(seed: int, *parts: object) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def uniforms(seed: int, count: int) -> Tensor:
    """Return the numbers in [0, 1) that one completion is sampled with, [count]."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generator for one step: dropout takes no generator, and becomes a function of the step, and
    of the process where several divide the step's rows."""
    torch.manual_seed(derive_seed(seed, "step", step, *([rank] if rank else [])))


def _integer(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
