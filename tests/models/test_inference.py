"""A lean model says what autocast makes of the whole one, in half the memory."""

import copy
from dataclasses import replace

import pytest
import torch

from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.inference import lean
from amenable.models.layout import Layout
from amenable.models.presets import preset

GPT2 = DecoderConfig(61, context=48, layers=2, width=32, heads=4)
LLAMA = replace(preset("nano", 61), context=48, layers=2, width=32, heads=4, kv_heads=2, tied=False)
LAYOUT = Layout.of([9, 4])
IDS = torch.arange(13) * 4
families = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])


def asked(model):
    """What the model says under autocast."""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        said = model(IDS, LAYOUT)
        return (said if isinstance(model, ScalarModel) else model.logits(said)).float()


def held(model):
    return sum(parameter.nbytes for parameter in model.parameters())


@families
def test_it_says_the_same(config):
    decoder = Decoder(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3)
    twin = lean(decoder, torch.bfloat16)
    # with GELU inside the product its input is not rounded first
    bound = 0.0 if config.activation == "swiglu" else 0.05
    assert (asked(twin) - asked(decoder)).abs().max() <= bound * asked(decoder).std()
    assert asked(decoder).std() > 0.1


@families
def test_a_scalar_model_says_the_same(config):
    model = ScalarModel.from_decoder(Decoder(config), torch.Generator().manual_seed(0))
    twin = lean(model, torch.bfloat16)
    torch.testing.assert_close(asked(twin), asked(model), rtol=0.02, atol=0.02)
    assert twin.score.weight.dtype == torch.float32


def test_only_the_matrices_of_products_change_and_the_rest_is_shared():
    decoder = Decoder(GPT2)
    twin = lean(decoder, torch.bfloat16)
    assert twin.token_embedding.weight.data_ptr() == decoder.token_embedding.weight.data_ptr()
    assert twin.final_norm.weight.data_ptr() == decoder.final_norm.weight.data_ptr()
    assert {p.dtype for p in twin.layers[0].mlp.parameters()} == {torch.bfloat16}
    assert twin.unembedding.dtype == torch.bfloat16 and not twin.config.tied and not twin.training


def test_what_it_was_made_from_is_as_before():
    decoder = Decoder(GPT2).train()
    before = copy.deepcopy(decoder.state_dict())
    lean(decoder, torch.bfloat16)
    assert decoder.training and decoder.config.tied and all(p.requires_grad for p in decoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())


def test_it_is_about_half_as_big_and_made_once():
    config = DecoderConfig(61, context=48, layers=4, width=64, heads=4)
    twin = lean(Decoder(config), torch.bfloat16)
    assert held(twin) < 0.6 * held(Decoder(config))
    assert lean(twin, torch.bfloat16) is twin
    model = lean(ScalarModel(Decoder(config)), torch.bfloat16)
    assert lean(model, torch.bfloat16) is model


def test_in_place_it_is_the_model_itself():
    decoder = Decoder(GPT2)
    expected = asked(lean(decoder, torch.bfloat16))
    assert lean(decoder, torch.bfloat16, in_place=True) is decoder
    assert torch.equal(asked(decoder), expected) and decoder.layers[1].mlp.up.weight.dtype == torch.bfloat16
    model = ScalarModel(Decoder(GPT2))
    assert lean(model, torch.bfloat16, in_place=True) is model and model.decoder.output is None
