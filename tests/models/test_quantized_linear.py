"""Weights in 4 and 8 bits: what they stand for, by hand and by bitsandbytes; products, gradients, adapters on them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.adapter_files import save_adapters
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, adapters, add_adapters, merge_adapters, without_adapters
from amenable.models.quantized_linear import NF4, QuantizedLinear
from tests.models.adapted import GPT, IDS, LLAMA, OPTIONS, logits, trained


def linear(rows: int, columns: int, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)))
    return layer


def test_levels_times_a_blocks_largest_magnitude_are_exact() -> None:
    layer = linear(2, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([NF4.repeat(4) * 0.3, NF4.flip(0).repeat(4) * 7.0]))
    quantized = QuantizedLinear(layer, 4)
    torch.testing.assert_close(quantized.weight, layer.weight.detach(), rtol=1e-6, atol=0)
    assert quantized.packed.numel() == 64 and quantized.packed.dtype == torch.uint8
    with torch.no_grad():
        layer.weight.copy_(torch.arange(-64, 64).view(2, 64).float())
    by_hand = torch.round(layer.weight / torch.tensor([[64.0], [63.0]]) * 127) * torch.tensor([[64.0], [63.0]]) / 127
    torch.testing.assert_close(QuantizedLinear(layer, 8).weight, by_hand.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("bits", "error"), [(4, 0.11), (8, 0.012)])
@pytest.mark.parametrize("shape", [(96, 64), (5, 7), (1, 130)])
def test_a_weight_comes_back_near(bits: int, error: float, shape: tuple[int, int]) -> None:
    layer = linear(*shape)
    weight = layer.weight.detach()
    assert float((QuantizedLinear(layer, bits).weight - weight).norm() / weight.norm()) < error


def test_nf4_is_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = linear(96, 64).weight.detach()
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    ours = QuantizedLinear(linear(96, 64), 4).weight
    torch.testing.assert_close(ours, functional.dequantize_4bit(packed, state), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", [4, 8])
def test_products_and_gradients_are_those_of_the_weight_that_is_meant(bits: int) -> None:
    layer = linear(96, 64, bias=True)
    quantized = QuantizedLinear(layer, bits)
    dense = quantized.dense()
    x = torch.randn(5, 64, requires_grad=True)
    torch.testing.assert_close(quantized(x), dense(x))
    (ours,) = torch.autograd.grad(quantized(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(dense(x).square().sum(), x)
    torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantized(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y, dense(x), rtol=0.02, atol=0.02)
    (ours,) = torch.autograd.grad(y.float().sum(), x)
    assert ours.dtype == torch.float32


@pytest.mark.parametrize("config", [LLAMA, GPT])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_on_them_merge_into_what_they_mean(config: DecoderConfig, bits: int, dora: bool) -> None:
    targets = ("down_proj",) if config is LLAMA else ("c_fc",)
    decoder = trained(config, replace(OPTIONS, bits=bits, dora=dora, targets=targets))
    before = logits(decoder)
    base = logits(without_adapters(decoder))
    assert not torch.allclose(before, base, atol=1e-3) and not torch.equal(base, logits(Decoder(config).eval()))
    small = sum(p.nbytes for layer in decoder.layers for p in layer.parameters() if not p.requires_grad)
    whole = sum(p.nbytes for layer in Decoder(config).layers for p in layer.parameters())
    assert small < (0.2 if bits == 4 else 0.35) * whole
    merge_adapters(decoder)
    assert not [module for module in decoder.modules() if isinstance(module, QuantizedLinear)]
    torch.testing.assert_close(logits(decoder), before, rtol=1e-4, atol=1e-5)


def test_an_adapters_file_names_the_bits_of_its_base(tmp_path: Path) -> None:
    pretrained.save(tmp_path / "base", Decoder(LLAMA), eos_id=2, pad_id=0)
    decoder = trained(LLAMA, replace(OPTIONS, bits=4))
    decoder.adapter_base = str(tmp_path / "base")
    save_adapters(tmp_path / "adapter", decoder)
    loaded = pretrained.load_decoder(tmp_path / "adapter").eval()
    assert not adapters(loaded)
    torch.testing.assert_close(logits(loaded), logits(decoder), rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_every_adapter() -> None:
    decoder = Decoder(LLAMA)
    add_adapters(decoder, replace(OPTIONS, bits=4), seed=0)
    decoder(IDS, Layout.of([5, 7])).square().sum().backward()
    assert {n for n, p in decoder.named_parameters() if p.grad is not None} == {
        n for n, p in decoder.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("options", [{"rank": 4, "bits": 3}, {"rank": 0, "bits": 4}])
def test_other_bits_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match=r"lora\.bits is"):
        LoraOptions(**options)
