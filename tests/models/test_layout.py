import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.models import layout
from amenable.models.layout import Layout


def test_positions_worked_by_hand():
    batch = Layout.of([2, 1, 3])
    assert batch.lengths == (2, 1, 3)
    assert batch.positions.tolist() == [0, 1, 0, 0, 1, 2]
    assert batch.rows.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.starts.tolist() == [0, 2, 3]
    assert batch.last_tokens.tolist() == [1, 2, 5]
    assert batch.offsets.tolist() == [0, 2, 3, 6]
    assert (batch.longest, batch.tokens, batch.is_even) == (3, 6, False)
    assert Layout.of([4, 4]).is_even


def test_lengths_may_be_numpy_numbers():
    assert Layout.of(list(np.array([2, 2]))).lengths == (2, 2)


@pytest.mark.parametrize("lengths", [[], [3, 0, 2]])
def test_no_rows_and_empty_rows_are_errors(lengths):
    with pytest.raises(ValueError, match=r"at least one row|row 1 is empty"):
        Layout.of(lengths)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_every_token_has_a_slot_in_its_own_row(lengths):
    batch = Layout.of(lengths)
    padding = batch.padding
    area = sum(padding.sizes)
    assert sum(rows for rows, _ in padding.buckets) == len(lengths)
    assert padding.tokens.shape == (area,)
    assert padding.slots.unique().numel() == batch.tokens
    assert torch.equal(padding.tokens[padding.slots], torch.arange(batch.tokens))
    offset = 0
    for rows, length in padding.buckets:
        members = padding.tokens[offset : offset + rows * length].view(rows, length)
        row_of = batch.rows[members]
        assert (row_of == row_of[:, :1]).all()
        for line, row in zip(members, row_of[:, 0]):
            start, end = int(batch.starts[row]), int(batch.last_tokens[row])
            assert line.tolist() == [min(start + t, end) for t in range(length)]
        offset += rows * length


@settings(max_examples=50)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=9))
def test_buckets_are_the_cheapest_of_all_ways_to_cut(lengths):
    ordered = sorted(lengths)

    def cost(buckets):
        return sum(rows * (t * t + layout.SLOT_COST * t) + layout.BUCKET_COST for rows, t in buckets)

    def cut(bounds):
        bounds = [0, *bounds, len(ordered)]
        return [(b - a, ordered[b - 1]) for a, b in itertools.pairwise(bounds)]

    ways = itertools.chain.from_iterable(itertools.combinations(range(1, len(ordered)), k) for k in range(8))
    assert cost(layout.choose_buckets(np.array(ordered))) == pytest.approx(min(cost(cut(bounds)) for bounds in ways))


def test_no_more_buckets_than_the_limit_and_little_waste():
    batch = Layout.of(range(20, 111))
    assert len(batch.padding.buckets) <= layout.MAX_BUCKETS
    assert sum(batch.padding.sizes) < 1.1 * batch.tokens


def test_shared_prefixes_worked_by_hand():
    # rows abcd, ab-xyz (two tokens shared), efg, e-h
    batch = Layout.of([4, 5, 3, 2], prefix_lengths=[0, 2, 0, 1])
    assert batch.tokens == 11 and batch.lengths == (4, 5, 3, 2) and not batch.is_even
    assert batch.rows.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert batch.positions.tolist() == [0, 1, 2, 3, 2, 3, 4, 0, 1, 2, 1]
    assert batch.starts.tolist() == [0, 4, 7, 10] and batch.last_tokens.tolist() == [3, 6, 9, 10]
    expanded = batch.expanded
    assert expanded.tokens.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 8, 9, 7, 10]
    assert expanded.slots.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 13]
    assert expanded.extra_slots is not None and expanded.extra_slots.tolist() == [4, 5, 12]
    assert batch.offsets.tolist() == [0, 4, 9, 12, 14]
    plain = Layout.of([3, 3], prefix_lengths=[0, 0])
    assert plain.padding.extra_slots is None and plain.prefix_lengths == ()


@pytest.mark.parametrize("prefix_lengths", [[1, 0], [0, 3], [0, -1], [0], [0, 5]])
def test_impossible_prefixes_are_errors(prefix_lengths):
    with pytest.raises(ValueError, match=r"cannot share|prefix lengths for"):
        Layout.of([4, 3], prefix_lengths=prefix_lengths)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=30), st.sampled_from([0, 3]))
def test_every_slot_holds_its_token(rows, virtual_tokens):
    """Each padded row is its shared prefix and its own tokens, and every slot of a token is listed."""
    lengths, prefix_lengths, leader = [], [], 0
    for row, (own, wanted) in enumerate(rows):
        prefix = min(wanted, leader) if row else 0
        leader = leader if prefix else own
        lengths.append(prefix + own)
        prefix_lengths.append(prefix)
    batch = Layout.of(lengths, prefix_lengths=prefix_lengths).after(virtual_tokens)
    lengths = [length + virtual_tokens for length in lengths]
    assert batch.lengths == tuple(lengths)
    for padding in (batch.padding, batch.expanded):
        assert torch.equal(padding.tokens[padding.slots], torch.arange(batch.tokens))
        offset = 0
        slots = torch.cat([padding.slots, padding.slots[:0] if padding.extra_slots is None else padding.extra_slots])
        assert slots.unique().numel() == slots.numel() == sum(lengths), "a slot for each token of each row"
        for count, length in padding.buckets:
            for line in padding.tokens[offset : offset + count * length].view(count, length):
                own = batch.rows[line[-1]]
                assert batch.positions[line].tolist() == [min(t, lengths[own] - 1) for t in range(length)]
            offset += count * length
