"""Published weights: the parameter map, and files that are torn, missing or without prefixes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.hf_weights import parameter_map, published_tensors, shortened

GPT = DecoderConfig(61, context_length=32, num_layers=2, hidden_size=32, num_heads=4)
MODERN = replace(
    GPT, positions="rope", norm="rms", activation="swiglu", bias=False, num_kv_heads=2, tie_embeddings=False
)


@pytest.mark.parametrize(("model_type", "config"), [("gpt2", GPT), ("llama", MODERN)])
def test_every_parameter_is_mapped_once(model_type, config):
    decoder = Decoder(config)
    entries = parameter_map(config, model_type)
    assert sorted(entry.ours for entry in entries) == sorted(name for name, _ in decoder.named_parameters())
    theirs = [name for entry in entries for name in entry.theirs]
    assert len(set(theirs)) == len(theirs)
    tensors = published_tensors(decoder, model_type)
    assert set(tensors) == set(theirs)
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in decoder.parameters())
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    assert {tensor.untyped_storage().data_ptr() for tensor in tensors.values()} == own, "views, not copies"


def test_weights_without_a_published_name_are_not_left_out():
    decoder = Decoder(GPT)
    decoder.layers[1].mlp.up.register_parameter("lora_A", torch.nn.Parameter(torch.zeros(1, 32)))
    with pytest.raises(ValueError, match=r"no published name for layers\.1\.mlp\.up\.lora_A: merge adapters"):
        published_tensors(decoder, "gpt2")


def test_long_lists_are_shortened():
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_the_published_gpt2_file_has_no_prefix_and_keeps_buffers(tmp_path):
    decoder = Decoder(GPT).eval()
    pretrained.save(tmp_path, decoder)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32) for i in range(2)}
    old["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(old, tmp_path / "model.safetensors")
    again = dict(pretrained.load_decoder(tmp_path).named_parameters())
    assert all(torch.equal(again[name], parameter) for name, parameter in decoder.named_parameters())


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_torn_weights_are_an_input_error(damage, tmp_path):
    pretrained.save(tmp_path, Decoder(GPT).eval())
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"model.safetensors: not a whole safetensors file"):
        pretrained.load_decoder(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"config.json: no such file"):
        pretrained.load_decoder(tmp_path / "nowhere")
    pretrained.save(tmp_path, Decoder(GPT).eval())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model.safetensors$"):
        pretrained.load_decoder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled weights are not read"):
        pretrained.load_decoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        pretrained.read_config(tmp_path)


@pytest.mark.parametrize(
    ("shards", "message"),
    [(["a.safetensors"], "no such file of weights"), (["../a.safetensors"], "names ../a"), ([], "names no files")],
)
def test_an_index_that_cannot_be_followed(shards, message, tmp_path):
    pretrained.save(tmp_path, Decoder(GPT).eval())
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {str(i): name for i, name in enumerate(shards)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        pretrained.load_decoder(tmp_path)
