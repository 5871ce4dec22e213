"""Linear layers without gradients whose weight is laid out in memory as a processor's bf16 products read it.

oneDNN rearranges an ordinary weight at every product, or reads it as it is and slower. Rearranged once, a product of
one row takes about half the time and one of 32 rows five sixths; results are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """y = W x + b in bf16. `weight` is an opaque tensor; `weight.to_dense()` is the ordinary one."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(torch.bfloat16))
        self.weight = nn.Parameter(packed, requires_grad=False)
        cast = None if bias is None else bias.detach().to(torch.bfloat16)
        self.bias = None if cast is None else nn.Parameter(cast, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, [..., in] -> [..., out] in bf16."""
        return torch.ops.mkldnn._linear_pointwise(x.to(torch.bfloat16), self.weight, self.bias, "none", [], "")

    def unpacked(self) -> nn.Linear:
        """Return the layer with its weight as an ordinary tensor, in bf16."""
        weight = self.weight.to_dense()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.register_parameter("bias", self.bias)
        return linear


def can_pack(weight: Tensor, dtype: torch.dtype) -> bool:
    """Return True if products with this weight in `dtype` are oneDNN's in bf16."""
    cpu = weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return cpu and dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
