"""Rewards of sampled answers: models score the ids that were sampled, everything else reads texts and columns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Message, Prompt
from amenable.generation.rollout import Rollout, collect
from amenable.generation.sampling import Sampling
from amenable.rewards.on_rollout import score_rollout, total_score
from amenable.rewards.spec import load_reward
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.runtime import Runtime

PROMPTS = [
    Prompt((Message("user", f"{name} asks: name a {colour} thing."),), name, {"colour": colour})
    for name, colour in (("Ann", "red"), ("Bo", "blue"), ("Cy", "white"))
]


@pytest.fixture(scope="module")
def tokenizer(assistant: Path) -> Tokenizer:
    return Tokenizer.load(assistant)


@pytest.fixture(scope="module")
def rollout(assistant: Path, tokenizer: Tokenizer, runtime: Runtime) -> Rollout:
    """Two answers to each prompt, some cut."""
    policy, _ = loading.load_policy(assistant, runtime)
    prompts = [render_prompt(tokenizer, prompt.messages) for prompt in PROMPTS]
    sampling = Sampling(temperature=1.0, max_new_tokens=12)
    return collect(policy, prompts, sampling, eos_id=tokenizer.stop_ids, seeds=[1, 2, 3], samples=2)


def test_a_models_scores_are_those_of_the_sampled_ids(
    rollout: Rollout, judge: Path, tokenizer: Tokenizer, runtime: Runtime
) -> None:
    model = loading.load_reward_model(judge, runtime, tokenizer, frozen=True)
    expected = forward.compute_rewards(model, rollout.rows(), runtime, 8192)
    assert torch.equal(total_score(load_reward(judge, runtime), rollout, PROMPTS, tokenizer), expected)
    assert expected.dtype == torch.float32 and expected.std() > 0


def test_functions_get_messages_texts_and_columns(rollout: Rollout, tokenizer: Tokenizer, runtime: Runtime) -> None:
    given: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        given.update(prompts=prompts, completions=completions, **columns)
        return [float(i) for i in range(len(completions))]

    assert total_score(load_reward(reward, runtime), rollout, PROMPTS, tokenizer).tolist() == [0, 1, 2, 3, 4, 5]
    assert given["prompts"] == [prompt.messages for prompt in PROMPTS for _ in range(2)]
    assert given["colour"] == ["red", "red", "blue", "blue", "white", "white"]
    assert given["id"] == ["Ann", "Ann", "Bo", "Bo", "Cy", "Cy"]
    assert given["ended"] == rollout.ended.tolist()
    assert given["completions"] == [tokenizer.decode(ids) for ids in rollout.completions]


def test_parts_and_their_sum(rollout: Rollout, judge: Path, tokenizer: Tokenizer, runtime: Runtime) -> None:
    reward = load_reward([f"{judge}=2", "ends=-0.5"], runtime)
    parts = score_rollout(reward, rollout, PROMPTS, tokenizer)
    assert list(parts) == [str(judge), "ends"]
    assert parts["ends"].tolist() == rollout.ended.float().tolist()
    total = total_score(reward, rollout, PROMPTS, tokenizer)
    assert torch.allclose(total, 2 * parts[str(judge)] - 0.5 * parts["ends"])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_rollout_of_other_prompts(
    count: int, rollout: Rollout, tokenizer: Tokenizer, judge: Path, runtime: Runtime
) -> None:
    prompts = [*PROMPTS, *PROMPTS][:count]
    if count == 2:
        rollout = replace(rollout, prompts=rollout.prompts[:5])
    with pytest.raises(ValueError, match=f"answers do not belong to {count} prompts"):
        score_rollout(load_reward("ends", runtime), rollout, prompts, tokenizer)
