"""`amenable reinforce`: baselines by hand, the score rises, and a stopped run goes on to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.stages import reinforce
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions


@pytest.fixture
def config(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> reinforce.Config:
    return reinforce.Config(
        model=assistant,
        reward=judge,
        data=files.prompts,
        out=tmp_path / "run",
        max_steps=2,
        prompts_per_step=8,
        temperature=0.7,
        max_new_tokens=12,
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        save_steps=0,
        num_traced_prompts=1,
        device=DeviceOptions("cpu", "fp32", 1),
    )


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


def test_the_score_rises_and_the_baseline_runs(config: reinforce.Config, rows_of: Callable[[Path], Any]) -> None:
    config = replace(config, max_steps=10, prompts_per_step=24, baseline="running", baseline_decay=0.5)
    rows = rows_of(reinforce.run(config))
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.05
    assert rows[0]["reinforce/baseline"] == 0.0
    assert rows[1]["reinforce/baseline"] == pytest.approx(rows[0]["objective/rlhf_reward"] / 2, rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "running", "num_mini_batches": 2},
        {"baseline": "leave-one-out", "num_generations": 2, "normalize_advantages": True, "kl_in": "loss"},
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(
    config: reinforce.Config, options: dict[str, Any], tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    config = replace(config, max_steps=3, **options)
    whole = reinforce.run(replace(config, out=tmp_path / "whole"))
    parted = run_in_two(reinforce, replace(config, out=tmp_path / "parted"), 2)
    assert (whole / "model.safetensors").read_bytes() == (parted / "model.safetensors").read_bytes()


def test_a_baseline_without_others_is_refused() -> None:
    with pytest.raises(InputError, match=r"num_generations is 1.*--baseline batch"):
        reinforce.Config(baseline="leave-one-out")
    with pytest.raises(InputError, match="another answer in a step"):
        reinforce.Config(prompts_per_step=1)
