"""Options of rewards that run code or wait for an answer, the same for every command with --reward or --judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from amenable.errors import InputError

MAX_SECONDS = 86_400.0
BOUNDS = {"code_workers": (0, 1024), "code_memory": (64, 2**20), "judge_workers": (1, 1024)}
"""least and largest value of an option"""


@dataclass(frozen=True)
class RewardOptions:
    """Limits of reward functions, addresses, code and judges."""

    reward_timeout: float = 600.0
    """seconds after which a call of a reward function, or a request to an address, judge or reference, has failed"""
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
            if not 0 < getattr(self, name) <= MAX_SECONDS:
                raise InputError(f"{name} is {getattr(self, name)}", how="give seconds, above 0 and at most a day")
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must be {least} to {most:,}")


Scoring = Annotated[RewardOptions, arg(name="")]
"""field of a Config: its options are the command's own, --reward-timeout and so on"""
