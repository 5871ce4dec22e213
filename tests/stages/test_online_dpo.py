"""`amenable online-dpo`: pairs of one's own answers, and the loss of dpo on them. More in test_online.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import collect_experience, minibatches, update
from amenable.rl.models import Models, load_models
from amenable.stages import online_dpo
from amenable.train import forward
from amenable.train.examples import fitting_prompts
from amenable.train.objective import accumulate
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime


@pytest.fixture
def config(online: Callable[..., Any]) -> online_dpo.Config:
    return online(online_dpo, beta=0.3)


@pytest.fixture
def models(config: online_dpo.Config, runtime: Runtime) -> Models:
    return load_models(config, runtime)


@pytest.fixture
def experience(models: Models, config: online_dpo.Config) -> Experience:
    """Sampled answers of four prompts; the reference's log-probabilities are off by known amounts."""
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(config.data, models.tokenizer, 44))][:4]
    algorithm = online_dpo.OnlineDPO(models, config)
    answers = collect_experience(algorithm, models, config, prompts, ("rollout", 1), config.num_generations)
    moved = torch.randn(answers.rollout.mask.shape, generator=torch.Generator().manual_seed(0)) * answers.rollout.mask
    return replace(answers, columns={"ref_logps": answers.columns["ref_logps"] - 0.3 * moved})


def test_the_best_answer_is_paired_with_the_worst_and_equal_ones_with_none(
    models: Models, experience: Experience, config: online_dpo.Config
) -> None:
    experience.scores[4:8] = 1.5
    algorithm = online_dpo.OnlineDPO(models, config)
    algorithm.compute_advantages(experience, 0.0)
    pairs = algorithm.select(experience)
    scores = experience.scores.view(4, 4)
    expected = [(4 * g + int(scores[g].argmax()), 4 * g + int(scores[g].argmin())) for g in (0, 2, 3)]
    assert pairs == expected
    updates = minibatches(algorithm, experience, replace(config, num_mini_batches=2), 1)
    assert sorted(pair for part in updates for pair in part) == expected and [len(part) for part in updates] == [2, 1]


def by_hand() -> tuple[online_dpo.Config, Experience]:
    """Four answers to a prompt; the reference gives the first -11 and the second -12 nats."""
    mask = length_mask([2, 1, 1, 1])
    rollout = Rollout([[1]] * 4, [[5, 6], [7], [8], [9]], torch.ones(4, dtype=torch.bool), mask, torch.zeros(4, 2))
    ref_logps = torch.tensor([[-5.0, -6.0], [-12.0, 9.0], [-1.0, 9.0], [-1.0, 9.0]])
    scores = torch.tensor([1.0, 0.0, 0.5, 0.1])
    return online_dpo.Config(num_generations=4), Experience(rollout, scores, scores, {"ref_logps": ref_logps})


def test_pairs_and_their_loss_by_hand() -> None:
    config, experience = by_hand()
    models: Any = SimpleNamespace(policy=nn.Linear(1, 1))
    algorithm = online_dpo.OnlineDPO(models, replace(config, optimizer=OptimizerConfig(learning_rate=1.0)))
    algorithm.compute_advantages(experience, 0.0)
    assert experience.columns["advantages"].tolist() == [[1, 1], [-1, 0], [0, 0], [0, 0]]
    assert algorithm.select(experience) == [(0, 1)]
    sums = torch.tensor([-10.0, -14.0], requires_grad=True)
    loss, stats = algorithm.objective(experience).loss([(0, 1)], sums)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.554355, abs=1e-5)  # h = (-10 + 11) - (-14 + 12) = 3, beta 0.1
    assert sums.grad is not None and sums.grad.tolist() == pytest.approx([-0.042556, 0.042556], abs=1e-5)
    assert float(stats["sampling/logp_difference"]) == pytest.approx((10 / 2 + 14) / 2)


def test_the_gradient_is_that_of_dpo_on_the_pairs(
    models: Models, experience: Experience, config: online_dpo.Config
) -> None:
    algorithm = online_dpo.OnlineDPO(models, config)
    algorithm.compute_advantages(experience, 0.0)
    pairs, refs = algorithm.select(experience), experience.columns["ref_logps"].sum(1)
    gradients = []
    for limit in (8192, 30):
        models.policy.zero_grad(set_to_none=True)
        accumulate(algorithm.objective(experience), pairs, models.runtime, limit)
        gradients.append(torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None]))
    models.policy.zero_grad(set_to_none=True)
    terms = []
    for pair in pairs:
        first, second = (
            forward.masked_logprobs(models.policy, collate(experience.rollout.rows([i])), 0.7)[0].sum() - refs[i]
            for i in pair
        )
        terms.append(-F.logsigmoid(0.3 * (first - second)))
    torch.stack(terms).mean().backward()
    expected = torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None])
    assert expected.abs().max() > 1e-3
    assert all(torch.allclose(gradient, expected, atol=1e-4) for gradient in gradients)


def test_a_step_whose_answers_are_all_equal_leaves_the_policy(
    models: Models, experience: Experience, config: online_dpo.Config
) -> None:
    experience.scores[:] = 1.0
    algorithm = online_dpo.OnlineDPO(models, config)
    algorithm.compute_advantages(experience, 0.0)
    start = [p.clone() for p in models.policy.parameters()]
    assert update(algorithm, models, experience, [], 1, 1.0, config, lambda: 0.0) == {"updates": 0}
    assert all(torch.equal(p, q) for p, q in zip(start, models.policy.parameters()))


def test_a_sampler_that_is_not_the_trainer_is_stopped(
    models: Models, experience: Experience, config: online_dpo.Config
) -> None:
    rollout = replace(experience.rollout, logps=experience.rollout.logps * 1.1)
    algorithm, wrong = online_dpo.OnlineDPO(models, config), replace(experience, rollout=rollout)
    algorithm.compute_advantages(wrong, 0.0)
    with pytest.raises(RuntimeError, match="before any update"):
        update(algorithm, models, wrong, [], 1, 1.0, config, lambda: 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1: a pair has two answers"),
        ({"loss": "aot"}, "loss is aot.*amenable dpo"),
        ({"entropy_coef": 0.1}, "no entropy_coef"),
        ({"target_kl": 0.1}, "no target_kl"),
        ({"kl_in": "loss"}, "no kl_in loss"),
        ({"sampler_correction": "mask"}, "no sampler_correction"),
        ({"beta": 0.0}, "beta is 0"),
    ],
)
def test_options_that_a_loss_on_pairs_has_not_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        online_dpo.Config(**options)


def test_relatives_of_the_loss_are_options(online: Callable[..., Any], rows_of: Callable[[Path], Any]) -> None:
    rows = rows_of(online_dpo.run(online(online_dpo, loss="ipo", max_steps=2, num_mini_batches=2)))
    assert all({"rewards/margins", "logps/chosen", "loss/policy_avg", "sampling/kl"} <= set(row) for row in rows)
