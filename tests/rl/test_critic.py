"""The critic beside a policy: its values, its loss, and options that are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.rl.algorithm import policy_logprobs
from amenable.rl.critic import (
    CriticOptions,
    add_value_loss,
    add_values,
    critic_loss,
    critic_optimizer,
    head_of,
    make_critic,
)
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.train import forward
from amenable.train.log import no_bars
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime


def test_values_and_their_loss(
    make_scalar_model: Callable[..., ScalarModel], make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    critic, mask = make_scalar_model(), length_mask([2, 1])
    rollout = Rollout([[1, 40], [1, 41]], [[60, 61], [62]], torch.tensor([True, True]), mask, torch.zeros(2, 2))
    experience = Experience(rollout, torch.zeros(2), torch.zeros(2))
    models = Models(make_decoder(), make_decoder(), None, None, runtime)  # type: ignore[arg-type]
    add_values(critic, experience, models, CriticOptions(), no_bars)
    values = torch.cat(forward.compute_values(critic, rollout.rows(), runtime, 100))
    assert torch.equal(experience.columns["values"][mask], values) and experience.columns["values"][1, 1] == 0
    old = {"values": values, "returns": values + torch.tensor([1.0, -2.0, 0.0])}
    loss, stats = critic_loss(critic, models, collate(rollout.rows()), old, 0.5)
    assert float(loss.detach()) == pytest.approx(0.5 * (1 + 4) / 6, abs=1e-5)
    assert float(stats["loss/value_avg"]) == pytest.approx(5 / 6, abs=1e-5) and loss.requires_grad


def test_a_head_on_the_trunk_learns_with_the_policy_or_alone(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    """In the policy's pass the trunk has the gradient of both losses; beside it the head alone has one."""
    policy, rows = make_decoder(), [([1, 40, 60, 61], [False] * 2 + [True] * 2), ([1, 41, 62], [False] * 2 + [True])]
    models = Models(policy, make_decoder(), None, None, runtime)  # type: ignore[arg-type]
    options = CriticOptions(critic="shared", temperature=1.0)
    head = head_of(make_critic(models, options))
    assert head is not None and not any(p.any() for p in head.parameters())
    with torch.no_grad():
        head.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    values = torch.cat(forward.compute_head_values(policy, head, rows, runtime, 100))
    old = {"sampler_logps": torch.zeros(3), "values": values + 0.1, "returns": values + torch.tensor([1.0, -2.0, 0.0])}
    _, _, columns, _ = policy_logprobs(policy, collate(rows), old, runtime, options, head)
    assert torch.allclose(columns["new_values"], values, atol=1e-5)
    loss, stats = add_value_loss(torch.zeros(()), {}, columns, 0.5)
    assert float(loss.detach()) == pytest.approx(0.5 * 5 / 6, abs=1e-4) and "loss/value_avg" in stats
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.parameters()) and head.score.weight.grad is not None
    together = head.score.weight.grad.clone()
    policy.zero_grad(set_to_none=True)
    head.zero_grad(set_to_none=True)
    alone, _ = critic_loss(head, models, collate(rows), old, 0.5)
    alone.backward()
    assert torch.allclose(head.score.weight.grad, together, atol=1e-5) and torch.allclose(alone, loss, atol=1e-5)
    assert all(p.grad is None for p in policy.parameters())
    assert add_value_loss(loss, {}, old, 0.5) == (loss, {})


def test_the_critic_has_a_learning_rate_of_its_own(make_scalar_model: Callable[..., ScalarModel]) -> None:
    options = CriticOptions(optimizer=OptimizerConfig(learning_rate=1e-3), critic_learning_rate=2e-3)
    assert critic_optimizer(make_scalar_model(), options).rates() == {"lr": 2e-3}


@pytest.mark.parametrize("wrong", [{"gamma": 1.1}, {"lam": -0.1}, {"vf_coef": -1.0}, {"critic_learning_rate": -1.0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CriticOptions(**wrong)
