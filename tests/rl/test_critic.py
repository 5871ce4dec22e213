"""The critic beside a policy: its values, its loss, and options that are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.heads import ScalarModel
from amenable.rl.critic import CriticOptions, add_values, critic_loss, critic_optimizer
from amenable.rl.experience import Experience
from amenable.train import forward
from amenable.train.log import no_bars
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime


def test_values_and_their_loss(make_scalar_model: Callable[..., ScalarModel], runtime: Runtime) -> None:
    critic, mask = make_scalar_model(), length_mask([2, 1])
    rollout = Rollout([[1, 40], [1, 41]], [[60, 61], [62]], torch.tensor([True, True]), mask, torch.zeros(2, 2))
    experience = Experience(rollout, torch.zeros(2), torch.zeros(2))
    add_values(critic, experience, runtime, CriticOptions(), no_bars)
    values = torch.cat(forward.compute_values(critic, rollout.rows(), runtime, 100))
    assert torch.equal(experience.columns["values"][mask], values) and experience.columns["values"][1, 1] == 0
    old = {"values": values, "returns": values + torch.tensor([1.0, -2.0, 0.0])}
    loss, stats = critic_loss(critic, collate(rollout.rows()), old, runtime, 0.5)
    assert float(loss.detach()) == pytest.approx(0.5 * (1 + 4) / 6, abs=1e-5)
    assert float(stats["loss/value_avg"]) == pytest.approx(5 / 6, abs=1e-5) and loss.requires_grad


def test_the_critic_has_a_learning_rate_of_its_own(make_scalar_model: Callable[..., ScalarModel]) -> None:
    options = CriticOptions(optimizer=OptimizerConfig(learning_rate=1e-3), critic_learning_rate=2e-3)
    assert critic_optimizer(make_scalar_model(), options).rates() == {"lr": 2e-3}


@pytest.mark.parametrize("wrong", [{"gamma": 1.1}, {"lam": -0.1}, {"vf_coef": -1.0}, {"critic_learning_rate": -1.0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CriticOptions(**wrong)
