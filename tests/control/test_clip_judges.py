"""Judges: by the environment's reward, with noise and myopia; a user's function; their mistakes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from amenable.control.clip_judges import Clip, SyntheticJudge, judge_clips, load_judge
from amenable.control.clips import Clips
from amenable.control.comparison_options import ComparisonOptions
from amenable.errors import InputError


def clip(*rewards: float) -> Clip:
    return Clip(np.zeros((len(rewards), 1)), np.zeros(len(rewards)), np.array(rewards))


def test_the_better_return_wins() -> None:
    judge = SyntheticJudge(None, 0.0, 1.0, 0)
    assert judge(clip(1, 0), clip(0, 0.5)) == 1 and judge(clip(0, 0), clip(0, 1)) == 0
    assert judge(clip(1, 2), clip(2, 1)) == 0.5


def test_myopia_goes_by_the_end() -> None:
    # .5 x 1 + 0 against .5 x 0 + .6
    assert SyntheticJudge(None, 0.0, 0.5, 0)(clip(1, 0), clip(0, 0.6)) == 0


def test_rationality_and_errors_are_probabilities() -> None:
    boltzmann = SyntheticJudge(2.0, 0.0, 1.0, 3)
    share = np.mean([boltzmann(clip(0.5), clip(0), number) for number in range(2000)])
    assert share == pytest.approx(1 / (1 + math.exp(-1)), abs=0.04)
    wrong = SyntheticJudge(None, 0.2, 1.0, 3)
    assert np.mean([wrong(clip(1), clip(0), number) for number in range(2000)]) == pytest.approx(0.8, abs=0.03)
    assert boltzmann(clip(0.5), clip(0), 7) == boltzmann(clip(0.5), clip(0), 7)
    assert boltzmann(clip(1e9), clip(0)) == 1


def test_a_users_function_judges(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def longer(left, right):\n    gap = left.observations.sum() - right.observations.sum()\n"
        "    return None if gap == 0 else float(gap > 0)\n\ndef broken(left, right):\n    return 3\n\n"
        "def wordy(left, right):\n    return 'left'\n"
    )
    judge = load_judge(f"{file}:longer", ComparisonOptions(), 0)
    left, right = (
        Clips(np.array(x)[:, None, None], *np.zeros((2, 3, 1)), np.zeros((3, 1, 0))) for x in ([1, 0, 2], [0, 1, 2])
    )
    assert judge_clips(judge, range(4, 7), left, right) == {4: 1.0, 5: 0.0, 6: None}
    for name in ("broken", "wordy"):
        with pytest.raises(InputError, match=f"mine.py:{name}: returned"):
            load_judge(f"{file}:{name}", ComparisonOptions(), 0)(clip(1), clip(0))


@pytest.mark.parametrize("spec", ["nobody", "file.py", "no.py:judge", "text:judge"])
def test_unknown_judges_are_refused(spec: str) -> None:
    with pytest.raises(InputError):
        load_judge(spec, ComparisonOptions(), 0)
