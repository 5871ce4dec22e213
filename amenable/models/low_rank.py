"""Frozen linear layers with a low-rank product beside them, y = W x + B A x, in three matrix products.

B holds the matrices of several published layers, each in its own rows and columns, and zeros elsewhere. The gradient is
written by hand: nothing is computed for W, and only x and A x are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amenable.models.packed_linear import PackedLinear
from amenable.models.quantized_linear import QuantizedLinear

FrozenLinear = nn.Linear | PackedLinear | QuantizedLinear


@runtime_checkable
class HasInferenceLayer(Protocol):
    """Layer that has a faster form without gradients."""

    def inference_layer(self, dtype: torch.dtype) -> nn.Module | None:
        """Return the layer for products in `dtype` without gradients; None where it has no such form."""
        ...


class LowRankLinear(nn.Module):
    """y = W x + B A x without gradients, A [r, in] and B [out, r] in the dtype of the products. W is shared."""

    def __init__(self, base: FrozenLinear, a: Tensor, b: Tensor):
        super().__init__()
        self.base = base
        self.a, self.b = nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, [N, in] -> [N, out]."""
        x = x.to(self.a.dtype)
        return self.base(x).addmm_(F.linear(x, self.a), self.b.t())


def block_diagonal(matrices: Sequence[Tensor], rows: Sequence[slice], size: int, dtype: torch.dtype) -> Tensor:
    """Return one matrix [size, sum r] of matrices [rows, r], each in its rows and in columns of its own."""
    if len(matrices) == 1 and len(matrices[0]) == size:
        return matrices[0].to(dtype)
    whole = torch.zeros(size, sum(matrix.shape[1] for matrix in matrices), dtype=dtype, device=matrices[0].device)
    column = 0
    for matrix, part in zip(matrices, rows):
        whole[part, column : column + matrix.shape[1]] = matrix
        column += matrix.shape[1]
    return whole


class LowRankProduct(torch.autograd.Function):
    """y = W x + sum_i s_i B_i A_i z, x and z [N, in], A [sum r_i, in], B_i [rows_i, r_i]; W is `base`, which is frozen.

    dx = W^T dy      dz = sum_i s_i A_i^T B_i^T dy      dA_i = s_i B_i^T dy z^T      dB_i = s_i dy_i (A_i z)^T

    z is `dropped`, x after dropout, or x itself where that is None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        base: FrozenLinear,
        rows: Sequence[slice],
        scales: Sequence[float],
        a: Tensor,
        *matrices: Tensor,
    ) -> Tensor:
        y = base(x)
        b = block_diagonal(scaled(matrices, scales), rows, y.shape[1], x.dtype)
        z = x if dropped is None else dropped
        low = F.linear(z, a.to(z.dtype))
        ctx.save_for_backward(z, low, b, a, *matrices)
        ctx.base, ctx.rows, ctx.scales, ctx.drops = base, rows, scales, dropped is not None
        return y.addmm_(low, b.t())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        z, low, b, a, *matrices = ctx.saved_tensors
        grad, thin = grads[0], a.to(z.dtype)
        if torch.is_grad_enabled():  # for a second derivative
            low, b = F.linear(z, thin), block_diagonal(scaled(matrices, ctx.scales), ctx.rows, len(b), z.dtype)
        grad_low = grad @ b
        grad_x = grad_z = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ ctx.base.weight.to(grad.dtype)
        if ctx.drops:
            grad_z = grad_low @ thin
        elif grad_x is not None:
            grad_x = grad_x.addmm_(grad_low, thin)
        parts = low.split([matrix.shape[1] for matrix in matrices], dim=1)
        products = scaled([grad[:, rows].t() @ part for rows, part in zip(ctx.rows, parts)], ctx.scales)
        gradients = [product.to(matrix.dtype) for product, matrix in zip(products, matrices)]
        return grad_x, grad_z, None, None, None, (grad_low.t() @ z).to(a.dtype), *gradients


def scaled(matrices: Sequence[Tensor], scales: Sequence[float]) -> list[Tensor]:
    """Return each matrix times its scale."""
    return [matrix if scale == 1 else scale * matrix for matrix, scale in zip(matrices, scales)]
