"""Options of published tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from amenable.train import plan


@dataclass(frozen=True)
class TaskOptions:
    """Options of the tasks."""

    train_data: tuple[Path, ...] = ()
    """training files: rows of tasks that share 13 words in a row with them are counted as contaminated"""
    task_rows: int = 0
    """take only so many rows of each task, the first; 0 takes all"""
    calibrate: bool = False
    """of multiple choice, also divide the choices' probabilities by those after a context whose content is N/A
    (contextual calibration)"""
    self_consistency: int = 0
    """of problems, also sample this many answers at --temperature and take the number that most of them have; of
    paraphrases, measure how far the samples agree"""
    chat_template: bool = False
    """ask chat models problems as a user, with the examples as earlier turns; otherwise they continue plain text"""

    def __post_init__(self) -> None:
        plan.require_at_least(0, self, "task_rows", "self_consistency")
        hint = "give --self-consistency 2 or more, or leave it out"
        plan.forbid(self.self_consistency == 1, "self_consistency is 1: one answer has no majority", hint)


Tasking = Annotated[TaskOptions, arg(name="")]
"""field of a Config: its options are the command's own"""
