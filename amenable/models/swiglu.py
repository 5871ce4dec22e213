"""SwiGLU with a hand-written gradient, which is one tensor of gate and up."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu(x: Tensor) -> Tensor:
    """Return silu(gate) * up of x = [gate, up], [..., 2 M] -> [..., M] (Shazeer, 2020)."""
    if torch.is_grad_enabled():
        return Swiglu.apply(x)
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class Swiglu(torch.autograd.Function):
    """d gate = silu'(gate) up dy,    d up = silu(gate) dy"""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(x, activated)
        return activated * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, activated = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        if torch.is_grad_enabled():  # for a second derivative
            share = gate.sigmoid()
            return torch.cat([grads[0] * up * share * (1 + gate * (1 - share)), grads[0] * F.silu(gate)], -1)
        gradient = torch.empty_like(x)
        of_gate, of_up = gradient.chunk(2, dim=-1)
        torch.mul(grads[0], activated, out=of_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=of_gate)
        return gradient
