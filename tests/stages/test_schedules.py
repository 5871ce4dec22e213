"""The learning rate of every training stage: what metrics say is what the optimizers used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.train import plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Machine

MACHINE = Machine("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def configs(
    files: Any, pretrain_config: pretrain.Config, sft_config: sft.Config, reward_config: reward.Config, judge: Path
) -> dict[str, tuple[Any, Any]]:
    """Every training stage in three to six steps, the warm-up left to the stage."""
    short: dict[str, Any] = {"warmup_steps": None, "machine": MACHINE}
    preferences = dpo.Config(model=reward_config.model, data=files.pairs, batch_size=12, held_out=0.25, **short)
    policy = ppo.Config(
        model=reward_config.model,
        reward_model=judge,
        data=files.prompts,
        max_steps=3,
        prompts_per_step=4,
        num_mini_batches=2,
        max_new_tokens=12,
        watched=0,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        critic_learning_rate=5e-3,
        **short,
    )
    return {
        "pretrain": (pretrain, replace(pretrain_config, max_steps=3, **short)),
        "sft": (sft, replace(sft_config, epochs=1, **short)),
        "reward": (reward, replace(reward_config, epochs=1, **short)),
        "dpo": (dpo, replace(preferences, optimizer=OptimizerConfig(learning_rate=3e-3))),
        "ppo": (ppo, policy),
    }


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "ppo"])
def test_lr_is_the_rate_and_a_short_run_warms_up_for_a_short_time(
    name: str,
    configs: dict[str, tuple[Any, Any]],
    rows_of: Callable[[Path], list[dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    stage, config = configs[name]
    rows = [row for row in rows_of(stage.run(replace(config, out=tmp_path / "run"))) if "lr" in row]
    steps = len(rows)
    usual = {"pretrain": 20, "ppo": 5}.get(name, 10)
    schedule = plan.cosine_with_warmup(steps, 1, config.final_learning_rate)
    peaks = {"lr": config.optimizer.learning_rate}
    peaks |= {"muon_lr": config.optimizer.muon_learning_rate} if name == "pretrain" else {}
    peaks |= {"critic_lr": config.critic_learning_rate} if name == "ppo" else {}
    peaks |= {"head_lr": config.head_learning_rate or 0.031} if name == "reward" else {}  # 1 / 32, by default
    for metric, peak in peaks.items():
        assert [row[metric] for row in rows] == [peak * schedule(step) for step in range(1, steps + 1)]
    assert f"{steps} steps, 1 of them warm-up (at most one in 8; {usual} are usual)" in capsys.readouterr().err
