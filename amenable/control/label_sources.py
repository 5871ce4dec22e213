"""Sources of labels for comparisons of clips: who answers, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amenable.control.clip_judges import Judge, judge_clips
from amenable.control.clips import Clips
from amenable.train.run import Run

Answers = dict[int, float | None]
"""left's share of the vote by the number of the comparison; nan where it was taken back, None where nobody can tell"""


class LabelSource(Protocol):
    """Source of labels of pairs of clips: a judge, or people."""

    ahead: int
    """comparisons that are kept waiting for an answer, so that nobody waits for them"""

    def submit(self, numbers: range, left: Clips, right: Clips) -> None:
        """Submit pairs of clips, by their numbers, to be labelled."""

    def wait(self, needed: int, run: Run, save: Callable[[], None]) -> None:
        """Return once there are `needed` answers in all; save the run first if it has to wait."""

    def answers(self, iteration: int) -> Answers:
        """Return the answers that an iteration learns from: at least those that are new or have changed."""


class JudgeLabels:
    """A judge that answers at once."""

    ahead = 0

    def __init__(self, judge: Judge):
        self.judge, self.waiting = judge, Answers()

    def submit(self, numbers: range, left: Clips, right: Clips) -> None:
        """Judge the comparisons."""
        self.waiting |= judge_clips(self.judge, numbers, left, right)

    def wait(self, needed: int, run: Run, save: Callable[[], None]) -> None:
        """Return at once."""

    def answers(self, iteration: int) -> Answers:
        """Return the answers since the last call."""
        answers, self.waiting = self.waiting, {}
        return answers
