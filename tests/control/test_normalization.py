"""Moments merge to those of all numbers; rewards are divided by the spread of the discounted return."""

import numpy as np
import pytest

from amenable.control.normalization import ObservationNormalizer, RewardScaler, RunningMoments


def test_moments_of_parts_are_those_of_the_whole() -> None:
    numbers = np.random.default_rng(0).normal(3, 2, (50, 3))
    moments = RunningMoments((3,))
    for part in (numbers[:1], numbers[1:20], numbers[20:20], numbers[20:]):
        moments.update(part)
    assert moments.mean == pytest.approx(numbers.mean(0)) and moments.var == pytest.approx(numbers.var(0))
    again = RunningMoments((3,))
    again.load_state_dict(moments.state_dict())
    assert again.count == 50 and (again.var == moments.var).all()


def test_observations_by_hand() -> None:
    normalizer = ObservationNormalizer((1,), True)
    assert normalizer.normalize(np.array([[3.0]], np.float32)).item() == pytest.approx(3), "nothing is known yet"
    normalizer.update(np.array([[1.0], [3.0]]))
    normalized = normalizer.normalize(np.array([[3.0], [2.0], [100.0]], np.float32))
    assert normalized[:, 0].tolist() == pytest.approx([1, 0, 10]) and normalized.dtype == np.float32
    image = np.full((1, 2), 7, np.uint8)
    off = ObservationNormalizer((2,), False)
    off.update(image)
    assert off.normalize(image) is image


def test_rewards_by_hand() -> None:
    """R: 1, 1.5 (then the end), 1: the variance of (1, 1.5, 1) divides."""
    scaler = RewardScaler(1, 0.5, True)
    rewards, ended = np.ones((3, 1)), np.array([[False], [True], [False]])
    scaled = scaler.scale(rewards, ended, np.ones((3, 1), bool))
    assert scaled[:, 0] == pytest.approx(np.minimum(1 / np.std([1, 1.5, 1]), 10)) and scaler.running.tolist() == [1]
    assert RewardScaler(1, 0.5, False).scale(rewards, ended, np.ones((3, 1), bool)) is rewards


def test_steps_that_were_not_are_not_counted() -> None:
    scaler, mask = RewardScaler(2, 0.9, True), np.array([[True, True], [True, False]])
    scaler.scale(np.array([[1.0, 2.0], [3.0, 99.0]]), np.array([[False, True], [True, False]]), mask)
    assert scaler.count == 3 and scaler.mean == pytest.approx((1 + 2 + 3.9) / 3) and scaler.running.tolist() == [0, 0]
