"""`amenable grpo`: gradients from answers one at a time, its relatives, and a stopped run goes on to the bit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime


@pytest.fixture
def config(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> grpo.Config:
    return grpo.Config(
        model=assistant,
        reward=judge,
        data=files.prompts,
        out=tmp_path / "run",
        max_steps=3,
        prompts_per_step=4,
        num_generations=4,
        temperature=0.7,
        max_new_tokens=20,
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        save_steps=0,
        num_traced_prompts=1,
        device=DeviceOptions("cpu", "fp32", 1),
    )


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
    algorithm.estimate(experience, 0.05)
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
    algorithm.estimate(answers, 0.0)
    expected = answers.scores - cold.scores
    assert torch.allclose(answers.columns["advantages"][:, 0], expected, atol=1e-5)
    assert torch.equal(answers.columns["advantages"] != 0, answers.rollout.mask & (expected != 0)[:, None])


def test_the_score_rises(config: grpo.Config, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    config = replace(
        config, max_steps=10, prompts_per_step=8, num_mini_batches=2, dynamic_sampling=1, overlong_buffer=4
    )
    rows = rows_of(grpo.run(config))
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.1
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-3) and rows[-1]["objective/kl"] > 0.01
    assert all(math.isfinite(row["sampling/equal_groups"]) for row in rows) and "policy/clipfrac_avg" in rows[0]


@pytest.mark.parametrize(
    "options",
    [
        {"mean_over": "tokens", "cliprange_high": 0.28, "num_mini_batches": 2, "dynamic_sampling": 2},
        {"importance_sampling_level": "sequence", "baseline": "greedy", "scale_rewards": "none"},
        {"pass_at_k": 2, "surrogate": "cispo", "mean_over": "constant", "kl_estimator": "full"},
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(
    config: grpo.Config, options: dict[str, Any], tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    config = replace(config, **options)
    whole = grpo.run(replace(config, out=tmp_path / "whole"))
    parted = run_in_two(grpo, replace(config, out=tmp_path / "parted"), 2)
    assert (whole / "model.safetensors").read_bytes() == (parted / "model.safetensors").read_bytes()


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
