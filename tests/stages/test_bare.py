"""Each command without options, on what its sister stages made; and on one's own data nothing of the closed world."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable import cli
from amenable.errors import InputError
from amenable.stages import evaluate, reward
from amenable.train.runtime import DeviceOptions

STAGES = [cli.command_of(file) for file in cli.command_files()["stages"]]


@pytest.mark.parametrize("stage", STAGES)
def test_only_a_stages_own_input_is_a_file_of_the_closed_world(stage: str) -> None:
    config = importlib.import_module(f"amenable.stages.{stage.replace('-', '_')}").Config()
    named = {field.name: str(getattr(config, field.name)) for field in dataclasses.fields(config)}
    assert {name for name, value in named.items() if "runs/world" in value} <= {"out" if stage == "world" else "data"}
    online = ("ppo", "rloo", "grpo", "reinforce", "a2c", "trpo", "expert-iteration", "online-dpo")
    judging = {"reward": {"out"}, **{name: {"reward"} for name in online}}.get(stage, set())
    assert {name for name, value in named.items() if "runs/reward" in value} == judging


@pytest.fixture
def runs(
    files: Any, tokenizer_folder: Path, base: Path, assistant: Path, judge: Path, tmp_path: Path, monkeypatch: Any
) -> Path:
    """A folder where every sister stage has left what it makes, with little data, as the working directory."""
    there = {
        "world/text/train.jsonl": files.text,
        "world/demonstrations/train.jsonl": files.demonstrations,
        "world/prompts/reward.jsonl": files.prompts,
        "world/prompts/ppo.jsonl": files.prompts,
        "world/prompts/test.jsonl": files.prompts,
        "annotate/train.jsonl": files.rankings,
        "tokenizer": tokenizer_folder,
        "pretrain": base,
        "sft": assistant,
        "reward": judge,
    }
    for name, made in there.items():
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).symlink_to(made)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.parametrize("command", ["pretrain", "sft", "sample", "reward", "ppo", "dpo"])
def test_a_command_runs_bare_on_what_the_others_made(
    command: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    few = {"sample": ["--max-prompts", "2"], "ppo": ["--max-steps", "1", "--prompts-per-step", "4"]}.get(command, [])
    stop = ["--inspect-batch"] if command != "sample" else []
    assert cli.main([command, *few, *stop, "--out", "made", "--precision", "fp32"]) == 0
    assert "by default for " in capsys.readouterr().err
    options = yaml.safe_load((tmp_path / "made" / "config.yaml").read_text())
    numbers = {**options, **options.get("optimizer", {}), **options.get("sampling", {})}
    following = (
        "learning_rate critic_learning_rate dropout context temperature max_new_tokens kl_coef adaptive_kl_target"
    )
    assert not [name for name in following.split() if numbers.get(name, 0) is None]


def test_an_evaluation_compares_the_models_that_are_there(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["evaluate", "--max-prompts", "3"]) == 0
    report = capsys.readouterr().err
    assert "2 models x 3 prompts" in report and "no judge of the answers: give --reward, or the --world" in report
    options = yaml.safe_load((runs / "evaluate" / "config.yaml").read_text())
    assert options["models"] == ["base=runs/pretrain", "sft=runs/sft"] and options["max_new_tokens"] == 16
    models = json.loads((runs / "evaluate" / "evaluation.json").read_text())["models"]
    assert list(models) == ["base", "sft"] and models["base"]["ended"] is not None


def test_what_can_be_evaluated_must_be_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no models to evaluate: none are named, and runs/ holds none; write name="):
        evaluate.run(evaluate.Config())
    assert not list(tmp_path.iterdir())


def test_ones_own_data_needs_nothing_of_the_closed_world(
    reward_config: reward.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """And what reward zero means is said before the training."""
    monkeypatch.chdir(tmp_path)
    own = reward.Config(
        reward_config.model, reward_config.data, out=Path("own"), device=DeviceOptions("cpu", "fp32", 1)
    )
    reward.run(replace(own, inspect_batch=True))
    report = capsys.readouterr().err
    assert re.search(
        r"reward 0 will be the mean of \d+ completions trained on \(--demonstrations to change it\)", report
    )
    reward.run(replace(own, demonstrations=reward_config.demonstrations, out=Path("centred"), inspect_batch=True))
    assert "reward 0 will be the mean of 96 demonstrations" in capsys.readouterr().err
