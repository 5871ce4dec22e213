"""`amenable grpo`: gradients from answers one at a time, and its relatives. More in test_online.py."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import MinibatchLoss, collect_experience
from amenable.rl.models import Models, load_models
from amenable.stages import grpo
from amenable.train import forward
from amenable.train.examples import fitting_prompts
from amenable.train.objective import accumulate
from amenable.train.runtime import Runtime


@pytest.fixture
def config(online: Callable[..., Any]) -> grpo.Config:
    return online(grpo, max_new_tokens=20)


@pytest.fixture
def models(config: grpo.Config, runtime: Runtime) -> Models:
    return load_models(config, runtime)


@pytest.fixture
def experience(models: Models, config: grpo.Config) -> Experience:
    """Sampled answers of two prompts; old and reference log-probabilities are off by known amounts."""
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(config.data, models.tokenizer, 44))][:2]
    answers = collect_experience(grpo.GRPO(models, config), models, config, prompts, ("rollout", 1), 4)
    draw, rollout = torch.Generator().manual_seed(1), answers.rollout
    moved = 0.3 * torch.randn(rollout.mask.shape, generator=draw) * rollout.mask
    columns = {**answers.columns, "logps": rollout.logps + moved}
    columns["ref_logps"] = answers.columns["ref_logps"] - 0.3 * rollout.mask
    return replace(answers, columns=columns)


def gradient(models: Models, experience: Experience, config: grpo.Config, limit: int = 8192) -> Tensor:
    models.policy.zero_grad(set_to_none=True)
    algorithm = grpo.GRPO(models, config)
    algorithm.compute_advantages(experience, 0.05)
    objective = MinibatchLoss(experience, algorithm.losses[0], models.runtime.device, algorithm.mean_over)
    accumulate(objective, range(len(experience.scores)), models.runtime, limit)
    return gradients_of(models)


def gradients_of(models: Models) -> Tensor:
    return torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None])


def by_hand(models: Models, experience: Experience, config: grpo.Config) -> Tensor:
    """The gradient from each answer alone, written out for a clip of 0.2 and k3 in the loss."""
    models.policy.zero_grad(set_to_none=True)
    groups = experience.scores.view(-1, 4)
    std = {"group": groups.std(1, keepdim=True) + 1e-4, "batch": groups.std() + 1e-4, "none": 1.0}
    advantages = ((groups - groups.mean(1, keepdim=True)) / std[config.scale_rewards]).flatten()
    parts, rows = [], experience.rollout.rows()
    for i, row in enumerate(rows):
        mask = experience.rollout.mask[i]
        logps = forward.masked_logprobs(models.policy, collate([row]), 0.7)[0]
        change = logps - experience.columns["logps"][i][mask]
        if config.importance_sampling_level == "sequence":
            change = change.mean().expand_as(change)
        ratio, advantage = change.exp(), advantages[i]
        if config.surrogate == "cispo":
            terms = -ratio.detach().clamp(max=1.2) * advantage * logps
        else:
            terms = torch.stack([-r * advantage if (r > 1.2) <= (advantage < 0) and (r < 0.8) <= (advantage > 0)
                                 else torch.zeros(()) for r in ratio])  # fmt: skip
        gap = experience.columns["ref_logps"][i][mask] - logps
        parts.append(terms + 0.05 * (gap.exp() - 1 - gap))
    if config.mean_over == "tokens":
        loss = torch.cat(parts).mean()
    elif config.mean_over == "answers":
        loss = torch.stack([part.mean() for part in parts]).mean()
    else:
        loss = torch.stack([part.sum() / config.max_new_tokens for part in parts]).mean()
    loss.backward()
    return gradients_of(models)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mean_over": "tokens", "scale_rewards": "batch"},
        {"mean_over": "constant", "scale_rewards": "none"},
        {"importance_sampling_level": "sequence"},
        {"surrogate": "cispo", "mean_over": "tokens"},
    ],
    ids=["GRPO", "BNPO", "Dr. GRPO", "GSPO", "CISPO"],
)
def test_the_gradient_is_that_of_the_answers_one_by_one_in_any_microbatches(
    models: Models, experience: Experience, config: grpo.Config, options: dict[str, Any]
) -> None:
    config = replace(config, **options)
    whole, parts = (gradient(models, experience, config, limit) for limit in (8192, 30))
    expected = by_hand(models, experience, config)
    assert torch.allclose(whole, expected, atol=1e-4) and torch.allclose(whole, parts, atol=1e-4)
    assert expected.abs().max() > 1e-3


def test_each_option_changes_the_gradient(models: Models, experience: Experience, config: grpo.Config) -> None:
    options: list[dict[str, Any]] = [
        {"mean_over": "tokens"}, {"mean_over": "constant"}, {"importance_sampling_level": "sequence"},
        {"surrogate": "cispo"}, {"scale_rewards": "none"}, {"scale_rewards": "batch"}, {"cliprange": 0.05},
        {"cliprange_high": 0.05}, {"dual_clip": 1.21}, {"pass_at_k": 2}, {"kl_in": "reward"}, {"kl_estimator": "k2"},
        {"kl_estimator": "abs"}, {"kl_estimator": "full"}, {"entropy_coef": 0.1},
    ]  # fmt: skip
    gradients = [
        gradient(models, experience, config),
        *(gradient(models, experience, replace(config, **o)) for o in options),
    ]
    apart = torch.cdist(torch.stack(gradients), torch.stack(gradients)) + torch.eye(len(gradients))
    assert apart.min() > 1e-4


def test_the_greedy_answers_score_is_remaxs_baseline(models: Models, config: grpo.Config) -> None:
    config = replace(config, baseline="greedy", scale_rewards="none", kl_in="reward")
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(config.data, models.tokenizer, 44))][:2]
    algorithm = grpo.GRPO(models, config)
    answers = collect_experience(algorithm, models, config, prompts, ("rollout", 1), 4)
    cold = collect_experience(grpo.GRPO(models, replace(config, baseline="group")), models,
                              replace(config, temperature=1e-4), prompts, ("any",), 4)  # fmt: skip
    algorithm.compute_advantages(answers, 0.0)
    expected = answers.scores - cold.scores
    assert torch.allclose(answers.columns["advantages"][:, 0], expected, atol=1e-5)
    assert torch.equal(answers.columns["advantages"] != 0, answers.rollout.mask & (expected != 0)[:, None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1.*--num-generations 8"),
        ({"pass_at_k": 9}, "pass_at_k is 9.*from 2 to num_generations 8"),
        ({"pass_at_k": 1}, "pass_at_k is 1"),
        ({"pass_at_k": 2, "baseline": "greedy"}, "its own baseline"),
        ({"surrogate": "cispo", "dual_clip": 3.0}, "no dual clip"),
        ({"dual_clip": 1.1}, r"dual_clip 1.1 is not above 1 \+ cliprange 0.2"),
        ({"kl_estimator": "k1"}, "gradient 0 in expectation.*--kl-estimator k2"),
        ({"overlong_buffer": 20, "max_new_tokens": 12}, "overlong_buffer 20 is more than max_new_tokens 12"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grpo.Config(**options)
