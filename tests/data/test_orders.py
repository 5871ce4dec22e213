"""Orders: every row once an epoch, a step without the steps before it, budgets of tokens."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import permutation, shuffled
from amenable.data.feistel import Computed
from amenable.data.mixture import MixtureOrder
from amenable.data.orders import Draws, EpochBatches, EpochOrder, TokenBatches, batch_starts

LENGTHS = st.lists(st.integers(1, 50), max_size=60)
SEEDS = st.integers(0, 2**40)
FEW = settings(max_examples=100, deadline=None)


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@FEW
@given(n=st.integers(1, 100), size=st.integers(1, 20), seed=SEEDS)
def test_an_epoch_covers_each_row_once_in_full_batches(n, size, seed):
    steps = EpochBatches(n, size, 5, seed)
    of_epoch = steps[3 * steps.per_epoch : 4 * steps.per_epoch]
    assert flat(of_epoch) == shuffled(n, seed, 3)
    assert [len(batch) for batch in of_epoch] == [size] * (n // size) + [n % size] * (n % size > 0)
    assert len(steps) == 5 * len(of_epoch)


def test_steps_in_any_order_are_the_same_and_an_epoch_is_shuffled_once(monkeypatch):
    drawn = []
    permute = lambda n, seed, epoch: drawn.append(epoch) or permutation(n, seed, epoch)  # noqa: E731
    monkeypatch.setattr("amenable.data.orders.permutation", permute)
    steps = EpochBatches(10, 3, 2, 7)
    forward = list(steps)
    assert drawn == [0, 1] and len(forward) == 8
    assert [steps[i] for i in reversed(range(8))] == forward[::-1]
    with pytest.raises(IndexError):
        steps[8]


@FEW
@given(n=st.integers(1, 9), size=st.integers(1, 7), seed=SEEDS)
def test_steps_of_an_endless_order_have_every_row_once_an_epoch(n, size, seed):
    order = Draws(EpochOrder(n, seed))
    steps = [order.step(step, size) for step in range(1, n + 1)]
    assert {len(step) for step in steps} == {size}
    # n steps of `size` rows are `size` whole epochs
    assert flat(steps) == flat([shuffled(n, seed, epoch) for epoch in range(size)])
    assert Draws(EpochOrder(n, seed)).step(n, size) == steps[-1], "a step can be had without the steps before it"


def test_an_endless_order_is_shuffled_once_an_epoch(monkeypatch):
    drawn = []
    permute = lambda n, seed, epoch: drawn.append(epoch) or permutation(n, seed, epoch)  # noqa: E731
    monkeypatch.setattr("amenable.data.orders.permutation", permute)
    order = Draws(EpochOrder(10, 7))
    for step in range(1, 8):
        order.step(step, 4)
    assert drawn == [0, 1, 2]


@FEW
@given(lengths=LENGTHS, budget=st.integers(1, 120), seed=SEEDS)
def test_batches_meet_the_token_budget_and_have_each_row_once(lengths, budget, seed):
    in_order = one_epoch(lengths, budget, seed)
    assert flat(in_order) == shuffled(len(lengths), seed, 0)
    for batch in in_order:
        assert batch and (sum(lengths[row] for row in batch) <= budget or len(batch) == 1)
    for first, second in pairwise(in_order):
        assert sum(lengths[row] for row in first) + lengths[second[0]] > budget, "as full as the order allows"


def one_epoch(lengths: list[int], budget: int, seed: int) -> list[list[int]]:
    order = EpochOrder(len(lengths), seed)
    steps = TokenBatches(lengths, budget, 10**6, order)
    steps.load(0)
    return steps[: steps.first_steps[1]]


@FEW
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), budget=st.integers(1, 120), seed=SEEDS)
def test_batches_of_tokens_in_any_order_are_the_same(lengths, budget, seed):
    order = EpochOrder(len(lengths), seed)
    steps = list(TokenBatches(lengths, budget, 90, order))
    assert [TokenBatches(lengths, budget, 90, order)[i] for i in (89, 3, 47)] == [steps[i] for i in (89, 3, 47)]
    lazy = TokenBatches(lengths, budget, 90, order)
    assert [lazy[i] for i in reversed(range(90))] == steps[::-1]
    drawn = flat(steps)
    for epoch in range(len(drawn) // len(lengths)):
        assert drawn[epoch * len(lengths) :][: len(lengths)] == shuffled(len(lengths), seed, epoch)
    sizes = [sum(lengths[row] for row in step) for step in one_epoch(lengths, budget, seed)][:90]
    assert [sizes[i] for i in lazy.largest(3)] == sorted(sizes, reverse=True)[:3]


@FEW
@given(LENGTHS.filter(len), st.integers(1, 120), SEEDS, st.integers(1, 9))
def test_the_size_of_blocks_changes_no_step(lengths, budget, seed, block):
    whole, parts = (TokenBatches(lengths, budget, 90, EpochOrder(len(lengths), seed)) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amenable.data.orders.BLOCK", block)
        in_parts, largest = list(parts), parts.largest(5)
    assert in_parts == list(whole) and largest == whole.largest(5)


def test_batches_by_hand():
    assert batch_starts(np.array([3, 3, 3, 9, 1]), np.arange(5), 6).tolist() == [0, 2, 3, 4, 5]
    assert batch_starts(np.array([3, 1]), np.array([1, 0]), 6).tolist() == [0, 2]
    with pytest.raises(ValueError, match="of 0 rows"):
        EpochBatches(0, 1, 1, 0)
    with pytest.raises(ValueError, match="a budget of 0"):
        batch_starts(np.array([1]), np.arange(1), 0)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_steps_of_most_tokens(size: int) -> None:
    lengths = np.random.default_rng(size).integers(1, 50, 20)
    steps = EpochBatches(20, size, 2, 0)
    sizes = [int(lengths[step].sum()) for step in steps[: steps.per_epoch]]
    chosen = steps.largest(3, lengths)
    assert chosen == sorted(chosen) and sorted(sizes)[-3:] == sorted(sizes[i] for i in chosen)
    assert steps.largest(100, lengths) == [*range(steps.per_epoch)]


@pytest.mark.parametrize("shares", [None, [3.0, 1.0]])
def test_a_large_epoch_is_computed_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch, shares: list[float] | None
) -> None:
    monkeypatch.setattr("amenable.data.orders.MAX_STORED", 50)
    monkeypatch.setattr("amenable.data.mixture.MAX_STORED", 50)
    monkeypatch.setattr("amenable.data.orders.BLOCK", 16)
    order = EpochOrder(90, 4) if shares is None else MixtureOrder([60, 30], shares, 4)
    epoch = order.indices(1)
    assert isinstance(epoch, Computed) and len(epoch) == 90
    if shares is None:
        assert sorted(epoch[:].tolist()) == list(range(90)) != epoch[:].tolist()
    else:
        assert 65 < (epoch[:] < 60).sum() < 70, "of 90 draws three in four are from the first source"
        rows = [row for row in Draws(order).range(0, 160) if row < 60]
        assert sorted(rows[:60]) == list(range(60)), "a source has every row once before it has one twice"
    lengths = np.arange(1, 91)
    for steps in (EpochBatches(90, 7, 3, 4, order), TokenBatches(lengths, 100, 120, order)):
        every = list(steps)
        assert [steps[i] for i in reversed(range(len(steps)))] == every[::-1], "a step is a function of its number"
        sizes = [lengths[step].sum() for step in every[: len(steps) // 3]]
        largest = steps.largest(1, lengths) if isinstance(steps, EpochBatches) else steps.largest(1)
        assert sizes[largest[0]] == max(sizes)
    assert all(len(step) == 1 or lengths[step].sum() <= 100 for step in every)
