"""Options of rewards that run code or wait for an answer, the same for every command with --reward or --judge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from amenable.errors import InputError


@dataclass(frozen=True)
class RewardOptions:
    """Limits of reward functions, addresses, code and judges."""

    reward_timeout: float = 600.0
    """seconds after which a call of a reward function, or a request to an address or judge, has failed"""
    allow_code_execution: bool = False
    """let `code:` run what a model has written, in a sandbox of this machine"""
    code_workers: int = 0
    """programs of `code:` that run at once; 0 is one for each core"""
    code_timeout: float = 10.0
    """seconds after which a program is killed, of the processor and of the clock"""
    code_memory: int = 1024
    """MiB of address space of a program"""
    judge_rubric: Path | None = None
    """text file of what a `judge:` looks at; without it helpful, truthful and harmless"""
    judge_cache: Path | None = None
    """file of a judge's verdicts: a question that is in it is not sent again"""
    judge_workers: int = 8
    """questions to a judge at once"""

    def __post_init__(self) -> None:
        for name in ("reward_timeout", "code_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}", how="give a number of seconds above 0")
        for name, least in (("code_workers", 0), ("code_memory", 64), ("judge_workers", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must be {least} or more")


Scoring = Annotated[RewardOptions, arg(name="")]
"""field of a Config: its options are the command's own, --reward-timeout and so on"""
