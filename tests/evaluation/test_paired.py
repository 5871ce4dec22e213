"""Paired differences by hand."""

import pytest

from amenable.evaluation.paired import difference


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
