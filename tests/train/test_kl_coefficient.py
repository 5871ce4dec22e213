"""The price of a nat: fixed without a target, adapting with one, and carried by a checkpoint."""

import pytest

from amenable.train.kl_coefficient import KLCoefficient


def test_without_a_target_it_stays() -> None:
    coefficient = KLCoefficient(0.05, 0.0, 2000.0)
    coefficient.adapt(100.0, 512)
    assert coefficient.value == 0.05


@pytest.mark.parametrize(("measured", "error"), [(6.6, 0.1), (60.0, 0.2), (6.0, 0.0), (5.7, -0.05), (0.0, -0.2)])
def test_it_follows_the_target_with_a_clipped_error(measured: float, error: float) -> None:
    coefficient = KLCoefficient(0.1, 6.0, 2000.0)
    coefficient.adapt(measured, 500)
    assert coefficient.value == pytest.approx(0.1 * (1 + error * 500 / 2000))


def test_a_checkpoint_carries_it() -> None:
    coefficient = KLCoefficient(0.1, 6.0, 2000.0)
    coefficient.adapt(12.0, 500)
    again = KLCoefficient(0.1, 6.0, 2000.0)
    again.load_state_dict(coefficient.state_dict())
    assert again.value == coefficient.value != 0.1
