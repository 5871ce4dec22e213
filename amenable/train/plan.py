"""Plan of a run: learning rate schedule, numbers of parameters and steps, and checks of options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from amenable.errors import InputError
from amenable.functional import schedules
from amenable.models.decoder import Decoder
from amenable.models.quantized_linear import QuantizedLinear
from amenable.text.default_system import default_system_prompt
from amenable.text.tokenizer import Tokenizer

EVAL_STEPS = 50
"""steps between two evaluations, unless more or fewer are given"""
WARMUP_SHARE = 8
"""by default the warm-up takes at most this fraction of the steps, 1 / WARMUP_SHARE"""
BETAS = 1e-4, 1e3
"""bounds of a beta: where a loss of beta log(pi / ref) halves at 10,000 nats, and at .001 nats"""
MAX_COUNT = 10**9
"""largest count or weight in an option: more is a typing error"""


def parameters(module: nn.Module) -> str:
    """Return such as "2.03M parameters", with the number that train if some are frozen, and virtual tokens."""
    packed = [part for part in module.modules() if isinstance(part, QuantizedLinear)]
    total = sum(p.numel() for p in module.parameters())
    total += sum(part.shape.numel() - part.packed.numel() - part.scales.numel() for part in packed)
    training = sum(p.numel() for p in module.parameters() if p.requires_grad)
    count = f"{human_count(total)} parameters" + (f", {human_count(training)} training" if training != total else "")
    virtual = sum(part.num_virtual_tokens for part in module.modules() if isinstance(part, Decoder))
    return f"{count}: {virtual} virtual tokens before every row" if virtual else count


def human_count(number: float) -> str:
    """Format a count with three digits and k, M or B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def require_at_least(least: float, options: Any, *names: str) -> None:
    """Raise InputError for an option below `least`, above MAX_COUNT, or not a number. None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not least <= value <= MAX_COUNT:
            limit = f"{MAX_COUNT:,} or less" if MAX_COUNT < value < math.inf else f"{least} or more"
            raise InputError(f"{name} is {value}", how=f"it must be {limit}")


def require_below_one(options: Any, *names: str) -> None:
    """Raise InputError for an option outside [0, 1). None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{name} is {value}", how="it must lie in [0, 1)")


def require_share(options: Any, *names: str) -> None:
    """Raise InputError for an option outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(f"{name} is {getattr(options, name)}", how="it must lie in [0, 1]")


def require_above_zero(options: Any, *names: str) -> None:
    """Raise InputError for an option that is not above 0, or above MAX_COUNT. None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value <= MAX_COUNT:
            raise InputError(f"{name} is {value}", how="it must be above 0, and finite")


def require_beta(options: Any) -> None:
    """Raise InputError for a beta that teaches nothing: below the lowest of BETAS a loss of beta log(pi / ref) is all
    but constant, above the highest it is at its end before the policy has moved by more than rounding does."""
    require_above_zero(options, "beta")
    low, high = BETAS
    hint = (
        f"give {low:g} to {high:g}, such as 0.1: below, the loss hardly depends on the policy; above, it ends at once"
    )
    forbid(not low <= options.beta <= high, f"nothing is learned at beta {options.beta:g}", hint)


def require_minibatches(options: Any) -> None:
    """Raise InputError unless `num_mini_batches` divides the samples of a step."""
    problem = f"num_mini_batches {options.num_mini_batches} does not divide the {options.samples} samples of a step"
    forbid(options.samples % options.num_mini_batches, problem, "prompts_per_step x num_generations must be a multiple")


@dataclass(frozen=True)
class Schedule:
    """Learning rate schedule, step (from 1) -> multiplier of the peak: a linear warm-up, then a cosine."""

    total: int
    warmup_steps: int
    floor: float
    """multiplier that the cosine reaches one step after `total`"""
    remark: str = ""
    """reason for a warm-up shorter than usual, or than given"""

    def __call__(self, step: int) -> float:
        rising = schedules.warmup(step, self.warmup_steps)
        falling = max(step - 1 - self.warmup_steps, 0), max(self.total - self.warmup_steps, 1)
        return rising * schedules.cosine(*falling, self.floor)

    def __str__(self) -> str:
        return f"{self.total} steps, {self.warmup_steps or 'none'} of them warm-up{self.remark}"


def cosine_with_warmup(total: int, warmup_steps: int | None, floor: float, usual: int = 10) -> Schedule:
    """Return a schedule that rises over `warmup_steps`, then falls along a cosine to `floor` of the peak.

    None takes `usual` steps, at most total / WARMUP_SHARE; a number that does not fit into the run shrinks to that.
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


def eval_steps(given: int | None, total: int) -> int:
    """Return the steps between two evaluations: those given, or EVAL_STEPS and at most a quarter of the run."""
    return given or max(1, min(EVAL_STEPS, total // 4))


def template_notes(tokenizer: Tokenizer) -> list[str]:
    """Return a line on the system prompt that the chat template adds, [] without one."""
    words = default_system_prompt(tokenizer)
    excerpt = words if len(words) <= 80 else words[:80] + " ..."
    return [f"the chat template adds to conversations without a system prompt: {excerpt!r}"] if words else []


def rollouts(options: Any, schedule: Schedule, prompts: int) -> str:
    """Return a line on the samples, epochs and minibatches of an online algorithm's step, and its epochs of prompts."""
    epochs = options.max_steps * options.prompts_per_step / prompts
    return (
        f"{options.prompts_per_step} prompts x {options.num_generations} samples a step; "
        f"{options.num_ppo_epochs} epochs x {options.num_mini_batches} minibatches; "
        f"{epochs:.2f} epochs of prompts in {schedule}"
    )


def forbid(condition: object, problem: str, hint: str) -> None:
    """Raise InputError if the condition is true."""
    if condition:
        raise InputError(problem, how=hint)
