"""Comparisons: open, answered, taken back, given up; bootstrap samples that do not change as they grow."""

from __future__ import annotations

import math

import numpy as np
import torch

from amenable.control.clips import Clips
from amenable.control.comparisons import Comparisons


def clips(count: int) -> Clips:
    return Clips(np.ones((count, 2, 1)), np.zeros((count, 2)), np.ones((count, 2)), np.zeros((count, 2, 3)))


def test_answers_come_are_taken_back_or_given_up() -> None:
    comparisons = Comparisons(2, 0.0, 0)
    assert list(comparisons.add(clips(2), clips(2))) == [0, 1] and list(comparisons.add(clips(1), clips(1))) == [2]
    assert comparisons.left is not None and comparisons.left.pictures.shape == (3, 2, 0)
    comparisons.answer({0: 1.0, 1: 0.5, 2: None})
    assert (comparisons.num_labels, comparisons.num_open) == (2, 0)
    comparisons.answer({0: math.nan})
    assert (comparisons.num_labels, comparisons.num_open) == (1, 1) and comparisons.labelled.tolist() == [
        False,
        True,
        False,
    ]


def test_samples_and_held_out_do_not_depend_on_what_comes_later() -> None:
    whole, grown = Comparisons(3, 0.25, 5), Comparisons(3, 0.25, 5)
    whole.add(clips(400), clips(400))
    for _ in range(4):
        grown.add(clips(100), clips(100))
    assert torch.equal(whole.weights, grown.weights) and torch.equal(whole.held_out, grown.held_out)
    assert whole.weights[:, whole.held_out].sum() == 0
    learned = whole.weights[:, ~whole.held_out]
    assert abs(float(whole.held_out.float().mean()) - 0.25) < 0.08
    assert abs(float(learned.mean()) - 1) < 0.1 and abs(float((learned == 0).float().mean()) - math.exp(-1)) < 0.05
    restored = Comparisons(3, 0.25, 5)
    restored.load_state_dict(whole.state_dict())
    assert torch.equal(restored.weights, whole.weights) and len(restored) == 400
