"""An ensemble of reward models is one reward, wherever a reward is named."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.data.files import read_json_lines
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.functional.rewards import combine_scores
from amenable.models.lora import LoraOptions
from amenable.rewards.ensemble import EnsembleOptions, initialize
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.stages import reward
from amenable.train.loading import load_policy
from amenable.train.runtime import Runtime, start_runtime

PROMPTS = [(Message("user", "Ann asks: name a red thing."),)] * 3
ANSWERS = ["Gladly: a rose, it is red.", "Grimly: a brick", "a"]


@pytest.fixture(scope="module")
def config(reward_config: reward.Config, tmp_path_factory: pytest.TempPathFactory) -> reward.Config:
    out = tmp_path_factory.mktemp("ensemble") / "run"
    return replace(reward_config, members=3, combination="min", epochs=1, prompts_per_step=12, out=out)


@pytest.fixture(scope="module")
def ensemble(config: reward.Config) -> Path:
    return reward.run(config)


def test_an_ensemble_is_one_reward_with_the_worst_score_of_its_members(ensemble: Path, runtime: Runtime) -> None:
    members = [ensemble / name for name in ("member-2", "member-3")]
    scores = [ModelReward.load(folder, runtime)(PROMPTS, ANSWERS) for folder in members]
    first = load_reward(str(ensemble), runtime).models[0]
    alone = replace(first, others=())(PROMPTS, ANSWERS)
    every = torch.tensor([alone, *scores])
    assert every.std(0, unbiased=False).min() > 1e-4  # they differ
    for spec, how, k in (
        (f"{ensemble}", "min", 1.0),
        (f"{ensemble}:mean", "mean", 1.0),
        (f"{ensemble}:std", "std", 1.0),
    ):
        assert load_reward(spec, runtime)(PROMPTS, ANSWERS) == pytest.approx(combine_scores(every, how, k).tolist())
    assert len(first.members) == 3 and first.context_length == 64
    with pytest.raises(InputError, match="no combination 'median'"):
        load_reward(f"{ensemble}:median", runtime)


def test_a_member_alone_is_a_run_like_any_other(ensemble: Path, config: reward.Config, tmp_path: Path) -> None:
    again = replace(config, members=1, member=3, out=tmp_path / "third")
    rows = [(folder / "metrics.jsonl").read_text() for folder in (reward.run(again), ensemble / "member-3")]
    assert rows[0] == rows[1] != (ensemble / "metrics.jsonl").read_text()
    assert json.loads((ensemble / "ensemble.json").read_text())["members"] == ["member-2", "member-3"]


def test_a_stopped_ensemble_goes_on(
    config: reward.Config, ensemble: Path, run_in_two: Callable, tmp_path: Path
) -> None:
    """Stopped in the first member; and of what a member has done nothing is done again."""
    short = replace(config, out=tmp_path / "two")
    assert run_in_two(reward, short, 2) == short.out
    for name in ("model.safetensors", "member-2/model.safetensors", "member-3/model.safetensors"):
        assert (short.out / name).read_bytes() == (ensemble / name).read_bytes()


def test_a_member_of_another_tokenizer_is_refused(
    ensemble: Path, other_judge: Path, runtime: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(ensemble, folder)
    shutil.rmtree(folder / "member-2")
    shutil.copytree(other_judge, folder / "member-2")
    with pytest.raises(InputError, match="another tokenizer"):
        load_reward(str(folder), runtime)


def test_options_that_mean_nothing_are_refused() -> None:
    for wrong, message in (
        ({"members": 0}, "members is 0"),
        ({"members": 1000}, "members is 1000"),
        ({"members": 3, "member_models": (Path("a"),)}, "1 member_models for 3 members"),
        ({"combination_coefficient": -1.0}, "combination_coefficient"),
    ):
        with pytest.raises(InputError, match=message):
            EnsembleOptions(**wrong)
    assert len({EnsembleOptions(member=number).order_seed for number in (1, 2, 3)}) == 3


def test_bodies_from_scratch_are_drawn_for_each_member_and_learn(config: reward.Config, tmp_path: Path) -> None:
    scratch = replace(config, members=2, from_scratch=True, out=tmp_path / "scratch")
    drawn = []
    for number in (1, 2, 2):
        decoder = load_policy(config.model, start_runtime(config.device))[0]
        initialize(decoder, replace(scratch, member=number))
        drawn.append(decoder.token_embedding.weight)
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], load_policy(config.model, start_runtime(config.device))[0].token_embedding.weight)
    first, *_, last = read_json_lines(reward.run(scratch) / "metrics.jsonl")[:-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and last["loss"] < first["loss"]
    assert (scratch.out / "member-2" / "finished.json").exists()
    for part in ({"lora": LoraOptions(4)}, {"frozen_layers": 1}, {"prompt_tuning": 4}):
        with pytest.raises(InputError, match="--from-scratch trains all weights"):
            replace(scratch, **part)
