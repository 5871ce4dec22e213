"""The price of a nat: fixed without a target, adapting with one, and carried by a checkpoint."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.rl.kl_controller import AdaptiveKLController


def test_without_a_target_it_stays() -> None:
    coefficient = AdaptiveKLController(0.05, 0.0, 2000.0)
    coefficient.update(100.0, 512)
    assert coefficient.value == 0.05


@pytest.mark.parametrize(("measured", "error"), [(6.6, 0.1), (60.0, 0.2), (6.0, 0.0), (5.7, -0.05), (0.0, -0.2)])
def test_it_follows_the_target_with_a_clipped_error(measured: float, error: float) -> None:
    coefficient = AdaptiveKLController(0.1, 6.0, 2000.0)
    coefficient.update(measured, 500)
    assert coefficient.value == pytest.approx(0.1 * (1 + error * 500 / 2000))


@pytest.mark.parametrize("measured", [-1e30, 0.0, 1e30])
@pytest.mark.parametrize(("horizon", "samples"), [(2.0, 128), (600.0, 3000), (600.0, 128), (1e-6, 10**9)])
def test_it_is_above_zero_and_finite_however_long_the_kl_stays_on_one_side(
    measured: float, horizon: float, samples: int
) -> None:
    coefficient = AdaptiveKLController(0.3, 1.5, horizon)
    for _ in range(10_000):
        coefficient.update(measured, samples)
    assert 0 < coefficient.value < math.inf
    before = coefficient.value
    coefficient.update(-measured if measured else 3.0, samples)
    assert coefficient.value != before, "it comes back"


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.integers(1, 10**6)), max_size=60), st.floats(1e-3, 1e6))
def test_no_history_of_batches_makes_it_negative(history: list[tuple[float, int]], horizon: float) -> None:
    coefficient = AdaptiveKLController(0.3, 1.5, horizon)
    for measured, samples in history:
        before = coefficient.value
        coefficient.update(measured, samples)
        assert 0 < 0.8 * before <= coefficient.value <= 1.2 * before


def test_none_stays_none() -> None:
    coefficient = AdaptiveKLController(0.0, 1.5, 600.0)
    coefficient.update(100.0, 128)
    assert coefficient.value == 0.0


def test_a_checkpoint_carries_it() -> None:
    coefficient = AdaptiveKLController(0.1, 6.0, 2000.0)
    coefficient.update(12.0, 500)
    again = AdaptiveKLController(0.1, 6.0, 2000.0)
    again.load_state_dict(coefficient.state_dict())
    assert again.value == coefficient.value != 0.1
