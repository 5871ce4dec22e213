"""`amenable reinforce`: baselines by hand, and one that runs from step to step. More in test_online.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.stages import reinforce


def of_returns(**options: Any) -> reinforce.Reinforce:
    algorithm = object.__new__(reinforce.Reinforce)
    algorithm.config = reinforce.Config(num_generations=2, **options)
    algorithm.group, algorithm.running = 2, 0.25
    return algorithm


def test_no_baseline_has_the_answers_own_return_in_it() -> None:
    totals = torch.tensor([1.0, 0.0, 0.5, 0.1])
    expected = {
        "none": [0.25] * 4,  # the running value, which stays 0 without that baseline
        "running": [0.25] * 4,
        "batch": [0.6 / 3, 1.6 / 3, 1.1 / 3, 1.5 / 3],
        "leave-one-out": [0.0, 1.0, 0.1, 0.5],
    }
    for name, baselines in expected.items():
        assert of_returns(baseline=name).baselines(totals).tolist() == pytest.approx(baselines), name


def test_a_baseline_runs_from_step_to_step(online: Callable[..., Any], rows_of: Callable[[Path], Any]) -> None:
    rows = rows_of(reinforce.run(online(reinforce, baseline="running", baseline_decay=0.5, max_steps=2)))
    assert rows[0]["reinforce/baseline"] == 0.0
    assert rows[1]["reinforce/baseline"] == pytest.approx(rows[0]["objective/rlhf_reward"] / 2, rel=1e-4)


def test_a_baseline_without_others_is_refused() -> None:
    with pytest.raises(InputError, match=r"num_generations is 1.*--baseline batch"):
        reinforce.Config(baseline="leave-one-out")
    with pytest.raises(InputError, match="another answer in a step"):
        reinforce.Config(prompts_per_step=1)
