"""Clips are consecutive steps of one episode, over the seam of two rollouts too."""

from __future__ import annotations

import numpy as np

from amenable.control.clips import ClipCutter, Clips, clips_of, join
from amenable.control.rollout import Rollout


def rollout(first: int, steps: int, ends: dict[int, int], active: np.ndarray | None = None) -> Rollout:
    """Two copies whose observation is the step's number, copy 1 from 1000 on; ends: {step: copy}, by the time limit."""
    numbers = np.arange(first, first + steps, dtype=np.float32)
    observations = np.stack([numbers, numbers + 1000], axis=1)[..., None]
    truncated = np.zeros((steps, 2), bool)
    for step, copy in ends.items():
        truncated[step - first, copy] = True
    mask = np.ones((steps, 2), bool) if active is None else active
    none, actions = np.zeros((steps, 2), bool), np.zeros((steps, 2), np.int64)
    rewards = observations[..., 0].astype(float)
    cut, last = observations[:0, 0], observations[-1]
    return Rollout(observations, actions, actions, rewards, none, truncated, mask, cut, last)


def no_pictures(steps: Rollout) -> np.ndarray:
    return np.zeros((*steps.rewards.shape, 0), np.float32)


def test_clips_go_on_in_the_next_rollout_and_never_over_an_end() -> None:
    cutter = ClipCutter(2, 4, 8, 0)
    parts = [rollout(0, 6, {4: 1}), rollout(6, 6, {7: 0})]
    first, second = (cutter.add(part, no_pictures(part)) for part in parts)
    # copy 0: 0-3, 4-7 over the seam, ends at 7, 8-11; copy 1: 0-3, ends at 4, then 5-8
    assert first.rewards.tolist() == [[0, 1, 2, 3], [1000, 1001, 1002, 1003]]
    assert second.rewards.tolist() == [[4, 5, 6, 7], [1005, 1006, 1007, 1008], [8, 9, 10, 11]]
    assert second.returns.tolist() == [22, 4026, 38] and second.observations.shape == (3, 4, 1)


def test_a_cutter_that_is_restored_goes_on_with_the_same_clips() -> None:
    parts = [rollout(0, 7, {3: 0}), rollout(7, 9, {9: 0, 12: 1})]
    cutter = ClipCutter(2, 5, 13, 3)
    cutter.add(parts[0], no_pictures(parts[0]))
    other = ClipCutter(2, 5, 13, 3)
    other.load_state_dict(cutter.state_dict())
    after = [each.add(parts[1], no_pictures(parts[1])) for each in (cutter, other)]
    assert len(after[0]) > 0 and np.array_equal(after[0].observations, after[1].observations)


def test_every_step_of_an_episode_is_in_clips() -> None:
    """With clips of 4 in episodes of 6, a clip begins with step 0, 1 or 2."""
    cutter, firsts = ClipCutter(2, 4, 6, 1), set()
    for episode in range(20):
        steps = rollout(0, 6, {5: 0})
        steps.truncated[5] = True
        firsts |= set((cutter.add(steps, no_pictures(steps)).rewards[:, 0] % 1000).tolist())
        assert episode < 19 or firsts == {0, 1, 2}


def test_steps_that_there_were_not_are_in_no_clip() -> None:
    active = np.ones((8, 2), bool)
    active[3:, 1] = False
    steps = rollout(0, 8, {2: 1}, active)
    assert ClipCutter(2, 4, 4, 0).add(steps, no_pictures(steps)).rewards.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_rows_joined_and_restored() -> None:
    clips = Clips(np.arange(6.0).reshape(3, 2, 1), np.zeros((3, 2)), np.ones((3, 2)), np.ones((3, 2, 5)))
    both = join(None, clips, clips[[2, 0]])
    assert both.observations[:, 0, 0].tolist() == [0, 2, 4, 4, 0]
    assert clips_of(both.state_dict()).observations.tolist() == both.observations.tolist()
    assert both.without_pictures().pictures.shape == (5, 2, 0)
