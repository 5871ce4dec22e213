"""Low-rank products beside frozen layers: the formula, its gradients once and twice, and the form for inference."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amenable.models.low_rank import LowRankLinear, LowRankProduct, block_diagonal
from amenable.models.quantized_linear import QuantizedLinear

ROWS, SCALES = [slice(0, 3), slice(4, 6)], [2.0, 0.5]


def operands(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Input, the input after dropout, A of ranks 2 and 1, and the two B."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 5), (4, 5), (3, 5), (3, 2), (2, 1))
    return tuple(torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes)


def base(dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(5, 6, dtype=dtype).requires_grad_(False)


def by_parts(layer, x, z, a, first, second):
    """The product by one adapter after another; row 3 has none."""
    changes = [2.0 * z @ a[:2].t() @ first.t(), torch.zeros(len(x), 1), 0.5 * z @ a[2:].t() @ second.t()]
    return layer(x) + torch.cat(changes, dim=1)


@pytest.mark.parametrize("drops", [True, False])
def test_the_product_and_its_gradients(drops):
    x, z, *matrices = operands()
    layer, above = base(), torch.randn(4, 6, dtype=torch.float64)
    y = LowRankProduct.apply(x, z if drops else None, layer, ROWS, SCALES, *matrices)
    expected = by_parts(layer, x, z if drops else x, *matrices)
    torch.testing.assert_close(y, expected)
    inputs = (x, *((z,) if drops else ()), *matrices)
    for ours, theirs in zip(torch.autograd.grad(y, inputs, above), torch.autograd.grad(expected, inputs, above)):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives():
    x, _, *matrices = operands()
    layer = base()
    assert torch.autograd.gradgradcheck(
        lambda x, *parts: LowRankProduct.apply(x, None, layer, ROWS, SCALES, *parts).sin(), (x, *matrices)
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_pass_through_quantized_weights(bits):
    x, _, *matrices = (part.detach().float().requires_grad_() for part in operands())
    layer = QuantizedLinear(base(torch.float32), bits)
    y = LowRankProduct.apply(x, None, layer, ROWS, SCALES, *matrices)
    expected = by_parts(lambda x: F.linear(x, layer.weight, layer.bias), x, x, *matrices)
    torch.testing.assert_close(y, expected)
    (ours,), (theirs,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_an_input_and_adapters_that_need_no_gradient():
    x, _, *matrices = operands()
    y = LowRankProduct.apply(x.detach(), None, base(), ROWS, SCALES, *matrices)
    y.sum().backward()
    assert x.grad is None and all(matrix.grad is not None for matrix in matrices)


def test_the_form_for_inference():
    x, _, a, first, second = (part.detach() for part in operands())
    b = block_diagonal([2.0 * first, 0.5 * second], ROWS, 6, torch.float64)
    layer = LowRankLinear(base(), a, b)
    torch.testing.assert_close(layer(x), by_parts(base(), x, x, a, first, second))
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_one_matrix_of_several():
    whole = block_diagonal([torch.ones(2, 1), torch.full((1, 2), 2.0)], [slice(0, 2), slice(3, 4)], 4, torch.float32)
    assert whole.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 2, 2]]
    alone = torch.ones(3, 2)
    assert block_diagonal([alone], [slice(0, 3)], 3, torch.float32) is alone
