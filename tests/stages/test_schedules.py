"""The learning rate of every training stage: metrics say what was used, and a run goes on where it allows it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable.errors import InputError, Interrupted
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.train import checkpoint, plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions

MACHINE = DeviceOptions("cpu", "fp32", 1)


@pytest.fixture(scope="module")
def configs(
    files: Any, pretrain_config: pretrain.Config, sft_config: sft.Config, reward_config: reward.Config, judge: Path
) -> dict[str, tuple[Any, Any]]:
    """Every training stage in three to six steps, the warm-up left to the stage."""
    short: dict[str, Any] = {"warmup_steps": None, "device": MACHINE}
    preferences = dpo.Config(model=reward_config.model, data=files.pairs, batch_size=12, validation_split=0.25, **short)
    policy = ppo.Config(
        model=reward_config.model,
        reward=judge,
        data=files.prompts,
        max_steps=3,
        prompts_per_step=4,
        num_mini_batches=2,
        max_new_tokens=12,
        num_traced_prompts=0,
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
    schedule = plan.cosine_with_warmup(steps, 1, config.final_lr_frac)
    peaks = {"lr": config.optimizer.learning_rate}
    peaks |= {"muon_lr": config.optimizer.muon_learning_rate} if name == "pretrain" else {}
    peaks |= {"critic_lr": config.critic_learning_rate} if name == "ppo" else {}
    peaks |= {"head_lr": config.head_learning_rate or 0.031} if name == "reward" else {}  # 1 / 32, by default
    for metric, peak in peaks.items():
        assert [row[metric] for row in rows] == [peak * schedule(step) for step in range(1, steps + 1)]
    assert f"{steps} steps, 1 of them warm-up (at most one in 8; {usual} are usual)" in capsys.readouterr().err


LONGER = {"pretrain": {"max_steps": 7}, "sft": {"epochs": 3}, "reward": {"epochs": 3}, "dpo": {"epochs": 3}}
LONGER["ppo"] = {"max_steps": 6}
FINISHED = [name if name in ("sft", "ppo") else pytest.param(name, marks=pytest.mark.slow) for name in LONGER]


@pytest.fixture(scope="module")
def lasting(files: Any, configs: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """The same stages at a rate that stays, with all that they do now and then, and in their last step."""
    extra = {
        "pretrain": {"eval_steps": 2},
        "sft": {"keep_weights": "loss"},
        "dpo": {"eval_steps": 2},
        "ppo": {
            **{"keep_weights": "score", "validation": files.prompts, "eval_steps": 2, "eval_prompts": 3},
            **{"sample_steps": 2, "num_traced_prompts": 1, "adaptive_kl_target": 2.0, "kl_horizon": 40.0},
        },
    }
    lasts = {"final_lr_frac": 1.0, "warmup_steps": 2, "save_steps": 2}
    return {name: (stage, replace(one, **lasts, **extra.get(name, {}))) for name, (stage, one) in configs.items()}


def built(folder: Path) -> dict[str, Any]:
    """Hashes of all that a run has made, its closing figures, and its options but for where it lies."""
    files, closing = (json.loads((folder / f"{name}.json").read_text()) for name in ("manifest", "finished"))
    options = {**yaml.safe_load((folder / "config.yaml").read_text()), "out": None}
    facts = {name: fact for name, fact in closing.items() if name not in ("seconds", "tokens_per_second")}
    return {**files, "config.yaml": options, "figures": facts}


@pytest.fixture(scope="module")
def wholes(
    lasting: dict[str, tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], list[int]]]:
    """wholes(name): the stage run to the longer end at once: what it made, and its checkpoints."""

    @functools.cache
    def whole(name: str) -> tuple[dict[str, Any], list[int]]:
        stage, short = lasting[name]
        out = stage.run(replace(short, **LONGER[name], out=tmp_path_factory.mktemp(name) / "whole"))
        return built(out), checkpoint.steps(out)

    return whole


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_goes_on_as_if_it_had_been_longer_from_the_start(
    name: str, lasting: dict[str, tuple[Any, Any]], wholes: Callable, tmp_path: Path
) -> None:
    stage, short = lasting[name]
    config = replace(short, out=tmp_path / "run")
    stage.run(config)
    (stored,) = checkpoint.steps(config.out)
    assert json.loads((config.out / "finished.json").read_text())["checkpoint"] == stored
    before = built(config.out)
    assert built(stage.run(config)) == before, "the same command does nothing, and keeps the checkpoint"
    assert checkpoint.steps(config.out) == [stored]
    longer = replace(config, **LONGER[name])
    assert (built(stage.run(longer)), checkpoint.steps(config.out)) == wholes(name)
    assert checkpoint.steps(config.out) != [stored]


def test_a_run_killed_while_it_is_opened_again_goes_on_either_way(
    lasting: dict[str, tuple[Any, Any]], wholes: Callable, tmp_path: Path
) -> None:
    """It has not finished any more, and its options are those of the shorter run."""
    stage, short = lasting["ppo"]
    config = replace(short, out=tmp_path / "run")
    before = built(stage.run(config))
    (config.out / "finished.json").unlink()
    assert built(stage.run(config)) == before
    (config.out / "finished.json").unlink()
    longer = replace(config, **LONGER["ppo"])
    assert built(stage.run(longer)) == wholes("ppo")[0]


@pytest.mark.parametrize("name", ["pretrain", "ppo"])
def test_a_stopped_run_goes_on_to_another_end(
    name: str, lasting: dict[str, tuple[Any, Any]], wholes: Callable, stop_at: Callable[[int], None], tmp_path: Path
) -> None:
    """Also one that was stopped in its last step, when what belongs to the end was done."""
    stage, short = lasting[name]
    whole, _ = wholes(name)
    for stop in (2, 3):
        config = replace(short, out=tmp_path / f"stopped-{stop}")
        stop_at(stop)
        with pytest.raises(Interrupted):
            stage.run(config)
        assert built(stage.run(replace(config, **LONGER[name]))) == whole


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_cosine_that_has_ended_is_not_prolonged(
    name: str, configs: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    stage, config = configs[name]
    config = replace(config, out=tmp_path / "run", save_steps=1)
    before = built(stage.run(config))
    assert not checkpoint.steps(config.out)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"cosine .* has ended.*; start anew from its result: --model .*/run --out"
        ):
            stage.run(replace(config, **LONGER[name]))
    assert built(config.out) == before == built(stage.run(config))
    with pytest.raises(InputError, match="was begun with other options"):
        stage.run(replace(config, seed=1, **LONGER[name]))
