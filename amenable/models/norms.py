"""Norms of a decoder: RMS norm with a hand-written gradient (half the time of autograd's on CPU, and less memory), the
norm that a configuration names, and norms over heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from amenable.models.config import DecoderConfig


class RmsNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * gain, over the last dimension (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.group: ProcessGroup | None = None
        """processes that each have some of the heads that are normed; None has all"""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
        weight = self.weight if self.group is None else SummedGradient.apply(self.weight, self.group)
        return RmsNormFunction.apply(x, weight, self.eps)


class SummedGradient(torch.autograd.Function):
    """A weight that several processes have, each with a part of what it is applied to: the gradient is the sum."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradient = grads[0].clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class RmsNormFunction(torch.autograd.Function):
    """With s = 1 / sqrt(mean(x^2) + eps):   dx = s w dy - x s^3 mean(w dy x),   dw = sum over rows of s x dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative
            y = F.rms_norm(x, weight.shape, weight.to(x.dtype), ctx.eps)
            needed = [i for i in (0, 1) if ctx.needs_input_grad[i]]
            gradients = torch.autograd.grad(y, [(x, weight)[i] for i in needed], grads[0], create_graph=True)
            return *(gradients[needed.index(i)] if i in needed else None for i in (0, 1)), None
        grad, width = grads[0].to(x.dtype), x.shape[-1]
        exact = torch.promote_types(x.dtype, torch.float32)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact).square_()
        s = square.div_(width).add_(ctx.eps).rsqrt_().to(x.dtype)
        product = grad * x
        mean = (product @ weight.to(x.dtype)).unsqueeze(-1).div_(width)
        weight_grad = s.flatten() @ product.reshape(-1, width) if ctx.needs_input_grad[1] else None
        x_grad = torch.mul(grad, weight.to(x.dtype)).mul_(s).addcmul_(x, mean.mul_(s * s * s), value=-1)
        return x_grad, None if weight_grad is None else weight_grad.to(weight.dtype), None


def norm(config: DecoderConfig) -> nn.Module:
    """Build the configured norm over hidden_size."""
    if config.norm == "rms":
        return RmsNorm(config.hidden_size, config.norm_eps)
    return nn.LayerNorm(config.hidden_size, config.norm_eps)


def norm_heads(heads: Tensor, norm: RmsNorm) -> Tensor:
    """Apply a norm as wide as a head, or as all heads of a token, [N, H, W] -> [N, H, W]."""
    if norm.weight.numel() == heads.shape[-1]:
        return norm(heads)
    return norm(heads.flatten(1)).view(heads.shape)
