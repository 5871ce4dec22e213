"""Dropout: its rate, its scale, its gradient, and where it does nothing."""

import pytest
import torch

from amenable.models.dropout import STEPS, dropout


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_fraction_is_dropped_and_the_rest_scaled(dtype, rate):
    torch.manual_seed(0)
    x = torch.ones(301, 501, dtype=dtype)
    out = dropout(x, rate, training=True)
    share = 1 - round(rate * STEPS) / STEPS
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / share, dtype=dtype).item()}
    deviation = (rate * (1 - rate) / x.numel()) ** 0.5
    assert (out == 0).double().mean().item() == pytest.approx(rate, abs=5 * deviation + 1 / STEPS)


def test_neighbours_are_dropped_independently():
    """Four elements share a draw: pairs at distances up to five are dropped together as often as by chance."""
    torch.manual_seed(1)
    gone = (dropout(torch.ones(400_000), 0.3, training=True) == 0).double() - 0.3
    for distance in range(1, 6):
        correlation = (gone[:-distance] * gone[distance:]).mean() / 0.21
        assert abs(correlation) < 5 / 400_000**0.5


@pytest.mark.parametrize("offset", range(4))
def test_each_element_of_a_draw_has_the_rate(offset):
    torch.manual_seed(2)
    gone = dropout(torch.ones(400_000), 0.1, training=True)[offset::4] == 0
    assert gone.double().mean().item() == pytest.approx(0.1, abs=5 * (0.09 / 100_000) ** 0.5)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (0, 4)])
def test_every_shape(shape):
    assert dropout(torch.randn(shape), 0.5, training=True).shape == shape


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(3)
    x = torch.randn(50, 8, requires_grad=True)
    out = dropout(x, 0.25, training=True)
    out.sum().backward()
    assert torch.equal(x.grad, (out != 0).float() * (4 / 3))
    torch.testing.assert_close(out, x * x.grad)


def test_a_gradient_has_a_gradient():
    torch.manual_seed(6)
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.5, training=True)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert torch.equal(second, 2 * 2.0**2 * (out != 0))


def test_an_input_that_is_not_contiguous():
    torch.manual_seed(4)
    x = torch.randn(6, 5).t()
    out = dropout(x, 0.5, training=True)
    torch.testing.assert_close(out, torch.where(out == 0, 0.0, 2 * x))


def test_nan_is_dropped_too_and_the_mean_stays():
    torch.manual_seed(5)
    out = dropout(torch.full((1000,), float("nan")), 0.5, training=True)
    assert 400 < out.isnan().sum() < 600 and (out[~out.isnan()] == 0).all()
    assert dropout(torch.ones(10**6), 0.1, training=True).mean().item() == pytest.approx(1, abs=2e-3)


def test_the_seed_decides():
    x = torch.ones(1000)
    outs = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        outs.append(dropout(x, 0.5, training=True))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


def test_no_dropout_outside_training_or_at_rate_zero():
    x = torch.randn(4)
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0, training=True) is x


def test_rate_1_drops_all():
    assert not dropout(torch.ones(100), 1.0, training=True).any()
