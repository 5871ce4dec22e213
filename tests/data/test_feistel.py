"""Permutations by index: every number once, the same in any slices, different by seed and epoch, without patterns."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data import feistel as module
from amenable.data.feistel import Computed, feistel

SEEDS = st.integers(0, 2**40)
FEW = settings(max_examples=30, deadline=None)


@FEW
@given(n=st.integers(1, 700), seed=SEEDS, epoch=st.integers(0, 9))
def test_every_number_is_there_once(n: int, seed: int, epoch: int) -> None:
    numbers = feistel(n, seed, epoch)[:]
    assert sorted(numbers.tolist()) == list(range(n)) and numbers.dtype == np.int32


@FEW
@given(n=st.integers(1, 300), seed=SEEDS, data=st.data())
def test_slices_in_any_order_are_those_of_the_whole(n: int, seed: int, data: st.DataObject) -> None:
    whole, sliced = feistel(n, seed, 0)[:].tolist(), feistel(n, seed, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AHEAD", 7)
        for _ in range(8):
            part = slice(*(data.draw(st.integers(-n - 2, n + 2)) for _ in range(2)))
            assert sliced[part].tolist() == whole[part]
    assert len(sliced) == n and sliced[::3].tolist() == whole[::3]


def test_more_numbers_than_32_bits_hold() -> None:
    numbers = feistel(2**40 + 7, 0, 0)
    first = numbers[2**39 : 2**39 + 1000]
    assert first.dtype == np.int64 and len(set(first.tolist())) == 1000
    assert first.min() >= 0 and 2**38 < first.max() < 2**40 + 7
    with pytest.raises(ValueError, match="a permutation of 0 numbers"):
        feistel(0, 0, 0)


def test_seed_and_epoch_decide_it() -> None:
    orders = [feistel(1000, seed, epoch)[:].tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert feistel(1000, 1, 0)[:].tolist() == orders[2]
    agreeing = [sum(a == b for a, b in zip(orders[0], other)) for other in orders[1:]]
    assert max(agreeing) < 10, "independent permutations agree at one position on average"


def test_all_orders_of_four_come_about_as_often() -> None:
    counts = Counter(tuple(feistel(4, seed, 0)[:].tolist()) for seed in range(2400))
    assert len(counts) == 24 and min(counts.values()) > 60 and max(counts.values()) < 145


def test_neighbours_are_not_neighbours_after_it() -> None:
    n = 200_000
    numbers = feistel(n, 3, 0)[:].astype(np.int64)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(np.arange(n), numbers)[0, 1]) < 0.01
    counts = np.bincount(numbers[: n // 4] * 64 // n, minlength=64)
    squares = float(((counts - n / 256) ** 2 / (n / 256)).sum())
    assert 20 < squares < 100, "63 degrees of freedom, and draws without putting back"


def test_positions_ahead_are_computed_at_once() -> None:
    calls = list[tuple[int, int]]()
    numbers = Computed(10_000, lambda start, end: calls.append((start, end)) or np.arange(start, end))
    rows = [numbers[start : start + 16].tolist() for start in range(0, 8192, 16)]
    assert [row for part in rows for row in part] == list(range(8192)) and calls == [(0, 4096), (4096, 8192)]
