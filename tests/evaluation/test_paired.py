"""Paired differences by hand."""

import pytest

from amenable.evaluation.paired import difference, statistic_difference


def test_shares_have_mcnemars_test() -> None:
    first, second = [True, False, False, True, None, False] * 3, [True, True, True, False, True, None] * 3
    row = difference(first, second)
    assert row is not None and row["n"] == 12 and row["value"] == pytest.approx((6 - 3) / 12)
    assert row["p"] == pytest.approx(2 * (1 + 9 + 36 + 84) / 2**9)  # 3 to 6
    assert row["low"] < 0 < row["high"]


def test_numbers_have_their_signs_flipped() -> None:
    row = difference([0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 2.0])
    assert row is not None and row["p"] == pytest.approx(2 / 16, abs=0.02)
    assert (row["value"], row["low"], row["high"]) == (1.0, 1.0, 1.0)
    equal = difference([0.5, 0.2], [0.5, 0.2])
    assert equal is not None and (equal["value"], equal["p"]) == (0.0, 1.0)


def test_a_single_row_has_no_interval_and_no_row_no_difference() -> None:
    row = difference([True, None], [False, True])
    assert row is not None and (row["value"], row["low"], row["high"], row["p"]) == (-1.0, None, None, 1.0)
    assert difference([None, 0.5], [0.5, None]) is None


def test_calibration_is_compared_by_exchanging_models() -> None:
    right = [[0.9, float(i % 10 < 9)] for i in range(60)]
    wrong = [[0.9, float(i % 10 < 4)] for i in range(60)]
    row = statistic_difference("ece", right, wrong)
    assert row is not None and row["value"] == pytest.approx(0.5) and row["n"] == 60
    assert row["low"] < 0.5 < row["high"] and row["p"] == pytest.approx(1 / 501)
    equal = statistic_difference("ece", right, right)
    assert equal is not None and (equal["value"], equal["p"]) == (0.0, 1.0)


def test_the_area_under_the_roc_is_compared_where_it_has_a_value() -> None:
    sure = [[0.1 + 0.8 * (i % 2), float(i % 2)] for i in range(40)]
    unsure = [[0.5, float(i % 2)] for i in range(40)]
    row = statistic_difference("auroc", unsure, sure)
    assert row is not None and (row["value"], row["low"], row["high"]) == (0.5, 0.5, 0.5) and row["p"] < 0.01
    assert statistic_difference("auroc", sure, [[0.9, 1.0]] * 40) is None
