"""Experience by hand: a cut is followed by the value of what it cut off, an end by nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amenable.control.experience import Experience, prepare
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.control.rollout import Rollout
from amenable.functional.advantages import gae

NO = np.zeros((2, 1), bool)
ROLLOUT = Rollout(
    observations=np.array([[[1.0]], [[2.0]]], np.float32),
    actions=np.array([[0], [1]]),
    executed=np.array([[0], [1]]),
    rewards=np.ones((2, 1)),
    terminated=NO,
    truncated=NO,
    mask=~NO,
    cut_observations=np.zeros((0, 1), np.float32),
    last_observations=np.array([[3.0]], np.float32),
)
LAST = np.array([[False], [True]])


def advantages(rollout: Rollout, lam: float) -> tuple[list[float], Experience]:
    """Those of a critic whose value is the observation, gamma .9."""
    policy = Policy([1], 2, True, (4,), generator=torch.Generator().manual_seed(0))
    critic = lambda observations: observations[..., 0]  # noqa: E731
    off = ObservationNormalizer((1,), False)
    e = prepare(rollout, torch.from_numpy(rollout.rewards), policy, critic, off, 0.9)  # type: ignore[arg-type]
    return gae(e.rewards, e.values, e.discounts, lam, e.last_values)[0][0].tolist(), e


def test_by_hand() -> None:
    """delta_0 = 1 + .9 x 2 - 1 = 1.8 always; delta_1 = 1 + .9 V - 2 with V = 3 going on, 10 cut off, none at an end."""
    assert advantages(ROLLOUT, 0.5)[0] == pytest.approx([1.8 + 0.45 * 1.7, 1.7])
    cut = replace(ROLLOUT, truncated=LAST, cut_observations=np.array([[10.0]], np.float32))
    assert advantages(cut, 0.5)[0] == pytest.approx([1.8 + 0.45 * 8, 8])
    assert advantages(replace(ROLLOUT, terminated=LAST), 0.5)[0] == pytest.approx([1.8 - 0.45, -1])


def test_a_cut_in_the_middle_stops_the_trace() -> None:
    first = np.array([[True], [False]])
    cut = replace(ROLLOUT, truncated=first, cut_observations=np.array([[10.0]], np.float32))
    numbers, _ = advantages(cut, 1.0)
    assert numbers == pytest.approx([1 + 9 - 1, 1.7]), "the next episode's rewards are not this one's"


def test_values_of_cuts_go_to_their_own_copies() -> None:
    """Two copies, cut in steps 1 and 0: in the rollout's order the second copy's comes first."""
    wide = {name: np.concatenate([getattr(ROLLOUT, name)] * 2, 1) for name in ("observations", "actions", "rewards")}
    truncated = np.array([[False, True], [True, False]])
    both = replace(
        ROLLOUT,
        **wide,
        executed=wide["actions"],
        terminated=np.zeros((2, 2), bool),
        truncated=truncated,
        mask=np.ones((2, 2), bool),
        cut_observations=np.array([[20.0], [10.0]], np.float32),
        last_observations=np.array([[3.0], [3.0]], np.float32),
    )
    _, e = advantages(both, 1.0)
    assert e.rewards.tolist() == [pytest.approx([1, 1 + 9]), pytest.approx([1 + 18, 1])]


def test_steps_that_were_not_are_left_out() -> None:
    short = replace(ROLLOUT, terminated=~LAST, mask=~LAST)
    _, e = advantages(short, 1.0)
    assert len(e) == 1 and e.observations.tolist() == [[1.0]] and e.logps.shape == (1,)
    e.set_advantages(torch.tensor([[5.0, 7.0]]), torch.tensor([[6.0, 8.0]]))
    assert e.columns["advantages"].tolist() == [5] and e.batch()["returns"].tolist() == [6]
