"""`amenable expert-iteration`: the best answers alone are learned from, by the loss of fine-tuning."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import MinibatchLoss, collect_experience, minibatches
from amenable.rl.models import Models, load_models
from amenable.stages import expert_iteration
from amenable.train.examples import fitting_prompts
from amenable.train.objective import NextToken, accumulate
from amenable.train.runtime import Runtime


@pytest.fixture
def config(online: Callable[..., Any]) -> expert_iteration.Config:
    return online(expert_iteration, temperature=1.0)


@pytest.fixture
def models(config: expert_iteration.Config, runtime: Runtime) -> Models:
    return load_models(config, runtime)


@pytest.fixture
def experience(models: Models, config: expert_iteration.Config) -> Experience:
    """Sampled answers of four prompts, before they are selected."""
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(config.data, models.tokenizer, 44))][:4]
    algorithm = expert_iteration.ExpertIteration(models, config)
    return collect_experience(algorithm, models, config, prompts, ("rollout", 1), 4)


def test_the_best_of_each_prompt_are_in_the_updates(
    models: Models, experience: Experience, config: expert_iteration.Config
) -> None:
    for best in (1, 2):
        config = replace(config, num_best=best, num_ppo_epochs=2, num_mini_batches=2)
        algorithm = expert_iteration.ExpertIteration(models, config)
        algorithm.compute_advantages(experience, 0.0)
        chosen = algorithm.select(experience)
        highest = experience.scores.view(4, 4).argsort(1, descending=True)[:, :best] + 4 * torch.arange(4)[:, None]
        assert chosen == sorted(highest.flatten().tolist())
        assert experience.reward_metrics["objective/best_scores"] == pytest.approx(
            float(experience.raw_scores[chosen].mean())
        )
        updates = minibatches(algorithm, experience, config, 1)
        assert [len(update) for update in updates] == [2 * best] * 4
        assert sorted(updates[0] + updates[1]) == sorted(updates[2] + updates[3]) == chosen


def test_a_nat_of_kl_costs_an_answer_its_place(
    models: Models, experience: Experience, config: expert_iteration.Config
) -> None:
    algorithm = expert_iteration.ExpertIteration(models, config)
    algorithm.compute_advantages(experience, 0.0)
    first = algorithm.select(experience)[0]
    experience.columns["ref_logps"][first, 0] -= 1.0
    algorithm.compute_advantages(experience, 1e3)
    assert first not in algorithm.select(experience)
    in_loss = expert_iteration.ExpertIteration(models, replace(config, kl_in="loss"))
    in_loss.compute_advantages(experience, 1e3)
    assert first in in_loss.select(experience)


def test_the_gradient_is_that_of_fine_tuning_on_the_best(
    models: Models, experience: Experience, config: expert_iteration.Config
) -> None:
    algorithm = expert_iteration.ExpertIteration(models, config)
    algorithm.compute_advantages(experience, 0.0)
    chosen = algorithm.select(experience)
    objective = MinibatchLoss(experience, algorithm.losses[0], models.runtime.device, algorithm.mean_over)
    gradients = []
    for loss, elements in ((objective, chosen), (NextToken(models.policy), experience.rollout.rows(chosen))):
        models.policy.zero_grad(set_to_none=True)
        accumulate(loss, elements, models.runtime, 30)  # type: ignore[arg-type]
        gradients.append(torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, atol=1e-5) and gradients[0].abs().max() > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_best": 8}, "num_best is 8 of num_generations 8: nothing is selected"),
        ({"num_generations": 1}, "num_best is 1 of num_generations 1"),
        ({"num_best": 0}, "num_best is 0"),
        ({"prompts_per_step": 6}, "num_mini_batches 4 does not divide the 6 best answers"),
    ],
)
def test_a_selection_of_all_or_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expert_iteration.Config(**options)
