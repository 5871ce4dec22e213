"""Reward predictors: one reward a step and member, each member normalised by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from amenable.control.clips import Clips
from amenable.control.environments import Spaces
from amenable.control.reward_ensemble import RewardEnsemble

VECTOR, IMAGE = Box(-9, 9, (3,)), Box(0, 255, (36, 36, 1), np.uint8)
FOUR, NUMBERS = Discrete(4), Box(-1, 1, (2,))


def actions_for(space: object, count: int) -> np.ndarray:
    return np.arange(count) % 4 if space is FOUR else np.linspace(-1, 1, 2 * count, dtype=np.float32).reshape(count, 2)


CASES = [
    (observations, actions, reads_actions)
    for observations in (VECTOR, IMAGE, Discrete(5))
    for actions in (FOUR, NUMBERS)
    for reads_actions in (False, True)
    if not (reads_actions and observations is IMAGE and actions is NUMBERS)
]


@pytest.mark.parametrize(("observations", "actions", "reads_actions"), CASES)
def test_rewards_of_all_spaces(observations: object, actions: object, reads_actions: bool) -> None:
    spaces = Spaces("test", observations, actions)
    ensemble = RewardEnsemble(spaces, 2, (8,), 0, reads_actions)
    steps = np.random.default_rng(0).random((6, *spaces.shape)).astype(np.float32)
    taken = actions_for(actions, 6)
    rewards = ensemble(steps, taken)
    assert rewards.shape == (2, 6) and not torch.equal(rewards[0], rewards[1])
    alone = torch.cat([ensemble(steps[i : i + 1], taken[i : i + 1]) for i in range(6)], dim=1)
    assert torch.allclose(rewards, alone, atol=1e-6)
    changed = ensemble(steps, np.roll(taken, 1, axis=0))
    assert torch.equal(rewards, changed) != reads_actions


def test_each_member_is_normalised_before_the_mean() -> None:
    ensemble = RewardEnsemble(Spaces("test", VECTOR, FOUR), 3, (8,), 1, True)
    with torch.no_grad():
        ensemble.networks[0][-1].weight.mul_(100)  # type: ignore[index]
        ensemble.networks[1][-1].bias.add_(50)  # type: ignore[index]
    steps = np.random.default_rng(1).normal(size=(10, 20, 3)).astype(np.float32)
    taken = np.random.default_rng(2).integers(0, 4, (10, 20))
    clips = Clips(steps, taken, np.zeros((10, 20)), np.zeros((10, 20, 0)))
    ensemble.normalize_by(clips)
    rewards = ensemble.reward(steps, taken)
    assert rewards.shape == (10, 20) and abs(rewards.mean()) < 1e-3
    members = ensemble.of_clips(clips).detach()
    expected = ((members - members.mean((1, 2), keepdim=True)) / members.std((1, 2), correction=0, keepdim=True)).mean(
        0
    )
    assert np.allclose(rewards, expected.numpy(), atol=1e-3)
    assert torch.allclose(ensemble.returns(clips), members.sum(2), atol=1e-4)
