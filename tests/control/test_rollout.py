"""Rollouts are what happened: in fixed lengths, and in whole episodes."""

import numpy as np
import torch

from amenable.control.environments import Environments
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.control.rollout import Rollout, collect

OFF = ObservationNormalizer((4,), False)


def roll(copies: Environments, steps: int, whole: bool = False, seed: int | None = 0) -> Rollout:
    policy = Policy(copies.spaces.shape, copies.spaces.num_actions, copies.spaces.is_discrete)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return collect(copies, policy, OFF, steps, generator, whole)


def test_a_rollout_of_fixed_length() -> None:
    copies = Environments("CartPole-v1", 3, 0, max_episode_steps=9)
    first = copies.observations.copy()
    rollout = roll(copies, 20)
    assert rollout.observations.shape == (20, 3, 4) and (rollout.observations[0] == first).all()
    assert rollout.mask.all() and rollout.num_steps == 60 and (rollout.rewards == 1).all()
    cuts = list(zip(*rollout.truncated.nonzero()))
    assert len(rollout.cut_observations) == len(cuts) > 3
    t, e = cuts[0]
    assert (rollout.observations[t + 1, e] != rollout.cut_observations[0]).any(), "the next episode's first is another"
    assert (rollout.last_observations == copies.observations).all() and rollout.ended.sum() == len(copies.finished)
    later = roll(copies, 2, seed=1)
    assert (later.observations[0] == rollout.last_observations).all(), "it goes on where the last one ended"


def test_whole_episodes_are_played_to_their_ends() -> None:
    copies = Environments("CartPole-v1", 3, 0)
    rollout = roll(copies, 20, whole=True)
    assert rollout.num_steps >= 60 and not rollout.mask.all()
    for e in range(3):
        steps = rollout.mask[:, e].sum()
        assert rollout.mask[:steps, e].all() and rollout.ended[steps - 1, e], "no step after the last end"
    one = roll(copies, 0, whole=True, seed=None)
    assert one.ended.sum() == 3 and copies.returns.tolist() == [0, 0, 0]


def test_actions_are_clipped_for_the_environment_alone() -> None:
    rollout = roll(Environments("Pendulum-v1", 2, 0), 80)
    assert np.abs(rollout.executed).max() == 2 < np.abs(rollout.actions).max()
    assert rollout.actions.shape == (80, 2, 1) and rollout.actions.dtype == np.float32
