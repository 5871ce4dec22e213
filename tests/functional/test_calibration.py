"""Calibration error and bins worked by hand; the area under the ROC against a count of all pairs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.calibration import auroc, calibration_error, reliability
from amenable.seeds import seeded_generator

CONFIDENCE = torch.tensor([0.95, 0.92, 0.55, 0.5, 0.05, 1.0], dtype=torch.float64)
HITS = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)


def test_bins_by_hand() -> None:
    low, middle, high = reliability(CONFIDENCE, HITS)
    assert low == pytest.approx({"predicted": 0.05, "actual": 0.0, "count": 1})
    assert middle == pytest.approx({"predicted": 0.525, "actual": 1.0, "count": 2})
    assert high == pytest.approx({"predicted": 2.87 / 3, "actual": 2 / 3, "count": 3})  # 1.0 is in the last bin


def test_error_by_hand() -> None:
    value, low, high = calibration_error(CONFIDENCE, HITS, seeded_generator(0))
    assert value == pytest.approx((0.05 + 2 * 0.475 + 0.87) / 6)
    assert 0 <= low <= value <= high
    assert calibration_error(CONFIDENCE[:1], HITS[:1], seeded_generator(0)) == pytest.approx(
        (0.05, -math.inf, math.inf)
    )
    for wrong in (CONFIDENCE[:0], torch.tensor([1.2])):
        with pytest.raises(ValueError, match="probabilities"):
            calibration_error(wrong, wrong, seeded_generator(0))


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    generator = seeded_generator(1)
    p = torch.rand(4000, generator=generator, dtype=torch.float64)
    hits = (torch.rand(4000, generator=generator, dtype=torch.float64) < p).double()
    value, low, high = calibration_error(p, hits, generator)
    assert value < 0.03 and low < 0.01
    sure = 0.5 + p / 2  # true rate 2 sure - 1: too sure by 1 - sure, a quarter on average
    value, low, high = calibration_error(sure, hits, generator)
    assert low < 0.25 < high and high - low < 0.05 and value == pytest.approx(0.25, abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    right, wrong = ([score for score, hit in rows if hit == kind] for kind in (True, False))
    value = auroc(torch.tensor([float(score) for score, _ in rows]), torch.tensor([hit for _, hit in rows]))
    if not right or not wrong:
        assert math.isnan(value)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in right for b in wrong]
    assert value == pytest.approx(sum(pairs) / len(pairs))
