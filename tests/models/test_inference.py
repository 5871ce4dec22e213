"""Inference copies give the outputs of autocast in half the memory."""

import copy
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from amenable.models import inference
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.inference import cast_for_inference, for_generation, linear_layers
from amenable.models.layout import Layout
from amenable.models.packed_linear import PackedLinear, can_pack
from amenable.models.presets import preset
from tests.models.adapted import OPTIONS, trained

GPT2 = DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4)
LLAMA = replace(
    preset("nano", 61),
    context_length=48,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    num_kv_heads=2,
    tie_embeddings=False,
)
LAYOUT = Layout.of([9, 4])
IDS = torch.arange(13) * 4
families = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])


def bf16_outputs(model):
    """Return the model's outputs under autocast."""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model(IDS, LAYOUT)
        return (hidden if isinstance(model, ScalarModel) else model.logits(hidden)).float()


def parameter_bytes(model):
    return sum(parameter.nbytes for parameter in model.parameters())


@families
def test_logits_equal_those_of_autocast(config):
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
    twin = cast_for_inference(decoder, torch.bfloat16)
    # with GELU inside the product its input is not rounded first
    bound = 0.0 if config.activation == "swiglu" else 0.05
    assert (bf16_outputs(twin) - bf16_outputs(decoder)).abs().max() <= bound * bf16_outputs(decoder).std()
    assert bf16_outputs(decoder).std() > 0.1


@families
def test_scores_equal_those_of_autocast(config):
    model = ScalarModel.from_decoder(Decoder(config), torch.Generator().manual_seed(0))
    twin = cast_for_inference(model, torch.bfloat16)
    torch.testing.assert_close(bf16_outputs(twin), bf16_outputs(model), rtol=0.02, atol=0.02)
    assert twin.score.weight.dtype == torch.float32


def test_only_linear_layers_are_cast_and_the_rest_is_shared():
    decoder = Decoder(GPT2)
    twin = cast_for_inference(decoder, torch.bfloat16)
    assert twin.token_embedding.weight.data_ptr() == decoder.token_embedding.weight.data_ptr()
    assert twin.final_norm.weight.data_ptr() == decoder.final_norm.weight.data_ptr()
    assert {p.dtype for p in twin.layers[0].mlp.parameters()} == {torch.bfloat16}
    assert twin.unembedding.dtype == torch.bfloat16 and not twin.config.tie_embeddings and not twin.training


def test_the_original_is_unchanged():
    decoder = Decoder(GPT2).train()
    before = copy.deepcopy(decoder.state_dict())
    cast_for_inference(decoder, torch.bfloat16)
    assert decoder.training and decoder.config.tie_embeddings and all(p.requires_grad for p in decoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())


def test_the_copy_has_half_the_bytes_and_is_cast_once():
    config = DecoderConfig(61, context_length=48, num_layers=4, hidden_size=64, num_heads=4)
    twin = cast_for_inference(Decoder(config), torch.bfloat16)
    assert parameter_bytes(twin) < 0.6 * parameter_bytes(Decoder(config))
    assert cast_for_inference(twin, torch.bfloat16) is twin
    model = cast_for_inference(ScalarModel(Decoder(config)), torch.bfloat16)
    assert cast_for_inference(model, torch.bfloat16) is model


def test_in_place_converts_the_model_itself():
    decoder = Decoder(GPT2)
    expected = bf16_outputs(cast_for_inference(decoder, torch.bfloat16))
    assert cast_for_inference(decoder, torch.bfloat16, in_place=True) is decoder
    assert torch.equal(bf16_outputs(decoder), expected) and decoder.layers[1].mlp.up.weight.dtype == torch.bfloat16
    model = ScalarModel(Decoder(GPT2))
    assert cast_for_inference(model, torch.bfloat16, in_place=True) is model and model.decoder.output is None


class LowRank(nn.Module):
    """An adapter as PEFT makes it: a module around a linear layer."""

    def __init__(self, base, change):
        super().__init__()
        self.base, self.change = base, nn.Parameter(change)

    def forward(self, x):
        return self.base(x) + nn.functional.linear(x, self.change)


class LowRankLinear(nn.Linear):
    """An adapter as a linear layer that has a further term."""

    def forward(self, x):
        return super().forward(x) + nn.functional.linear(x, self.change)


class Sum(nn.Module):
    """An adapter as a parametrization of the weight."""

    def __init__(self, change):
        super().__init__()
        self.change = nn.Parameter(change)

    def forward(self, weight):
        return weight + self.change


def subclassed(base, change):
    layer = LowRankLinear(base.in_features, base.out_features, base.bias is not None)
    layer.load_state_dict(base.state_dict())
    layer.change = nn.Parameter(change)
    return layer


def parametrized(base, change):
    parametrize.register_parametrization(base, "weight", Sum(change))
    return base


def hooked(base, change):
    base.register_forward_hook(lambda module, inputs, output: output + nn.functional.linear(inputs[0], change))
    return base


@pytest.mark.parametrize("adapt", [LowRank, subclassed, parametrized, hooked])
@pytest.mark.parametrize("layer", ["attention.qkv", "attention.out", "mlp.up", "mlp.down", "score"])
@families
def test_an_adapter_on_any_linear_layer_counts_in_trainer_and_copy_alike(config, layer, adapt):
    name = layer if layer == "score" else f"decoder.layers.1.{layer}"
    model = ScalarModel.from_decoder(Decoder(config), torch.Generator().manual_seed(0))
    plain, merged = copy.deepcopy(model), copy.deepcopy(model)
    linear = merged.get_submodule(name)
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(size, 1, generator=generator) for size in linear.weight.shape)
    change = left @ right.T * 0.3
    with torch.no_grad():
        linear.weight.add_(change)
    model.set_submodule(name, adapt(model.get_submodule(name), change))
    with torch.no_grad():
        expected, before = merged(IDS, LAYOUT), plain(IDS, LAYOUT)
        torch.testing.assert_close(model(IDS, LAYOUT), expected, rtol=1e-4, atol=1e-4)
    moved = float((expected - before).abs().mean())
    trainer, twin = bf16_outputs(model), bf16_outputs(cast_for_inference(model, torch.bfloat16))
    assert float((twin - trainer).abs().mean()) < 0.05 * moved and float((twin - expected).abs().mean()) < 0.1 * moved


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["embedding", "output"])
def test_an_adapter_on_the_unembedding_is_refused(config):
    decoder = Decoder(config)
    name = "token_embedding" if decoder.output is None else "output"
    decoder.set_submodule(name, LowRank(decoder.get_submodule(name), torch.zeros(61, 32)))
    with pytest.raises(TypeError, match="LowRank has no effect"):
        decoder.logits(torch.zeros(1, 32))


packs = pytest.mark.skipif(not can_pack(torch.empty(1), torch.bfloat16), reason="this processor has no bf16 products")


@packs
@families
def test_inference_copies_are_packed_and_count_as_their_weights(config):
    decoder = Decoder(config)
    twin = cast_for_inference(decoder, torch.bfloat16)
    layers = linear_layers(twin)
    assert len(layers) == 4 * config.num_layers and all(isinstance(layer, PackedLinear) for layer in layers.values())
    assert sum(p.numel() for p in twin.layers.parameters()) == sum(p.numel() for p in decoder.layers.parameters())
    hidden = torch.randn(3, config.hidden_size).to(torch.bfloat16)
    torch.testing.assert_close(for_generation(twin)[1](hidden), twin.logits(hidden), rtol=0.01, atol=0.01)
    assert for_generation(decoder)[1] == decoder.logits, "fp32 weights stay as they are"


@packs
def test_a_hook_on_a_packed_layer_is_called():
    twin = cast_for_inference(Decoder(GPT2), torch.bfloat16)
    before = bf16_outputs(twin)
    twin.layers[0].mlp.up.register_forward_hook(lambda module, inputs, output: output + 1)
    assert not torch.equal(bf16_outputs(twin), before)


@packs
def test_in_place_a_weight_is_freed_before_the_next_is_packed(monkeypatch):
    decoder = Decoder(LLAMA)
    weights = [weakref.ref(layer.weight) for layer in linear_layers(decoder).values()]
    alive = []

    class Counted(PackedLinear):
        def __init__(self, weight, bias):
            alive.append(sum(ref() is not None for ref in weights))
            super().__init__(weight, bias)

    monkeypatch.setattr(inference, "PackedLinear", Counted)
    cast_for_inference(decoder, torch.bfloat16, in_place=True)
    assert alive == list(range(len(weights), 0, -1))


@pytest.mark.skipif(not can_pack(torch.empty(1), torch.bfloat16), reason="this processor has no bf16 products")
def test_plain_layers_below_adapters_are_packed_for_decoding():
    decoder = trained(options=replace(OPTIONS, targets=("q_proj", "down_proj")))
    inference.cast_layers(decoder, torch.bfloat16)  # as a bf16 run stores them
    copy = cast_for_inference(decoder, torch.bfloat16)
    packed = inference.pack_for_decoding(copy)
    assert isinstance(packed.layers[0].attention.qkv.base, PackedLinear) and isinstance(
        copy.layers[0].mlp.up, nn.Linear
    )
    assert (
        isinstance(packed.layers[0].mlp.up, PackedLinear)
        and packed.token_embedding.weight is decoder.token_embedding.weight
    )
    torch.testing.assert_close(bf16_outputs(packed), bf16_outputs(decoder), rtol=0.05, atol=0.05)
    assert inference.pack_for_decoding(packed) is packed
    whole = Decoder(LLAMA)
    assert inference.pack_for_decoding(whole) is whole
