"""Options of comparisons that cannot be are refused."""

from __future__ import annotations

from typing import Any

import pytest

from amenable.control.comparison_options import ComparisonOptions
from amenable.errors import InputError


def test_one_predictor_has_nothing_to_disagree_with() -> None:
    with pytest.raises(InputError, match="one predictor has no disagreement; give --query-strategy random"):
        ComparisonOptions(ensemble_size=1)
    assert ComparisonOptions(ensemble_size=1, query_strategy="random").ensemble_size == 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_labels": 0},
        {"ensemble_size": 0},
        {"clip_steps": 1},
        {"first_labels": 1.5},
        {"holdout": 1.0},
        {"label_noise": 1.0},
        {"label_annealing": 0.0},
        {"judge_error_rate": -0.1},
        {"judge_rationality": -1.0},
        {"reward_hidden": (0,)},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        ComparisonOptions(**options)
