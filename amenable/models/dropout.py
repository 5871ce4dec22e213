"""Dropout (Srivastava et al., 2014) in a sixth of the time of torch's on CPU.

torch draws one number per element. Here one draw of 63 bits decides four elements, by 15 bits each: the rate is met to
1/32768, and the other elements are scaled by the rounded rate.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1 << 15
"""number of rates that 15 bits can express"""
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""integer dtype by element size in bytes"""


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set a fraction `rate` of x's elements to 0 and divide the others by 1 - rate; return x itself if not training.

    Random numbers come from torch's global generator.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu" or x.element_size() not in WORDS:
        return F.dropout(x, rate, True)
    dropped = round(rate * STEPS)
    return Mask.apply(x, draw_mask(x.shape, dropped), STEPS / (STEPS - dropped) if dropped < STEPS else 0.0)


class Mask(torch.autograd.Function):
    """`apply_mask`, whose gradient is `apply_mask` of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return apply_mask(x, mask, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return Mask.apply(grads[0], mask, ctx.scale), None, None


def draw_mask(shape: torch.Size, dropped: int) -> Tensor:
    """Draw an int16 mask: all bits 0 with probability `dropped` / 2^15 (drop the element), else all bits 1."""
    count = shape.numel()
    bits = torch.empty(count // 4 + 1, dtype=torch.int64).random_().view(torch.int16)[:count]
    # for 15 random bits v: the sign of (dropped - 1 - v) is that of v >= dropped
    return bits.bitwise_and_(STEPS - 1).neg_().add_(dropped - 1).bitwise_right_shift_(15).view(shape)


def apply_mask(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return (x AND mask, bitwise) * scale: a float with all bits 0 is 0."""
    word = WORDS[x.element_size()]
    return (x.contiguous().view(word) & mask.to(word)).view(x.dtype).mul_(scale)
