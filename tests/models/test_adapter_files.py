"""Adapters as files: as peft names them, read back as a model, and refused where they are for another base."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.adapter_files import save_adapters
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
