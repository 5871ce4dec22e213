"""Clips: short pieces of episodes that are compared. Letters: N clips, L steps of each, T steps, E environments.

A clip never reaches over the end of an episode, and all have one length. Steps are cut off one after another, from a
random step of the episode on, so that its last steps are in clips as often as its first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from amenable.control.rollout import Rollout
from amenable.seeds import derive_seed


@dataclass(frozen=True)
class Clips:
    """N clips of L steps."""

    observations: NDArray
    """[N, L, ...]: what each action was taken on, as the environment gives it"""
    actions: NDArray
    """[N, L] or [N, L, A], as executed"""
    rewards: NDArray
    """[N, L]: the environment's own, which simulated judges and metrics read, and training never"""
    pictures: NDArray
    """[N, L, P]: positions to draw each step from; P is 0 where nothing is drawn"""

    def __len__(self) -> int:
        return len(self.rewards)

    def __getitem__(self, rows: NDArray | Sequence[int] | slice) -> Clips:
        """Return the clips of these rows."""
        observations, actions, rewards, pictures = (column[rows] for column in self.columns)
        return Clips(observations, actions, rewards, pictures)

    @property
    def columns(self) -> tuple[NDArray, ...]:
        """The arrays, in the order of the fields."""
        return self.observations, self.actions, self.rewards, self.pictures

    @property
    def returns(self) -> NDArray:
        """[N]: the environment's rewards of each clip, added up."""
        return self.rewards.sum(axis=1)

    def without_pictures(self) -> Clips:
        """Return the clips without what they are drawn from."""
        return replace(self, pictures=self.pictures[..., :0])

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(column.copy()) for name, column in vars(self).items()}


def join(*parts: Clips | None) -> Clips:
    """Return clips one after another; None is no clips."""
    return Clips(*map(np.concatenate, zip(*(part.columns for part in parts if part is not None))))


def clips_of(state: Mapping[str, Any]) -> Clips:
    """Return the clips of a checkpoint."""
    return Clips(**{name: tensor.numpy() for name, tensor in state.items()})


class ClipCutter:
    """Cuts rollouts into clips; a clip may go on in the next rollout."""

    def __init__(self, num_envs: int, length: int, episode_length: int, seed: int):
        """episode_length: steps of an episode that the time limit ends."""
        self.length, self.seed, self.spare = length, seed, episode_length % length
        self.episodes, self.filled = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.skip = np.array([self.offset(index) for index in range(num_envs)])
        """steps of each running episode before its first clip begins"""
        self.begun: Clips | None = None
        """[E, L, ...]: the clip of each environment that is not full yet"""

    def offset(self, index: int) -> int:
        """Return the steps before the first clip of an environment's episode."""
        return derive_seed(self.seed, "clips begin", index, int(self.episodes[index])) % (self.spare + 1)

    def add(self, rollout: Rollout, pictures: NDArray) -> Clips:
        """Return the clips that a rollout completes. pictures: [T, E, P]."""
        columns = rollout.observations, rollout.executed, rollout.rewards, pictures
        if self.begun is None:
            self.begun = Clips(*(np.zeros((c.shape[1], self.length, *c.shape[2:]), c.dtype) for c in columns))
        full: list[Clips] = [self.begun[:0]]
        for t, active in enumerate(rollout.mask):
            rows = np.nonzero(active & (self.skip == 0))[0]
            for column, source in zip(self.begun.columns, columns):
                column[rows, self.filled[rows]] = source[t, rows]
            self.filled[rows] += 1
            self.skip[active & (self.skip > 0)] -= 1
            if (complete := self.filled == self.length).any():
                full.append(self.begun[np.nonzero(complete)[0]])
                self.filled[complete] = 0
            for index in np.nonzero(rollout.ended[t])[0].tolist():
                self.episodes[index] += 1
                self.filled[index], self.skip[index] = 0, self.offset(index)
        return join(*full)

    def state_dict(self) -> dict[str, Any]:
        counts = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("episodes", "filled", "skip")}
        return {**counts, "begun": None if self.begun is None else self.begun.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.episodes, self.filled, self.skip = (state[name].numpy() for name in ("episodes", "filled", "skip"))
        self.begun = None if state["begun"] is None else clips_of(state["begun"])
