"""LoRA: nothing changes at first, the product by hand, merged is unmerged, the base is shared, peft's files."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from amenable.errors import InputError
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.inference import cast_for_inference, cast_layers
from amenable.models.layout import Layout
from amenable.models.lora import (
    LoraLinear,
    LoraOptions,
    Part,
    adapters,
    add_adapters,
    merge_adapters,
    without_adapters,
)
from amenable.models.low_rank import LowRankLinear
from amenable.train.optimizer import Optimizer, OptimizerConfig
from tests.models.adapted import GPT, IDS, LLAMA, OPTIONS, logits, trained


def test_nothing_changes_at_first_and_the_base_is_frozen() -> None:
    decoder = Decoder(LLAMA).eval()
    before = logits(decoder)
    add_adapters(decoder, OPTIONS, seed=1)
    assert torch.equal(logits(decoder), before)
    names = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert names and all(".a" in name or ".b." in name for name in names)
    assert len(adapters(decoder)) == 8


def test_rank_0_changes_nothing() -> None:
    decoder = Decoder(LLAMA)
    add_adapters(decoder, LoraOptions(), seed=1)
    assert not adapters(decoder) and all(p.requires_grad for p in decoder.parameters())


def test_the_product_by_hand() -> None:
    options = LoraOptions(rank=1, alpha=2.0)
    layer = LoraLinear(nn.Linear(2, 3, bias=False), [Part("q", 1, options), Part("k", 2, options)])
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        layer.a.copy_(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        layer.b[0].fill_(0.5)
        layer.b[1].copy_(torch.tensor([[1.0], [-1.0]]))
    # x = (1, 1): W x = (1, 1, 2); A x = (3, 3); B A x = (1.5, 3, -3); s = 2
    assert layer(torch.ones(1, 2)).tolist() == [[4.0, 7.0, -4.0]]
    assert layer.merged()(torch.ones(1, 2)).tolist() == [[4.0, 7.0, -4.0]]


def test_dora_by_hand() -> None:
    options = LoraOptions(rank=1, alpha=2.0, dora=True)
    base = nn.Linear(2, 2)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
        base.bias.copy_(torch.tensor([0.5, 0.0]))
    layer = LoraLinear(base, [Part("q", 2, options)])
    assert layer.m[0].tolist() == [5.0, 1.0]
    assert layer(torch.ones(1, 2)).tolist() == [[7.5, 1.0]]
    with torch.no_grad():
        layer.a.copy_(torch.tensor([[0.0, 1.0]]))
        layer.b[0].copy_(torch.tensor([[-2.0], [0.0]]))
        layer.m[0].copy_(torch.tensor([10.0, 3.0]))
    # W + s B A = (3, 0), (1, 0) with norms 3 and 1: rows of length 10 and 3 are (10, 0), (3, 0)
    torch.testing.assert_close(layer(torch.ones(1, 2)), torch.tensor([[10.5, 3.0]]))
    torch.testing.assert_close(layer.merged()(torch.ones(1, 2)), torch.tensor([[10.5, 3.0]]))


@pytest.mark.parametrize("config", [LLAMA, GPT, replace(LLAMA, qkv_bias=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dora_changes_nothing_at_first_and_merged_is_unmerged(config: DecoderConfig, dtype: torch.dtype) -> None:
    options = replace(OPTIONS, dora=True)
    decoder = Decoder(config).eval()
    before = logits(decoder)
    add_adapters(decoder, options, seed=1)
    torch.testing.assert_close(logits(decoder), before, rtol=1e-5, atol=1e-6)
    decoder = trained(config, options)
    with torch.no_grad():
        for layer in adapters(decoder).values():
            for m in layer.m:
                m.mul_(1.5)
    unmerged = logits(decoder)
    assert not torch.allclose(unmerged, logits(without_adapters(decoder)), atol=1e-2)
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype=dtype):
            assert torch.allclose(logits(cast_for_inference(decoder, dtype)).float(), unmerged, atol=0.05)
    merge_adapters(decoder)
    torch.testing.assert_close(logits(decoder), unmerged, rtol=1e-4, atol=1e-5)


def test_the_lengths_of_dora_follow_every_change_of_the_weights() -> None:
    layer = adapters(trained(options=replace(OPTIONS, dora=True)))["layers.0.mlp.down"]
    x = torch.randn(3, layer.base.in_features)

    def lengths() -> torch.Tensor:
        with torch.no_grad():
            first = layer.row_lengths()
            assert layer.row_lengths() is first
            weight = layer.base.weight + layer.options.scale * layer.b[0] @ layer.a
            torch.testing.assert_close(first[0], weight.norm(dim=1))
        return first[0]

    before = lengths()
    optimizer = Optimizer([layer], OptimizerConfig(learning_rate=0.1))
    layer(x).square().sum().backward()
    lengths()  # as a measurement between a backward pass and its step
    optimizer.step()
    assert not torch.equal(before, lengths())
    layer.load_state_dict({name: torch.ones_like(value) for name, value in layer.state_dict().items()})
    lengths()
    assert copy.deepcopy(layer).row_lengths() is not layer.row_lengths()


def test_dropout_of_dora_is_of_the_whole_input() -> None:
    layer = adapters(trained(options=replace(OPTIONS, dora=True, dropout=0.5)))["layers.0.mlp.down"]
    x = torch.randn(4, layer.base.in_features)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    torch.manual_seed(0)
    mean = torch.stack([layer(x) for _ in range(800)]).mean(0)
    layer.eval()
    torch.testing.assert_close(mean, layer(x), rtol=0.1, atol=0.1)


def test_a_layer_without_an_adapter_in_a_fused_product_stays() -> None:
    options = replace(OPTIONS, targets=("v_proj", "q_proj"))
    decoder = trained(options=options)
    layer = adapters(decoder)["layers.0.attention.qkv"]
    assert [part.options is not None for part in layer.parts] == [True, False, True] and len(adapters(decoder)) == 2
    x = torch.randn(3, 32)
    keys = slice(32, 48)
    assert torch.equal(layer(x)[:, keys], layer.base(x)[:, keys])
    assert not torch.allclose(layer(x)[:, :32], layer.base(x)[:, :32])


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    assert OPTIONS.scale == 2.0 and replace(OPTIONS, rslora=True).scale == 4.0


@pytest.mark.parametrize(
    "config", [LLAMA, GPT, replace(LLAMA, qk_norm=True, head_width=16), replace(LLAMA, qkv_bias=True)]
)
@pytest.mark.parametrize("targets", [("all-linear",), None])
def test_merged_is_unmerged(config: DecoderConfig, targets: tuple[str, ...] | None) -> None:
    some = ("c_attn", "c_proj") if config is GPT else ("k_proj", "up_proj", "down_proj")
    decoder = trained(config, replace(OPTIONS, targets=targets or some))
    before = logits(decoder)
    assert not torch.allclose(before, logits(without_adapters(decoder)), atol=1e-3)
    merge_adapters(decoder)
    assert not adapters(decoder)
    torch.testing.assert_close(logits(decoder), before, rtol=1e-4, atol=1e-5)


def test_the_reference_is_the_base_and_shares_its_weights() -> None:
    decoder = trained()
    reference = without_adapters(decoder)
    assert torch.equal(logits(reference), logits(Decoder(LLAMA).eval())) and not adapters(reference)
    theirs = {parameter.data_ptr() for parameter in decoder.parameters()}
    assert {parameter.data_ptr() for parameter in reference.parameters()} <= theirs


def test_an_inference_copy_keeps_the_adapters() -> None:
    decoder = trained()
    copy = cast_for_inference(decoder, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = logits(decoder).float(), logits(copy).float()
    assert torch.allclose(ours, theirs, atol=0.05)
    assert not torch.allclose(theirs, logits(without_adapters(decoder)), atol=0.2)
    assert isinstance(copy.get_submodule("layers.0.mlp.up"), LowRankLinear)
    assert cast_for_inference(copy, torch.bfloat16) is copy
    assert adapters(decoder)["layers.0.mlp.up"].base.weight.dtype == torch.float32
    cast_layers(decoder, torch.bfloat16)
    assert (
        cast_for_inference(decoder, torch.float32).get_submodule("layers.0.mlp.up.base").weight.dtype == torch.float32
    )
    assert adapters(decoder)["layers.0.mlp.up"].base.weight.dtype == torch.bfloat16


def test_gradients_reach_the_adapters_alone() -> None:
    decoder = trained()
    decoder(IDS, Layout.of([5, 7])).square().sum().backward()
    with_gradient = {name for name, parameter in decoder.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, p in decoder.named_parameters() if p.requires_grad}


def test_dropout_is_of_the_adapters_input_in_training() -> None:
    decoder = trained(options=replace(OPTIONS, dropout=0.5))
    assert torch.equal(logits(decoder), logits(decoder))
    decoder.train()
    assert not torch.equal(logits(decoder), logits(decoder))


def test_a_scalar_head_stays_trained() -> None:
    model = ScalarModel.from_decoder(Decoder(LLAMA), torch.Generator().manual_seed(0))
    add_adapters(model, OPTIONS, seed=1)
    assert model.score.weight.requires_grad and not model.decoder.token_embedding.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "lora.rank is -1"),
        ({"alpha": 0.0}, "lora.alpha is 0.0"),
        ({"dropout": 1.0}, "lora.dropout is 1.0"),
        ({"targets": ()}, "lora.targets is empty"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LoraOptions(**options)


def test_targets_that_match_nothing_are_named(make_decoder: Callable[..., Decoder]) -> None:
    with pytest.raises(InputError, match=r"no layer is called 'qproj'; lora\.targets are down_proj, gate_proj"):
        add_adapters(make_decoder(), LoraOptions(rank=2, targets=("q_proj", "qproj")), seed=0)
