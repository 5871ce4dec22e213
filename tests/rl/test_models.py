"""The four models of PPO as they start."""

from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.rl.models import load_actors
from amenable.train.runtime import Runtime


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_each_pair_starts_equal_and_is_not_the_same(assistant: Path, judge: Path, runtime: Runtime) -> None:
    actors = load_actors(assistant, judge, 0, runtime)
    assert torch.equal(weights(actors.policy), weights(actors.reference))
    assert torch.equal(weights(actors.critic), weights(actors.scorer))
    with torch.no_grad():
        for model in (actors.policy, actors.critic):
            for p in model.parameters():
                p += 1
    assert not torch.equal(weights(actors.policy), weights(actors.reference))
    assert not torch.equal(weights(actors.critic), weights(actors.scorer))


def test_only_policy_and_critic_train_and_dropout_is_off(assistant: Path, judge: Path, runtime: Runtime) -> None:
    actors = load_actors(assistant, judge, 0, runtime)
    for model, trains in (
        (actors.policy, True),
        (actors.critic, True),
        (actors.reference, False),
        (actors.scorer, False),
    ):
        assert {p.requires_grad for p in model.parameters()} == {trains}
        assert not model.training
    assert actors.tokenizer.chat_template is not None and actors.runtime is runtime


def test_frozen_layers_are_the_policys_alone(assistant: Path, judge: Path, runtime: Runtime) -> None:
    actors = load_actors(assistant, judge, 1, runtime)
    frozen = {name for name, p in actors.policy.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in actors.policy.named_parameters() if "embedding" in n or "layers.0." in n}
    assert all(p.requires_grad for p in actors.critic.parameters())


def test_a_reward_model_of_another_tokenizer_is_refused(assistant: Path, other_judge: Path, runtime: Runtime) -> None:
    with pytest.raises(InputError, match="another tokenizer"):
        load_actors(assistant, other_judge, 0, runtime)
