"""SwiGLU: the formula, and its gradients once and twice."""

import torch
import torch.nn.functional as F

from amenable.models.swiglu import swiglu


def plain(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def test_values_and_gradients_equal_those_of_torch():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        above = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
        assert torch.equal(swiglu(x), plain(x))
        (ours,), (theirs,) = torch.autograd.grad(swiglu(x), x, above), torch.autograd.grad(plain(x), x, above)
        assert torch.equal(ours, theirs)
        with torch.no_grad():
            assert torch.equal(swiglu(x), plain(x))


def test_second_derivatives():
    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradgradcheck(swiglu, (x,))
