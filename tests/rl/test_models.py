"""The models of an online algorithm as they start."""

from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.rl.models import Models, load_critic, load_models
from amenable.rl.options import OnlineOptions
from amenable.train import forward
from amenable.train.runtime import Runtime


@pytest.fixture
def options(assistant: Path, judge: Path) -> OnlineOptions:
    return OnlineOptions(model=assistant, reward=judge)


@pytest.fixture
def models(options: OnlineOptions, runtime: Runtime) -> Models:
    return load_models(options, runtime)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_each_pair_starts_equal_and_is_not_the_same(models: Models, judge: Path) -> None:
    critic, scorer = load_critic(judge, models), models.frozen[1]
    assert torch.equal(weights(models.policy), weights(models.reference))
    assert torch.equal(weights(critic), weights(scorer))
    with torch.no_grad():
        for model in (models.policy, critic):
            for p in model.parameters():
                p += 1
    assert not torch.equal(weights(models.policy), weights(models.reference))
    assert not torch.equal(weights(critic), weights(scorer))


def test_only_policy_and_critic_train_and_dropout_is_off(models: Models, judge: Path, runtime: Runtime) -> None:
    for model, trains in (
        (models.policy, True),
        (load_critic(judge, models), True),
        *((m, False) for m in models.frozen),
    ):
        assert {p.requires_grad for p in model.parameters()} == {trains}
        assert not model.training
    assert models.reference is models.frozen[0]
    assert models.tokenizer.chat_template is not None and models.runtime is runtime


def test_frozen_layers_are_the_policys_alone(assistant: Path, judge: Path, runtime: Runtime) -> None:
    models = load_models(OnlineOptions(model=assistant, reward=judge, frozen_layers=1), runtime)
    frozen = {name for name, p in models.policy.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in models.policy.named_parameters() if "embedding" in n or "layers.0." in n}
    assert all(p.requires_grad for p in load_critic(judge, models).parameters())


def test_a_reward_model_scores_the_sampled_ids(models: Models, runtime: Runtime) -> None:
    responses = [[7, 8, 9], [10, 11]]
    mask = length_mask([3, 2])
    rollout = Rollout([[5, 6]] * 2, responses, torch.ones(2, dtype=torch.bool), mask, torch.zeros(2, 3))
    scores = models.reward(rollout)
    assert torch.equal(scores, forward.row_rewards(models.frozen[1], rollout.rows(), runtime, 8192))


def test_a_reward_model_of_another_tokenizer_is_refused(assistant: Path, other_judge: Path, runtime: Runtime) -> None:
    with pytest.raises(InputError, match="another tokenizer"):
        load_models(OnlineOptions(model=assistant, reward=other_judge), runtime)
