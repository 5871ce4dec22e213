"""A judge's answers are there at once, and handed over once."""

from __future__ import annotations

import numpy as np

from amenable.control.clip_judges import SyntheticJudge
from amenable.control.clips import Clips
from amenable.control.label_sources import JudgeLabels


def test_a_judge_answers_once() -> None:
    labels = JudgeLabels(SyntheticJudge(None, 0.0, 1.0, 0))
    left, right = (
        Clips(np.zeros((2, 1, 1)), np.zeros((2, 1)), np.array(r), np.zeros((2, 1, 0))) for r in ([[1], [0]], [[0], [3]])
    )
    labels.submit(range(5, 7), left, right)
    assert labels.answers(1) == {5: 1.0, 6: 0.0} and labels.answers(2) == {} and labels.ahead == 0
