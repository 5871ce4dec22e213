"""Rewards are learned from comparisons; weight decay keeps the validation loss near the training loss."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from amenable.control.clips import Clips
from amenable.control.comparisons import Comparisons
from amenable.control.environments import Spaces
from amenable.control.reward_ensemble import RewardEnsemble
from amenable.control.reward_learning import RewardLearner
from amenable.functional.losses import preference_losses

SPACES = Spaces("test", Box(-9, 9, (2,)), Discrete(2))


def labelled(count: int, seed: int = 0, wrong: float = 0.0) -> Comparisons:
    """Comparisons of clips of 3 steps whose true reward is the first number of an observation."""
    draw = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        steps = draw.normal(size=(count, 3, 2)).astype(np.float32)
        sides.append(Clips(steps, draw.integers(0, 2, (count, 3)), steps[..., 0], np.zeros((count, 3, 0))))
    comparisons = Comparisons(3, 0.2, seed)
    comparisons.add(*sides)
    better, flipped = sides[0].returns > sides[1].returns, draw.random(count) < wrong
    comparisons.answer({number: float(better[number] != flipped[number]) for number in range(count)})
    return comparisons


def learner(decay: float = 0.01, noise: float = 0.1) -> RewardLearner:
    return RewardLearner(RewardEnsemble(SPACES, 3, (16,), 0, True), 1e-2, 32, noise, decay, 0)


def test_what_is_learned_orders_comparisons_that_are_held_out() -> None:
    comparisons, own = labelled(200), learner()
    before = own.accuracy(comparisons, comparisons.held_out.nonzero().flatten(), "a")["a"]
    metrics = own.fit(comparisons, 150)
    assert metrics["eval_rm/accuracy"] > 0.8 > 0.75 > before and metrics["reward/loss"] < 0.4
    rewards = own.ensemble(np.eye(2, dtype=np.float32), np.zeros(2, np.int64)).mean(0)
    assert rewards[0] > rewards[1] + 0.5, "the second number is worth nothing"


def test_the_loss_is_that_of_each_member_on_its_own_sample() -> None:
    comparisons, own = labelled(8), learner()
    losses = own.losses(comparisons, torch.arange(8))
    assert comparisons.left is not None and comparisons.right is not None
    gap = own.ensemble.of_clips(comparisons.left).sum(2) - own.ensemble.of_clips(comparisons.right).sum(2)
    p = 0.9 * torch.sigmoid(gap) + 0.05
    assert torch.allclose(losses, -torch.where(comparisons.answers == 1, p.log(), (1 - p).log()), atol=1e-5)
    tie = copy.deepcopy(comparisons)
    tie.answers[:] = 0.5
    expected = preference_losses(gap, torch.zeros_like(gap), label_smoothing=0.5, noise=0.1)
    assert torch.allclose(own.losses(tie, torch.arange(8)), expected)


def test_held_out_comparisons_and_open_ones_teach_nothing() -> None:
    comparisons = labelled(40)
    other = copy.deepcopy(comparisons)
    other.answers[other.held_out] = 1 - other.answers[other.held_out]
    weights = []
    for each in (comparisons, other):
        own = learner()
        own.fit(each, 5)
        weights.append(own.ensemble.networks[0][0].weight)  # type: ignore[index]
    assert torch.equal(*weights)
    comparisons.answers[:] = torch.nan
    assert learner().fit(comparisons, 5) == {}


@pytest.mark.parametrize(("ratio", "decay"), [(1.0, 0.02), (1.3, 0.03), (2.0, 0.045)])
def test_weight_decay_follows_the_validation_loss(ratio: float, decay: float) -> None:
    own = learner(0.03)
    own.adapt_decay(ratio)
    assert own.weight_decay == pytest.approx(decay) == own.optimizer.param_groups[0]["weight_decay"]
    off = learner(0.0)
    off.adapt_decay(ratio)
    assert off.weight_decay == 0


def test_a_restored_learner_goes_on_to_the_bit() -> None:
    comparisons, own = labelled(60), learner()
    own.ensemble.normalizer.update(np.random.default_rng(0).normal(3, 2, (50, 2)))
    own.fit(comparisons, 10)
    other = learner()
    other.load_state_dict(copy.deepcopy(own.state_dict()))
    assert own.fit(comparisons, 10) == other.fit(comparisons, 10)
    assert torch.equal(own.ensemble.networks[2][0].weight, other.ensemble.networks[2][0].weight)  # type: ignore[index]
