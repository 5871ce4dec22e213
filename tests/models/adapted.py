"""Small decoders with adapters, for the tests of adapters."""

from dataclasses import replace

import torch

from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters

GPT = DecoderConfig(61, context_length=32, num_layers=2, hidden_size=32, num_heads=4)
LLAMA = replace(GPT, positions="rope", norm="rms", activation="swiglu", bias=False, norm_eps=1e-6, num_kv_heads=2)
IDS, LAYOUT = torch.arange(1, 13), Layout.of([5, 7])
OPTIONS = LoraOptions(rank=4, alpha=8.0)


def trained(config: DecoderConfig = LLAMA, options: LoraOptions = OPTIONS) -> Decoder:
    """A decoder whose adapters are away from their first values."""
    decoder = Decoder(config).eval()
    add_adapters(decoder, options, seed=1, base="somewhere/base")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapters(decoder).values():
            for b in layer.b:
                b.copy_(0.3 * torch.randn(b.shape, generator=generator))
    return decoder


@torch.inference_mode()
def logits(decoder: Decoder) -> torch.Tensor:
    return decoder.logits(decoder(IDS, LAYOUT))
