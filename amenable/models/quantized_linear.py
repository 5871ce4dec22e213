"""Linear layers whose frozen weight is stored in 4 or 8 bits, and used as what these stand for (QLoRA).

    4   16 levels, dense where normal numbers are (NF4), times the largest magnitude of each block of 64 numbers
    8   whole numbers from -127 to 127, times 1/127 of the largest magnitude of each row

Dettmers et al., 2023 and 2022. Levels and blocks are bitsandbytes'; magnitudes are fp32, not quantized again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 64
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


class QuantizedLinear(nn.Module):
    """y = W x + b with a weight in 4 or 8 bits. It does not train; gradients pass through it."""

    def __init__(self, base: nn.Linear, bits: int):
        super().__init__()
        weight = base.weight.detach().float()
        self.bits, self.shape = bits, weight.shape
        packed, scales = pack4(weight) if bits == 4 else pack8(weight)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = base.bias

    @property
    def weight(self) -> Tensor:
        """The weight that is computed with [out, in], in fp32."""
        return unpack4(self.packed, self.scales, self.shape) if self.bits == 4 else self.packed * self.scales[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, [..., in] -> [..., out]."""
        dtype = product_dtype(x)
        y = Product.apply(x, self, dtype) if torch.is_grad_enabled() and x.requires_grad else product(x, self, dtype)
        return y if self.bias is None else y + self.bias.to(dtype)

    def dense(self) -> nn.Linear:
        """Return an ordinary layer of the same weight."""
        rows, columns = self.shape
        linear = nn.Linear(columns, rows, bias=False, device="meta")
        linear.weight, linear.bias = nn.Parameter(self.weight, requires_grad=False), self.bias
        return linear


class Product(torch.autograd.Function):
    """Product with a quantized weight, which is unpacked again for the gradient instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear, dtype: torch.dtype) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return product(x, layer, dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient @ ctx.layer.weight.to(gradient.dtype)).to(ctx.dtype), None, None


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of matrix products with x: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def product(x: Tensor, layer: QuantizedLinear, dtype: torch.dtype) -> Tensor:
    """Compute W x in `dtype`."""
    return F.linear(x.to(dtype), layer.weight.to(dtype))


def pack4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a matrix to NF4: two numbers a byte [n / 2] uint8, and the largest magnitude of each block."""
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).unflatten(0, (-1, BLOCK))
    scales = blocks.abs().amax(1)
    levels = NF4.to(weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(blocks / scales.clamp(min=1e-30)[:, None], middles).to(torch.uint8).flatten()
    return codes[::2] * 16 + codes[1::2], scales


def unpack4(packed: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """Return the matrix that NF4 codes stand for, in fp32."""
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().int()
    numbers = NF4.to(packed.device)[codes].unflatten(0, (-1, BLOCK)) * scales[:, None]
    return numbers.flatten()[: shape.numel()].view(shape)


def pack8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a matrix to whole numbers [out, in] int8, with the scale of each row [out]."""
    scales = weight.abs().amax(1).clamp(min=1e-30) / 127
    return (weight / scales[:, None]).round().to(torch.int8), scales
