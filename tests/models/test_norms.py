import pytest
import torch

from amenable.models.norms import RmsNorm, RmsNormFunction


def test_value_worked_by_hand():
    norm = RmsNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0]))
    # mean of squares of (3, 4) is 12.5
    assert norm(torch.tensor([[3.0, 4.0]])).tolist() == [pytest.approx([3 / 12.5**0.5, 8 / 12.5**0.5])]


@pytest.mark.parametrize("shape", [(5, 8), (4, 3, 8)])
def test_gradient_is_the_slope(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: RmsNormFunction.apply(x, w, 1e-5), (x, weight))


@pytest.mark.parametrize("frozen", ["", "x", "weight"])
def test_second_gradient_is_the_slope_of_the_first(frozen):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=frozen != "x")
    weight = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=frozen != "weight")
    assert torch.autograd.gradgradcheck(lambda x, w: RmsNormFunction.apply(x, w, 1e-5), (x, weight))


def test_gradients_equal_those_of_torch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 3, 8, generator=generator, requires_grad=True)
    weight = torch.randn(8, generator=generator, requires_grad=True)
    above = torch.randn(6, 3, 8, generator=generator)
    ours = torch.autograd.grad(RmsNormFunction.apply(x, weight, 1e-5), (x, weight), above)
    theirs = torch.autograd.grad(torch.nn.functional.rms_norm(x, (8,), weight, 1e-5), (x, weight), above)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_half_precision_input_keeps_its_type():
    norm = RmsNorm(8, 1e-6)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(2)).bfloat16().requires_grad_()
    y = norm(x)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16
    assert norm.weight.grad is not None and norm.weight.grad.dtype == torch.float32
