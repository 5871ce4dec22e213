"""Adapters as files: as peft names them, read back as a model, and refused where they are for another base."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.adapter_files import load_adapters, save_adapters
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.models.lora import (
    LoraOptions,
    adapters,
    add_adapters,
)
from tests.models.adapted import GPT, IDS, LLAMA, OPTIONS, logits, trained


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
        ({"peft_type": "IA3"}, "is IA3; LoRA, DoRA, prompt and prefix tuning are read"),
        ({"use_dora": True}, r"lora_magnitude_vector is \[0\] where the base needs \[32\]"),
        ({"rank_pattern": {"q_proj": 8}}, r"q_proj.lora_A.weight is \[4, 32\] where the base needs \[8, 32\]"),
        ({"layer_replication": [[0, 1]]}, "has layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "has init_lora_weights 'pissa_niter_4'"),
        ({"lora_bias": True}, "has lora_bias True"),
        ({"bias": "all"}, "has bias 'all'"),
        ({"r": None}, "lacks a number"),
        ({"r": 8}, r"lora_A.weight is \[4, 32\] where the base needs \[8, 32\]; is it for another model"),
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


def by_peft(config: DecoderConfig, folder: Path, **options: Any) -> Any:
    """peft's model with adapters far from their first values, whose files are in the folder "theirs"."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    pretrained.save(folder / "base", Decoder(config), eos_id=2, pad_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**options)).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                scale = 0.3 if "magnitude" not in name else 0.1
                parameter += scale * torch.randn(parameter.shape, generator=generator) * (1 if "lora" in name else 0.1)
    theirs.save_pretrained(folder / "theirs", save_embedding_layers=False)
    return theirs


SOME: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "dora and rslora of some layers": {"use_dora": True, "use_rslora": True, "target_modules": ["v_proj", "up_proj"]},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6, "up_proj": 3},
        "alpha_pattern": {"v_proj": 32, r".*layers\.0\.mlp\.up_proj": 5},
        "use_dora": True,
    },
    "one layer": {"layers_to_transform": [1], "target_modules": ["q_proj", "down_proj"]},
    "embeddings": {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]},
    "unembedding": {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", SOME)
@torch.inference_mode()
def test_files_of_peft_are_read_with_the_same_logits(name: str, tied: bool, tmp_path: Path) -> None:
    theirs = by_peft(replace(LLAMA, tie_embeddings=tied), tmp_path, **SOME[name])
    ours = pretrained.load_decoder(tmp_path / "theirs").eval()
    base = pretrained.load_decoder(tmp_path / "base").eval()
    expected = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(ours.logits(ours(IDS, Layout.of([12]))), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base.logits(base(IDS, Layout.of([12]))), expected, atol=0.01)
    on_base = pretrained.decoder_on(base, tmp_path / "theirs")
    torch.testing.assert_close(on_base.logits(on_base(IDS, Layout.of([12]))), expected, rtol=1e-4, atol=1e-5)
    again = pretrained.load_decoder(tmp_path / "base").eval()
    assert torch.equal(logits(base), logits(again))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LLAMA, {}),
        (LLAMA, {"target_modules": ["q_proj", "v_proj", "gate_proj"]}),
        (replace(LLAMA, qkv_bias=True), {}),
        (GPT, {"fan_in_fan_out": True}),
    ],
)
def test_gradients_of_dora_are_pefts(config: DecoderConfig, options: dict[str, Any], tmp_path: Path) -> None:
    theirs = by_peft(config, tmp_path, use_dora=True, **options)
    ours = pretrained.load_decoder(tmp_path / "base").eval()
    load_adapters(tmp_path / "theirs", ours)
    weights = torch.randn(12, config.vocab_size, generator=torch.Generator().manual_seed(0))
    outputs = ours.logits(ours(IDS, Layout.of([12]))), theirs(IDS[None]).logits[0]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for output in outputs:
        (output * weights).sum().backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default", "").replace("vector.weight", "vector"): p.grad
        for name, p in theirs.named_parameters()
        if p.requires_grad
    }
    for layer in adapters(ours).values():
        parts = zip(layer.adapted, layer.a.grad.split(layer.ranks), layer.b, layer.m)
        for (part, _), a, b, m in parts:
            kinds = {"lora_A.weight": a, "lora_B.weight": b.grad, "lora_magnitude_vector": m.grad}
            for kind, gradient in kinds.items():
                torch.testing.assert_close(gradient, expected.pop(f"{part.name}.{kind}"), rtol=1e-4, atol=1e-5)
    assert not expected
