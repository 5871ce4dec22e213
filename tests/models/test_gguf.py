"""Decoders in GGUF files: each architecture comes back as it was, rounded to the file's type."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from amenable.errors import InputError
from amenable.models import gguf, pretrained
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import GGUFFile, Kind, write_gguf
from amenable.models.rope import RopeScaling

GPT2 = DecoderConfig(67, context_length=24, num_layers=2, hidden_size=32, num_heads=4, mlp_width=96)
LLAMA = DecoderConfig(
    67,
    context_length=24,
    num_layers=2,
    hidden_size=48,
    num_heads=6,
    num_kv_heads=2,
    mlp_width=80,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
)
LLAMA3 = RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)
CONFIGS = {
    "gpt2": GPT2,
    "gpt2 untied": replace(GPT2, tie_embeddings=False),
    "llama": LLAMA,
    "llama untied, other eps": replace(LLAMA, tie_embeddings=False, norm_eps=1e-6),
    "llama wide heads": replace(LLAMA, head_width=16, num_kv_heads=3),
    "llama biased": replace(LLAMA, bias=True),
    "llama linear": replace(LLAMA, rope_scaling=RopeScaling("linear", 4.0)),
    "llama yarn": replace(LLAMA, rope_scaling=RopeScaling("yarn", 4.0, 16)),
    "llama llama3": replace(LLAMA, rope_theta=500000.0, head_width=64, rope_scaling=LLAMA3),
    "qwen2": replace(LLAMA, qkv_bias=True, num_kv_heads=3),
    "qwen3": replace(LLAMA, qk_norm=True, head_width=32, tie_embeddings=False),
}


def decoder_of(config: DecoderConfig, seed: int = 0) -> Decoder:
    """A decoder with random numbers everywhere, in norms and biases too."""
    decoder, generator = Decoder(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return decoder.eval()


def rounded(value: torch.Tensor, kind: Kind) -> torch.Tensor:
    if value.dim() == 1 or kind == "f32":
        return value
    if kind == "q8_0" and value.shape[1] % 32 == 0:
        q8 = package.GGMLQuantizationType.Q8_0
        return torch.tensor(package.quants.dequantize(package.quants.quantize(value.numpy(), q8), q8))
    return (value.bfloat16() if kind == "bf16" else value.half()).float()


def save(path: Path, decoder: Decoder, kind: Kind = "f32", **metadata: Any) -> list[str]:
    return gguf.save_decoder(path, decoder, kind, metadata, {"general.name": "a model"})


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_decoder_comes_back(name: str, kind: Kind, tmp_path: Path) -> None:
    decoder = decoder_of(CONFIGS[name])
    in_f16 = save(tmp_path / "a.gguf", decoder, kind)
    file = GGUFFile.read(tmp_path / "a.gguf")
    assert file.metadata["general.architecture"] == name.split()[0]
    loaded = gguf.load_decoder(file)
    expected = replace(decoder.config, num_kv_heads=decoder.config.kv_head_count, head_width=decoder.config.head_size)
    ours = replace(
        loaded.config, num_kv_heads=loaded.config.kv_head_count, head_width=loaded.config.head_size, qkv_bias=None
    )
    assert ours == replace(expected, qkv_bias=None)
    assert loaded.config.has_qkv_bias == decoder.config.has_qkv_bias
    for (key, value), back in zip(decoder.state_dict().items(), loaded.state_dict().values()):
        assert torch.equal(back, value if "position" in key else rounded(value, kind)), key
    odd = [name for name, info in file.tensors.items() if len(info.shape) > 1 and info.shape[-1] % 32]
    assert set(in_f16) == (set(odd) if kind == "q8_0" else set())


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama untied, other eps", "qwen2", "qwen3"])
def test_transformers_reads_the_same_weights_from_the_file(name: str, tmp_path: Path) -> None:
    """A second reader, with its own names and its own permutation."""
    decoder = decoder_of(CONFIGS[name])
    save(tmp_path / "a.gguf", decoder)
    pretrained.save(tmp_path / "folder", decoder)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    theirs = load_gguf_checkpoint(str(tmp_path / "a.gguf"), return_tensors=True, model_to_load=model)["tensors"]
    ours = load_file(tmp_path / "folder" / "model.safetensors")
    assert theirs.keys() == ours.keys()
    for key, value in theirs.items():
        assert torch.equal(torch.as_tensor(value), ours[key]), key


def test_queries_and_keys_of_llama_have_their_rows_in_pairs() -> None:
    """One head of width 4: the two halves (0, 1) and (2, 3) become the pairs (0, 2) and (1, 3)."""
    rows = torch.arange(4.0)[:, None]
    assert gguf.join_pairs(rows, 1)[:, 0].tolist() == [0, 2, 1, 3]
    assert gguf.join_pairs(torch.arange(8.0), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(gguf.split_halves(gguf.join_pairs(rows, 1), 1), rows)
    assert gguf.heads_of("blk.0.attn_q.weight", LLAMA, "llama") == 6
    assert gguf.heads_of("blk.0.attn_k.bias", LLAMA, "llama") == 2
    assert gguf.heads_of("blk.0.attn_v.weight", LLAMA, "llama") == 0
    assert gguf.heads_of("blk.0.attn_q.weight", LLAMA, "qwen2") == 0


def test_dynamic_scaling_is_none_within_the_context(tmp_path: Path) -> None:
    save(tmp_path / "a.gguf", decoder_of(replace(LLAMA, rope_scaling=RopeScaling("dynamic", 2.0))))
    assert gguf.load_decoder(GGUFFile.read(tmp_path / "a.gguf")).config.rope_scaling is None


def test_a_window_is_the_longest_context(tmp_path: Path) -> None:
    save(tmp_path / "a.gguf", decoder_of(replace(LLAMA, window=10)))
    assert gguf.load_decoder(GGUFFile.read(tmp_path / "a.gguf")).config.context_length == 10


def test_an_output_that_repeats_the_embedding_is_tied(tmp_path: Path) -> None:
    decoder = decoder_of(replace(GPT2, tie_embeddings=False))
    assert decoder.output is not None
    decoder.output.weight = decoder.token_embedding.weight
    save(tmp_path / "a.gguf", decoder)
    assert gguf.load_decoder(GGUFFile.read(tmp_path / "a.gguf")).config.tie_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"norm_placement": "post", "mlp_width": None},
            "llama.cpp's architecture of openai_gpt is not written; these can be",
        ),
        ({"activation": "relu"}, "llama.cpp's gpt2 has no relu"),
        ({"norm": "rms"}, "no published architecture is"),
    ],
)
def test_what_llama_cpp_has_not_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        gguf.architecture_of(replace(GPT2, **changes))
    assert message in str(error.value)


def test_another_yarn_is_refused() -> None:
    with pytest.raises(InputError, match="no such yarn scaling"):
        gguf.architecture_of(replace(LLAMA, rope_scaling=RopeScaling("yarn", 4.0, 16, beta_fast=16.0)))


def rewrite(path: Path, changes: dict[str, Any], names: dict[str, str | None]) -> GGUFFile:
    """Write a file again with other metadata (None: without the key) and other names of tensors (None: without)."""
    file = GGUFFile.read(path)
    tensors = {names.get(name, name): file.tensor(name) for name in file.tensors}
    tensors.pop(None, None)
    metadata = {key: value for key, value in {**file.metadata, **changes}.items() if value is not None}
    shapes = {str(name): tuple(tensor.shape) for name, tensor in tensors.items()}
    write_gguf(path, metadata, shapes, ((str(name), tensor) for name, tensor in tensors.items()), "f32")
    return GGUFFile.read(path)


@pytest.mark.parametrize(
    ("changes", "names", "message"),
    [
        (
            {"general.architecture": "mamba"},
            {},
            "its architecture is 'mamba'; these are read: llama, qwen2, qwen3, gpt2",
        ),
        ({"llama.block_count": None}, {}, "lacks llama.block_count"),
        ({"llama.block_count": 3}, {}, "lacks blk.2.attn_k.weight, blk.2.attn_norm.weight"),
        ({"llama.block_count": 2**31}, {}, "has 20 tensors for 2147483648 layers"),
        ({"llama.block_count": 1}, {}, "holds blk.1.attn_k.weight"),
        ({"llama.embedding_length": 54}, {}, "token_embd.weight is [67, 48] where the metadata say [67, 54]"),
        ({"llama.attention.head_count_kv": [2, 2]}, {}, "llama.attention.head_count_kv is not a number"),
        ({"llama.rope.dimension_count": 4}, {}, "rotates a part of each head"),
        ({"llama.rope.scaling.type": "longrope"}, {}, "its positions are scaled by longrope"),
        ({"llama.attention.head_count": 5}, {}, "5 heads do not divide"),
        ({"llama.attention.head_count": 0}, {}, "num_heads is 0"),
        ({}, {"token_embd.weight": None}, "lacks token_embd.weight; name the first file"),
        ({}, {"blk.1.ffn_up.weight": "blk.1.ffn_up.wait"}, "lacks blk.1.ffn_up.weight"),
        ({}, {"output_norm.weight": "rope_freqs.weight"}, "scales its positions as no Llama 3 does"),
    ],
)
def test_what_is_not_read_is_refused(
    changes: dict[str, Any], names: dict[str, str | None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    save(path, decoder_of(LLAMA))
    with pytest.raises(InputError) as error:
        gguf.load_decoder(rewrite(path, changes, names))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_short_floats() -> None:
    assert gguf.short_float(float(np.float32(1e-5))) == 1e-5
    assert gguf.short_float(1000000.0) == 1000000.0
