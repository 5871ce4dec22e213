"""LoRA: nothing changes at first, the product by hand, merged is unmerged, the base is shared, peft's files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.inference import cast_for_inference
from amenable.models.layout import Layout
from amenable.models.lora import (
    LoraLinear,
    LoraOptions,
    adapters,
    add_adapters,
    merge_adapters,
    save_adapters,
    without_adapters,
)

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
    layer = LoraLinear(nn.Linear(2, 3, bias=False), [("q", 1, True), ("k", 2, True)], LoraOptions(rank=1, alpha=2.0))
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        layer.a.copy_(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        layer.b[0].fill_(0.5)
        layer.b[1].copy_(torch.tensor([[1.0], [-1.0]]))
    # x = (1, 1): W x = (1, 1, 2); A x = (3, 3); B A x = (1.5, 3, -3); s = 2
    assert layer(torch.ones(1, 2)).tolist() == [[4.0, 7.0, -4.0]]
    assert layer.merged()(torch.ones(1, 2)).tolist() == [[4.0, 7.0, -4.0]]


def test_a_layer_without_an_adapter_in_a_fused_product_stays() -> None:
    options = replace(OPTIONS, targets=("v_proj", "q_proj"))
    decoder = trained(options=options)
    layer = adapters(decoder)["layers.0.attention.qkv"]
    assert [has for _, _, has in layer.parts] == [True, False, True] and len(adapters(decoder)) == 2
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
    assert torch.allclose(ours, theirs, atol=0.05) and adapters(copy)
    assert not torch.allclose(theirs, logits(without_adapters(decoder)), atol=0.2)
    assert adapters(decoder)["layers.0.mlp.up"].base.weight.dtype == torch.float32


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


def test_files_are_as_peft_names_them(tmp_path: Path) -> None:
    decoder = trained()
    save_adapters(tmp_path, decoder)
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["r"] == 4 and fields["lora_alpha"] == 8.0 and fields["base_model_name_or_path"] == "somewhere/base"
    assert fields["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.k_proj.lora_{}.weight"
    assert tensors[name.format("A")].shape == (4, 32) and tensors[name.format("B")].shape == (16, 4)
    assert torch.equal(tensors[name.format("B")], adapters(decoder)["layers.1.attention.qkv"].b[1])
    assert len(tensors) == 2 * 7 * 2


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


@pytest.mark.parametrize(
    ("config", "targets"), [(LLAMA, ("all-linear",)), (LLAMA, ("q_proj", "v_proj")), (GPT, ("c_attn",))]
)
@torch.inference_mode()
def test_peft_reads_them_with_the_same_logits(config: DecoderConfig, targets: tuple[str, ...], tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    pretrained.save(tmp_path / "base", Decoder(config), eos_id=2, pad_id=0)
    decoder = trained(config, replace(OPTIONS, targets=targets))
    save_adapters(tmp_path / "adapter", decoder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ours = decoder.logits(decoder(IDS, Layout.of([12])))
    torch.testing.assert_close(ours, theirs(IDS[None]).logits[0], rtol=1e-4, atol=1e-5)


def saved(tmp_path: Path, config: DecoderConfig = LLAMA, options: LoraOptions = OPTIONS) -> tuple[Decoder, Path]:
    """A decoder with adapters, and the folder of its adapters, on a base that is saved."""
    pretrained.save(tmp_path / "base", Decoder(config), eos_id=2, pad_id=0)
    decoder = trained(config, options)
    decoder.adapter_base = str(tmp_path / "base")
    save_adapters(tmp_path / "adapter", decoder)
    return decoder, tmp_path / "adapter"


@pytest.mark.parametrize("config", [LLAMA, GPT])
@pytest.mark.parametrize("targets", [("all-linear",), None])
def test_a_folder_of_adapters_is_a_model(
    config: DecoderConfig, targets: tuple[str, ...] | None, tmp_path: Path
) -> None:
    some = ("c_attn",) if config is GPT else ("v_proj", "gate_proj")
    decoder, folder = saved(tmp_path, config, replace(OPTIONS, targets=targets or some, rslora=targets is None))
    loaded = pretrained.load_decoder(folder).eval()
    assert not adapters(loaded) and all(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(logits(loaded), logits(decoder), rtol=1e-4, atol=1e-5)
    assert pretrained.read_config(folder) == loaded.config


@torch.inference_mode()
def test_a_reward_model_on_a_language_model_is_an_adapter_with_a_head(tmp_path: Path) -> None:
    pretrained.save(tmp_path / "base", Decoder(LLAMA), eos_id=2, pad_id=0)
    model = ScalarModel.from_decoder(Decoder(LLAMA), torch.Generator().manual_seed(0)).eval()
    add_adapters(model, OPTIONS, seed=1, base=str(tmp_path / "base"))
    for layer in adapters(model).values():
        for b in layer.b:
            b.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
    save_adapters(tmp_path / "adapter", model)
    layout = Layout.of([5, 7])
    loaded = pretrained.load_scalar(tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(IDS, layout), model(IDS, layout), rtol=1e-4, atol=1e-5)


def edited(folder: Path, **changes: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "is IA3; LoRA alone is read"),
        ({"use_dora": True}, "is DoRA; LoRA alone is read"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern"),
        ({"bias": "all"}, "has bias 'all'"),
        ({"r": None}, "lacks a number"),
        ({"r": 8}, r"lora_A is \[4, 32\] where the base needs \[8, 32\]; is it for another model"),
    ],
)
def test_adapters_of_other_kinds_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    _, folder = saved(tmp_path)
    with pytest.raises(InputError, match=message):
        pretrained.load_decoder(edited(folder, **changes))


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    pretrained.save(tmp_path / "gpt", Decoder(GPT), eos_id=2, pad_id=0)
    with pytest.raises(InputError, match="which its base model does not have; is it for another model"):
        pretrained.load_decoder(edited(folder, base_model_name_or_path=str(tmp_path / "gpt")))
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        pretrained.load_decoder(edited(folder, base_model_name_or_path=str(tmp_path / "base")))
