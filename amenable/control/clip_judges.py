"""Judges of clips that are no people: simulated by the environment's reward, scripted, or a user's function.

A judge is a function of two clips that returns the share of the vote that the left one gets: 1 better, 0 worse, .5
equally good; or None where it cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from amenable.control import backflip_judge
from amenable.control.clips import Clips
from amenable.control.comparison_options import ComparisonOptions
from amenable.errors import InputError, describe
from amenable.rewards.functions import load_function
from amenable.seeds import seeded_generator


@dataclass(frozen=True)
class Clip:
    """One clip, as a judge gets it."""

    observations: NDArray
    """[L, ...], as the environment gives them"""
    actions: NDArray
    """[L] or [L, A], as executed"""
    rewards: NDArray
    """[L]: the environment's own"""


Judge = Callable[[Clip, Clip], float | None]


@dataclass(frozen=True)
class SyntheticJudge:
    """Answers by the environment's rewards, as simulated teachers of B-Pref do (Lee et al., 2021, section 3.1).

        P(left) = sigma(beta (R_left - R_right))       R = sum_t discount^(L - t) r_t,    t = 1 ... L

    and then turned round in a share of the cases. rationality beta: None is infinite, where equal returns are .5.
    """

    rationality: float | None
    error_rate: float
    discount: float
    seed: int

    def __call__(self, left: Clip, right: Clip, number: int = 0) -> float:
        """Return the answer to comparison `number`, on which its chance alone depends."""
        gap = self.discounted(left) - self.discounted(right)
        chance, error = torch.rand(2, generator=seeded_generator(self.seed, "synthetic judge", number)).tolist()
        if self.rationality is None:
            answer = 0.5 if gap == 0 else float(gap > 0)
        else:
            answer = float(chance < 1 / (1 + math.exp(-np.clip(self.rationality * gap, -500, 500))))
        return 1 - answer if error < self.error_rate else answer

    def discounted(self, clip: Clip) -> float:
        """Return a clip's reward, the last steps counting most."""
        return float(clip.rewards @ self.discount ** np.arange(len(clip.rewards))[::-1])


def load_judge(spec: str, options: ComparisonOptions, seed: int) -> Judge:
    """Return the judge that `--judge` names. InputError for one that is none."""
    if spec == "synthetic":
        return SyntheticJudge(options.judge_rationality, options.judge_error_rate, options.judge_discount, seed)
    if spec == "backflip":
        return lambda left, right: backflip_judge.compare(left.observations, right.observations)
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise InputError(f"there is no judge '{spec}'", how="name synthetic, people, backflip, or FILE.py:FUNCTION")
    function = load_function(Path(file), name)
    return lambda left, right: checked(function(left, right), spec)


def checked(answer: object, spec: str) -> float | None:
    """Return a user's answer. InputError for one that is neither None nor a number from 0 to 1."""
    if answer is None:
        return None
    try:
        share = float(answer)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"returned {describe(error)}", spec, "return a share from 0 to 1, or None") from None
    if not 0 <= share <= 1:
        raise InputError(f"returned {share}", spec, "return left's share of the vote, from 0 to 1, or None")
    return share


def judge_clips(judge: Judge, numbers: range, left: Clips, right: Clips) -> dict[int, float | None]:
    """Return a judge's answers by number."""
    answers: dict[int, float | None] = {}
    for row, number in enumerate(numbers):
        first, second = (Clip(side.observations[row], side.actions[row], side.rewards[row]) for side in (left, right))
        if isinstance(judge, SyntheticJudge):
            answers[number] = judge(first, second, number)
        else:
            answers[number] = judge(first, second)
    return answers
