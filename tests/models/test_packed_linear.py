"""Linear layers laid out for a processor's bf16 products."""

import pytest
import torch
from torch import nn

from amenable.models.packed_linear import PackedLinear, can_pack

packs = pytest.mark.skipif(not can_pack(torch.empty(1), torch.bfloat16), reason="this processor has no bf16 products")


@packs
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_it_was_made_from(bias):
    linear = nn.Linear(48, 20, bias=bias).to(torch.bfloat16)
    packed = PackedLinear(linear.weight, linear.bias)
    assert torch.equal(packed.weight.to_dense(), linear.weight) and packed.weight.nbytes == linear.weight.nbytes
    with torch.no_grad():
        for rows in (1, 3, 40):
            x = torch.randn(rows, 48)
            torch.testing.assert_close(packed(x), linear(x.to(torch.bfloat16)), rtol=0.01, atol=0.01)


def test_only_bf16_weights_on_a_processor_are_packed():
    assert not can_pack(torch.empty(1), torch.float32)
    assert not can_pack(torch.empty(1, device="meta"), torch.bfloat16)
