"""Evaluation during training: the score of another reward model by hand. Held-out and traced prompts are tested with
`ppo`, which samples their answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Prompt
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.heads import ScalarModel
from amenable.rewards.model import ModelReward
from amenable.rewards.on_rollout import total_score
from amenable.rewards.spec import Reward, load_reward
from amenable.rl import monitor
from amenable.rl.experience import Experience
from amenable.rl.models import load_models
from amenable.rl.options import OnlineOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime


def an_experience(scores: torch.Tensor) -> Experience:
    responses = [[7, 8, 9], [10, 11], [12]]
    mask = length_mask([3, 2, 1])
    rollout = Rollout([[5, 6]] * 3, responses, torch.ones(3, dtype=torch.bool), mask, torch.zeros(3, 3))
    return Experience(rollout, scores, scores, prompts=[Prompt((), str(i)) for i in range(3)])


def reward_of(model: ScalarModel, words: Tokenizer, runtime: Runtime) -> Reward:
    return load_reward(ModelReward(model, words, runtime, 100), runtime)


def test_the_other_reward_models_metrics_by_hand(
    make_scalar_model: Callable, words: Tokenizer, runtime: Runtime
) -> None:
    model = make_scalar_model(4)
    reward = reward_of(model, words, runtime)
    scores = forward.compute_rewards(model, an_experience(torch.zeros(3)).rollout.rows(), runtime, 100)
    same = monitor.heldout_reward_metrics(reward, an_experience(2 * scores + 1), words)
    assert same["eval_rm/score"] == pytest.approx(float(scores.mean()))
    assert same["eval_rm/score_std"] == pytest.approx(float(scores.std(unbiased=False)))
    assert same["eval_rm/correlation"] == pytest.approx(1.0, abs=1e-5)
    other = monitor.heldout_reward_metrics(reward, an_experience(-scores), words)
    assert other["eval_rm/correlation"] == pytest.approx(-1.0, abs=1e-5)


def test_scores_that_are_all_alike_have_no_correlation(
    make_scalar_model: Callable, words: Tokenizer, runtime: Runtime
) -> None:
    reward = reward_of(make_scalar_model(4), words, runtime)
    metrics = monitor.heldout_reward_metrics(reward, an_experience(torch.ones(3)), words)
    assert metrics["eval_rm/correlation"] == 0.0


def test_without_another_reward_model_there_are_no_metrics_of_it(
    assistant: Path, judge: Path, words: Tokenizer, runtime: Runtime
) -> None:
    options = OnlineOptions(model=assistant, reward=judge)
    assert monitor.load_eval_reward(options, load_models(options, runtime)) is None
    assert monitor.heldout_reward_metrics(None, an_experience(torch.ones(3)), words) == {}


def test_the_other_reward_model_is_loaded_from_its_folder(
    assistant: Path, judge: Path, words: Tokenizer, runtime: Runtime
) -> None:
    options = OnlineOptions(model=assistant, reward=judge, eval_reward_model=judge)
    models = load_models(options, runtime)
    reward, experience = monitor.load_eval_reward(options, models), an_experience(torch.zeros(3))
    assert reward is not None
    scores = [total_score(each, experience.rollout, experience.prompts, words) for each in (reward, models.reward)]
    assert torch.equal(*scores)


def test_samples_are_written_at_the_first_the_last_and_every_so_many_steps() -> None:
    schedule = monitor.EvalSchedule(sample_steps=5, eval_steps=4, last=11)
    assert [step for step in range(1, 12) if schedule.samples(step)] == [1, 5, 10, 11]
    assert [step for step in range(1, 12) if schedule.evaluates(step)] == [4, 8, 11]


def test_the_first_held_out_prompts_are_taken(files: Any, words: Tokenizer) -> None:
    every = monitor.held_out_prompts(files.prompts, words, 44, 0)
    assert len(every) == 32 and monitor.held_out_prompts(files.prompts, words, 44, 3) == every[:3]
    assert monitor.held_out_prompts(None, words, 44, 3) == []
