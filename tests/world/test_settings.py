"""Rates and sizes are checked where they are said."""

from __future__ import annotations

import pytest

from amenable.errors import InputError
from amenable.world.settings import KINDS, Rates, Sizes


def test_rates_and_sizes_out_of_range_are_refused():
    with pytest.raises(InputError, match="rude"):
        Rates(rude=1.2)
    with pytest.raises(InputError, match="unstated"):
        Rates(unstated=-0.1)
    with pytest.raises(InputError, match="documents"):
        Sizes(documents=0)


def test_shares_of_kinds_sum_to_one_and_copying_tasks_are_few():
    assert sum(KINDS.values()) == pytest.approx(1)
    assert len(KINDS) >= 10
    assert KINDS["closed"] + KINDS["rewrite"] + KINDS["summary"] < 0.2
