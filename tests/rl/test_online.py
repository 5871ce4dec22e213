"""The run of an online algorithm: defaults from its models, a folder, and the loop."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amenable.rl import online
from amenable.stages import a2c, grpo, ppo, reinforce
from amenable.train.runtime import DeviceOptions


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> reinforce.Config:
    device = DeviceOptions(device="cpu", precision="fp32", threads=1)
    shared = {"model": assistant, "reward": ("length:1-4",), "data": files.prompts, "device": device}
    return reinforce.Config(**shared, out=tmp_path / "run")


def test_the_algorithm_has_models_and_options_with_their_defaults(
    config: reinforce.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(online, "improve", lambda *arguments: calls.append(arguments) or config.out)
    algorithm = SimpleNamespace()
    out = online.run_online("mine", config, lambda models, filled: algorithm, ["a line"])
    ((given, models, filled, run, lines, source),) = calls
    assert given is algorithm and out == config.out and run.stage == "mine"
    assert filled.kl_coef is not None and filled.max_new_tokens and models.policy is not None
    assert lines[0] == "a line" and lines[1].startswith("by default")
    assert source.models is models and source.sampler is None


def test_with_a_critic_its_rate_has_a_default_too(
    config: reinforce.Config, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = a2c.Config(
        model=config.model, reward=(str(judge),), data=config.data, device=config.device, out=config.out
    )
    calls: list[Any] = []
    monkeypatch.setattr(online, "improve", lambda *arguments: calls.append(arguments) or config.out)
    online.run_online("mine", options, online.with_critic(lambda *arguments: arguments))  # type: ignore[arg-type,return-value]
    models, critic, filled = calls[0][0]
    assert filled.critic_learning_rate > 0 and critic is not models.policy and calls[0][1] is models


@pytest.mark.parametrize("stage", [a2c, grpo, ppo, reinforce])
def test_virtual_tokens_have_rates_of_their_own_in_every_algorithm(
    stage: Any, config: reinforce.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of a few vectors is trained at a rate that the model's own weights would not stand."""
    rates = []
    monkeypatch.setattr(
        online, "improve", lambda algorithm, models, filled, *rest: rates.append(filled.optimizer.learning_rate)
    )
    shared = {"model": config.model, "reward": config.reward, "data": config.data, "device": config.device}
    whole = stage.Config(**shared, out=tmp_path / "whole")
    stage.run(whole)
    stage.run(replace(whole, out=tmp_path / "prompt", prompt_tuning=4))
    stage.run(replace(whole, out=tmp_path / "prefix", prefix_tuning=4))
    assert min(rates[1:]) > 2 * rates[0] and rates[1] != rates[2]
