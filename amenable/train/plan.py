"""The plan of a run as arithmetic, printed before it starts: what is read, how many steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from amenable.errors import InputError
from amenable.functional import schedules

WARMUP_SHARE = 8
"""a warm-up takes at most one in so many steps, unless more are given"""
MAX_COUNT = 10**9
"""what is counted, or weighed, by more than this is a slip of the hand"""


def parameters(module: nn.Module) -> str:
    """'2.03M parameters', those that train told apart where some are frozen."""
    total = sum(p.numel() for p in module.parameters())
    training = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return f"{human_count(total)} parameters" + (f", {human_count(training)} training" if training != total else "")


def human_count(number: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def require_at_least(least: float, options: Any, *names: str) -> None:
    """InputError for an option of a stage that is below `least`, above a billion, or not a number. None passes: it is
    open yet."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not least <= value <= MAX_COUNT:
            how = f"it must be {MAX_COUNT:,} or less" if MAX_COUNT < value < math.inf else f"it must be {least} or more"
            raise InputError(f"{name} is {value}", how=how)


def require_below_one(options: Any, *names: str) -> None:
    """InputError for an option of a stage that does not lie in [0, 1). None passes: it is open yet."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{name} is {value}", how="it must lie in [0, 1)")


def require_share(options: Any, *names: str) -> None:
    """InputError for an option of a stage that does not lie in [0, 1]."""
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(f"{name} is {getattr(options, name)}", how="it must lie in [0, 1]")


def require_above_zero(options: Any, *names: str) -> None:
    """InputError for an option of a stage that is not above 0, or above a billion. None passes: it is open yet."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value <= MAX_COUNT:
            raise InputError(f"{name} is {value}", how="it must be above 0, and finite")


def require_minibatches(options: Any) -> None:
    """InputError where `num_mini_batches` does not divide the samples of a step."""
    if options.samples % options.num_mini_batches:
        what = f"num_mini_batches {options.num_mini_batches} does not divide the {options.samples} samples of a step"
        raise InputError(what, how="prompts_per_step x num_generations must be a multiple")


@dataclass(frozen=True)
class Schedule:
    """Step (from 1) -> multiplier of the peak learning rate: a linear warm-up, then a cosine."""

    total: int
    warmup_steps: int
    floor: float
    """multiplier that the cosine reaches one step after `total`"""
    remark: str = ""
    """why the warm-up is shorter than usual, or than given"""

    def __call__(self, step: int) -> float:
        rising = schedules.warmup(step, self.warmup_steps)
        falling = max(step - 1 - self.warmup_steps, 0), max(self.total - self.warmup_steps, 1)
        return rising * schedules.cosine(*falling, self.floor)

    def __str__(self) -> str:
        return f"{self.total} steps, {self.warmup_steps or 'none'} of them warm-up{self.remark}"


def cosine_with_warmup(total: int, warmup_steps: int | None, floor: float, usual: int = 10) -> Schedule:
    """Rise over `warmup_steps`, then fall along a cosine to `floor` of the peak.

    Without a number the warm-up takes the usual steps, and at most one in `WARMUP_SHARE` of the run. One that is given
    and does not fit into the run shrinks to that.
    """
    if warmup_steps is not None and warmup_steps < 0:
        raise InputError(f"warmup_steps is {warmup_steps}", how="it must be 0 or more")
    if not 0 <= floor <= 1:
        raise InputError(f"final_lr_frac is {floor}", how="it is a share of the peak, from 0 to 1")
    most = max(1, total // WARMUP_SHARE)
    if warmup_steps is None:
        remark = f" (at most one in {WARMUP_SHARE}; {usual} are usual)" if most < usual else ""
        return Schedule(total, min(usual, most), floor, remark)
    if warmup_steps >= total > 0 and warmup_steps > most:
        return Schedule(total, most, floor, f" (the {warmup_steps} given do not fit)")
    return Schedule(total, warmup_steps, floor)


def epochs_of(epochs: float, rows: int, per_step: int) -> int:
    """Steps that `epochs` passes over `rows` rows take at `per_step` rows a step."""
    if rows < 1:
        raise InputError("no rows to train on")
    return max(1, math.ceil(epochs * rows / per_step))


def rollouts(options: Any, schedule: Schedule, prompts: int) -> str:
    """What a stage that learns from its own samples does in a step, and how often it meets each prompt."""
    epochs = options.max_steps * options.prompts_per_step / prompts
    return (
        f"{options.prompts_per_step} prompts x {options.num_generations} samples a step; "
        f"{options.num_ppo_epochs} epochs x {options.num_mini_batches} minibatches; "
        f"{epochs:.2f} epochs of prompts in {schedule}"
    )


def forbid(wrong: object, what: str, how: str) -> None:
    """InputError where `wrong` is true."""
    if wrong:
        raise InputError(what, how=how)
