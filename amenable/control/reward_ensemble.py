"""Reward predictors: an ensemble of networks from (observation, action) to a reward. Letters: M members, B steps.

    r(s, a) = 1/M sum_m (r_m(s, a) - mean_m) / std_m        moments over the steps of recent clips

Each member is normalised by itself before the mean is taken (Christiano et al., 2017, section 2.2.1 and 2.2.3): a
preference says nothing of a reward's zero and unit. Where actions are read, a discrete one selects an output of the
network, and continuous ones are inputs beside the observation; r(s, a) is r(s) where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from amenable.control.clips import Clips
from amenable.control.environments import Spaces
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import make_network
from amenable.seeds import seeded_generator

GAIN = 0.1
"""of the last layer: rewards of new members are near 0, and their preferences near one half"""
BATCH = 16384
"""steps computed at once where no gradient is taken"""


class RewardEnsemble(nn.Module):
    """M networks, the moments of observations that they read, and those of their own rewards."""

    mean: Tensor
    std: Tensor

    def __init__(self, spaces: Spaces, members: int, hidden: Sequence[int], seed: int, reads_actions: bool):
        """reads_actions: whether a reward is of observation and action, or of the observation alone."""
        super().__init__()
        self.selects = reads_actions and spaces.is_discrete
        self.concatenates = reads_actions and not spaces.is_discrete
        self.normalizer = ObservationNormalizer(spaces.shape, spaces.is_vector)
        shape = (spaces.shape[0] + spaces.num_actions,) if self.concatenates else spaces.shape
        outputs = spaces.num_actions if self.selects else 1
        self.networks = nn.ModuleList(
            make_network(shape, outputs, GAIN, hidden, "tanh", seeded_generator(seed, "reward member", member))
            for member in range(members)
        )
        self.register_buffer("mean", torch.zeros(members))
        self.register_buffer("std", torch.ones(members))

    def forward(self, observations: NDArray, actions: NDArray) -> Tensor:
        """Return every member's rewards [M, B] of steps: observations [B, ...], executed actions [B] or [B, A]."""
        inputs, taken = torch.from_numpy(self.normalizer.normalize(observations)), torch.from_numpy(actions)
        if self.selects:
            return torch.stack([network(inputs).gather(1, taken[:, None])[:, 0] for network in self.networks])
        if self.concatenates:
            inputs = torch.cat([inputs, taken.to(inputs.dtype)], dim=1)
        return torch.stack([network(inputs)[:, 0] for network in self.networks])

    def of_clips(self, clips: Clips) -> Tensor:
        """Return every member's rewards of clips, [M, N, L]."""
        count, length = clips.rewards.shape
        flat = (column.reshape(count * length, *column.shape[2:]) for column in clips.columns[:2])
        return self(*flat).view(len(self.networks), count, length)

    @torch.no_grad()
    def returns(self, clips: Clips) -> Tensor:
        """Return every member's rewards of clips, added up over their steps, [M, N]."""
        size = max(1, BATCH // clips.rewards.shape[1])
        starts = range(0, max(len(clips), 1), size)
        return torch.cat([self.of_clips(clips[i : i + size]).sum(2) for i in starts], dim=1)

    @torch.no_grad()
    def normalize_by(self, clips: Clips) -> None:
        """Set the members' moments to those of their rewards in these clips."""
        rewards = self.of_clips(clips).flatten(1)
        self.mean, self.std = rewards.mean(1), rewards.std(1, correction=0).clamp(min=1e-6)

    @torch.no_grad()
    def reward(self, observations: NDArray, actions: NDArray) -> NDArray:
        """Return the ensemble's normalised rewards [T, E] of steps [T, E, ...]."""
        steps, copies = observations.shape[:2]
        flat = [array.reshape(steps * copies, *array.shape[2:]) for array in (observations, actions)]
        parts = [self(*(array[i : i + BATCH] for array in flat)) for i in range(0, steps * copies, BATCH)]
        members = (torch.cat(parts, dim=1) - self.mean[:, None]) / self.std[:, None]
        return np.asarray(members.mean(0).view(steps, copies), np.float64)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights, the members' moments, and those of observations, by name."""
        moments = self.normalizer.state_dict()
        return {**self.state_dict(), "observations.mean": moments["mean"], "observations.var": moments["var"]}
