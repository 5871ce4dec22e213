"""Comparisons of two clips: what was shown, and what was answered.

An answer is the share of a vote that the left clip gets: 1 better, 0 worse, .5 equally good; nan where there is none
(yet). By its number a comparison is held out, or counts in each member's bootstrap sample as often as a Poisson number
of mean 1 says (Oza and Russell, 2001): both stay as they are while comparisons are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from amenable.control.clips import Clips, clips_of, join
from amenable.seeds import seeded_generator


class Comparisons:
    """N comparisons in the order in which they were shown, for M members."""

    def __init__(self, members: int, holdout: float, seed: int):
        """holdout: share of the comparisons that no member learns from."""
        self.members, self.holdout, self.seed = members, holdout, seed
        self.left: Clips | None = None
        self.right: Clips | None = None
        self.answers = torch.zeros(0)
        """[N]"""
        self.closed = torch.zeros(0, dtype=torch.bool)
        """[N]: True where nobody could tell, so that no answer will come"""
        self.weights = torch.zeros(members, 0)
        """[M, N]: times that a comparison is in a member's bootstrap sample; 0 also where it is held out"""
        self.held_out = torch.zeros(0, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def labelled(self) -> Tensor:
        """[N]: True where there is an answer."""
        return ~self.answers.isnan()

    @property
    def num_labels(self) -> int:
        """Number of answers."""
        return int(self.labelled.sum())

    @property
    def num_open(self) -> int:
        """Number of comparisons that still wait for an answer."""
        return int((~self.labelled & ~self.closed).sum())

    def add(self, left: Clips, right: Clips) -> range:
        """Add comparisons without answers; return their numbers."""
        numbers = range(len(self), len(self) + len(left))
        self.left, self.right = join(self.left, left.without_pictures()), join(self.right, right.without_pictures())
        self.answers = torch.cat([self.answers, torch.full((len(left),), torch.nan)])
        self.closed = torch.cat([self.closed, torch.zeros(len(left), dtype=torch.bool)])
        self.draw_samples()
        return numbers

    def draw_samples(self) -> None:
        """Draw what is held out, and how often each comparison counts for each member, of comparisons that are new."""
        for number in range(len(self.held_out), len(self)):
            generator = seeded_generator(self.seed, "comparison", number)
            held_out = torch.rand(1, generator=generator) < self.holdout
            counts = torch.poisson(torch.ones(self.members, 1), generator) * ~held_out
            self.held_out = torch.cat([self.held_out, held_out])
            self.weights = torch.cat([self.weights, counts], dim=1)

    def answer(self, answers: Mapping[int, float | None]) -> None:
        """Set answers by number: a share of the vote, nan where it was taken back, None where nobody can tell."""
        for number, value in answers.items():
            self.answers[number] = torch.nan if value is None else value
            self.closed[number] = value is None

    def state_dict(self) -> dict[str, Any]:
        sides = {"left": self.left, "right": self.right}
        clips = {name: None if side is None else side.state_dict() for name, side in sides.items()}
        return {**clips, "answers": self.answers, "closed": self.closed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.left, self.right = (None if state[name] is None else clips_of(state[name]) for name in ("left", "right"))
        self.answers, self.closed = state["answers"], state["closed"]
        self.weights, self.held_out = torch.zeros(self.members, 0), torch.zeros(0, dtype=torch.bool)
        self.draw_samples()
