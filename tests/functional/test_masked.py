import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.masked import (
    masked_mean,
    masked_sum,
    masked_var,
    scale,
    segment_means,
    segment_sums,
    standardize,
    zero_outside,
)

BAD = (math.nan, math.inf, -math.inf)


@st.composite
def ragged(draw):
    """x [B, T] and a mask in which something counts."""
    rows, steps = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = rows * steps
    x = draw(st.lists(st.floats(-100, 100, width=32), min_size=size, max_size=size))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    return torch.tensor(x).double().view(rows, steps), torch.tensor(mask).view(rows, steps)


@given(ragged())
def test_agrees_with_indexing(data):
    x, mask = data
    stored = x[mask]
    assert torch.allclose(masked_sum(x, mask), stored.sum())
    assert torch.allclose(masked_mean(x, mask), stored.mean())
    assert torch.allclose(masked_var(x, mask), stored.var(unbiased=False), atol=1e-9)


@given(ragged(), st.sampled_from(BAD))
def test_what_is_masked_reaches_no_value_and_no_gradient(data, bad):
    x, mask = data
    spoiled = torch.where(mask, x, bad)
    weight = torch.linspace(1, 2, x.numel(), dtype=x.dtype).view_as(x)
    for function in (masked_sum, masked_mean, masked_var, standardize, scale, zero_outside):
        clean, dirty = (y.clone().requires_grad_() for y in (x, spoiled))
        for leaf in (clean, dirty):
            (function(leaf, mask) * weight).sum().backward()
        assert torch.equal(function(clean, mask), function(dirty, mask))
        assert torch.allclose(clean.grad, dirty.grad)
        assert (dirty.grad[~mask] == 0).all()


def test_a_row_in_which_nothing_counts_carries_no_weight():
    x = torch.tensor([[1.0, 3.0], [50.0, 60.0]])
    mask = torch.tensor([[True, True], [False, False]])
    assert masked_mean(x, mask) == 2.0
    assert masked_mean(x, mask, dim=1).tolist() == [2.0, 0.0]
    assert masked_sum(x, mask, dim=1).tolist() == [4.0, 0.0]


@pytest.mark.parametrize("function", [masked_mean, masked_var, standardize, scale])
def test_a_batch_in_which_nothing_counts_is_refused(function):
    with pytest.raises(ValueError, match="empty"):
        function(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool))


def test_mean_over_response_tokens_only():
    losses = -torch.tensor([0.01, 0.05, 0.02, 0.30, 0.90]).log()
    response = torch.tensor([False, False, False, True, True])
    assert masked_mean(losses, response).item() == pytest.approx(0.6547, abs=1e-4)
    assert losses.mean().item() == pytest.approx(2.5645, abs=1e-4)


def test_mean_over_tokens_not_over_rows():
    losses = torch.ones(2, 10)
    losses[0, 4] = losses[1, 9] = 10.0
    mask = torch.arange(10) < torch.tensor([[5], [10]])
    assert masked_mean(losses, mask).item() == pytest.approx(33 / 15)
    assert masked_mean(losses, mask, dim=1).mean().item() == pytest.approx(2.35)


def test_scale_by_hand():
    x = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
    # population variance of nine steps of 0.1 is 0.01 * 60 / 9, its root 0.258199
    expected = 1.6 + (x - 1.6) / 0.2581989
    everywhere = torch.ones_like(x, dtype=torch.bool)
    assert torch.allclose(scale(x, everywhere), expected, atol=1e-4)
    assert scale(x, everywhere)[0].tolist() == pytest.approx([0.0508, 0.4381, 0.8254], abs=1e-4)


def test_standardize_by_hand():
    x = torch.tensor([[0.3921, 0.518, 0.44, 0.2, math.nan]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert masked_var(x, mask).item() == pytest.approx(0.013740977, rel=1e-5)
    expected = [0.039029, 1.113059, 0.447655, -1.599743, 0.0]
    assert standardize(x, mask)[0].tolist() == pytest.approx(expected, abs=1e-5)


@given(ragged())
def test_standardize_has_mean_zero_and_scale_keeps_the_mean(data):
    x, mask = data
    assert masked_mean(standardize(x, mask), mask).item() == pytest.approx(0, abs=1e-6)
    assert masked_mean(scale(x, mask), mask).item() == pytest.approx(masked_mean(x, mask).item(), abs=1e-6)
    if masked_var(x, mask) > 1e-2:
        assert masked_var(standardize(x, mask), mask).item() == pytest.approx(1, abs=1e-5)


def test_segments_by_hand():
    x, segments = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1, 1, 0])
    assert segment_sums(x, segments, 2).tolist() == [5.0, 3.0]
    assert segment_means(x, segments, 2).tolist() == [5.0, 1.5]


@given(ragged())
def test_without_a_mask_everything_counts(case):
    x, _ = case
    every = torch.ones_like(x, dtype=torch.bool)
    for function in (zero_outside, masked_sum, masked_mean, masked_var, standardize, scale):
        gradients = []
        for mask in (every, None):
            leaf = x.clone().requires_grad_()
            value = function(leaf, mask)
            value.square().sum().backward()
            gradients.append((value.detach(), leaf.grad))
        for masked, plain in zip(*gradients):
            assert torch.allclose(masked, plain, rtol=1e-9, atol=1e-9), function.__name__
    for dim in (0, 1):
        assert torch.allclose(masked_mean(x, every, dim), masked_mean(x, None, dim))
