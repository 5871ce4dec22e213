"""`amenable a2c`: one update a rollout, the score rises, and a stopped run goes on to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.stages import a2c
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions


@pytest.fixture
def config(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> a2c.Config:
    return a2c.Config(
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


def test_the_score_rises_and_the_critic_learns(config: a2c.Config, rows_of: Callable[[Path], Any]) -> None:
    config = replace(config, max_steps=10, prompts_per_step=24, critic_learning_rate=5e-3, normalize_advantages=True)
    rows = rows_of(a2c.run(config))
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.05
    assert [row["updates"] for row in rows] == [1] * 10 and "policy/clipfrac_avg" not in rows[0]
    assert rows[-1]["loss/value_avg"] < rows[0]["loss/value_avg"]


@pytest.mark.parametrize("options", [{"n_steps": 4}, {"kl_in": "loss", "entropy_coef": 0.01}])
def test_a_stopped_run_goes_on_to_the_bit(
    config: a2c.Config, options: dict[str, Any], tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    config = replace(config, critic_learning_rate=5e-3, **options)
    whole = a2c.run(replace(config, out=tmp_path / "whole"))
    parted = run_in_two(a2c, replace(config, out=tmp_path / "parted"), 1)
    assert (whole / "model.safetensors").read_bytes() == (parted / "model.safetensors").read_bytes()


@pytest.mark.parametrize("options", [{"num_mini_batches": 2}, {"num_ppo_epochs": 2}])
def test_several_updates_a_rollout_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"one update a rollout.*amenable ppo"):
        a2c.Config(**options)
