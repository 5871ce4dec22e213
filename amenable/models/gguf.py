"""Decoders in GGUF files: llama.cpp's names and layout of what config.json and safetensors hold.

Llama's queries and keys have their rows in pairs there, as its rotation takes a head's width two by two, where
transformers' takes the two halves: row 2i + j of a head is row i + j W / 2 here. Rotary scaling of Llama 3.1 is a
vector of the frequencies' divisors, rope_freqs.weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import COPY_IT, FILE_TYPES, GGUFFile, Kind, gguf_package, write_gguf
from amenable.models.hf_config import decoder_config, describes, model_type_of
from amenable.models.hf_weights import ParameterMap, parameter_map, shortened
from amenable.models.rope import RopeScaling

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2")
"""llama.cpp's architectures that are read and written; their names are transformers' model_types"""
ROPE_FREQS = "rope_freqs.weight"
LLAMA3_FACTORS = (8.0, 32.0)
"""published factors of rope_type llama3: Llama 3.1, and Llama 3.2"""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def load_decoder(file: GGUFFile) -> Decoder:
    """Load a GGUF file's decoder in fp32. InputError for another architecture, and for missing or unknown tensors."""
    fields = published_fields(file)
    config = decoder_config(fields, file.path)
    names = gguf_names(config, fields["model_type"])
    known = {name for each in names.values() for name in each} | {ROPE_FREQS, "output.weight"}
    tensors = set(file.tensors)
    if missing := sorted(known - {ROPE_FREQS, "output.weight"} - tensors):
        raise InputError(f"lacks {shortened(missing)}", file.path)
    if unknown := sorted(tensors - known):
        raise InputError(f"holds {shortened(unknown)}, which no {fields['model_type']} model has", file.path)
    decoder = Decoder(config, device="meta")
    shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}
    state = {}
    for entry, theirs in names.items():
        sizes = entry.sizes or shapes[entry.ours][:1]
        parts = []
        for name, size in zip(theirs, sizes):
            stored, shape = file.tensors[name].shape, (size, *shapes[entry.ours][1:])
            if stored != shape:
                raise InputError(f"{name} is {list(stored)} where the metadata say {list(shape)}", file.path)
            parts.append(split_halves(file.tensor(name), heads_of(name, config, fields["model_type"])))
        state[entry.ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
    decoder.load_state_dict(state, assign=True)
    return decoder


def save_decoder(
    path: Path, decoder: Decoder, kind: Kind, metadata: Mapping[str, Any], general: Mapping[str, Any]
) -> list[str]:
    """Write a decoder as a GGUF file, with a tokenizer's `metadata` and `general` facts (name, license ...) by key.

    Returns the names of the matrices that are f16 since q8_0 cannot have their shape. InputError for a decoder that
    llama.cpp has no architecture for.
    """
    architecture, config = architecture_of(decoder.config), without_window(decoder.config)
    state = decoder.state_dict()
    shapes, parameters = dict[str, tuple[int, ...]](), list[tuple[str, str, slice]]()
    for entry, theirs in gguf_names(config, architecture).items():
        rows, first = tuple(state[entry.ours].shape), 0
        for name, size in zip(theirs, entry.sizes or rows[:1]):
            shapes[name] = (size, *rows[1:])
            parameters.append((name, entry.ours, slice(first, first + size)))
            first += size
    extra = {} if rope_divisors(config) is None else {ROPE_FREQS: rope_divisors(config)}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, divisors in extra.items():
            assert divisors is not None
            yield name, divisors
        for name, ours, rows in parameters:
            yield name, join_pairs(state[ours][rows].cpu(), heads_of(name, config, architecture))

    kinds = {"general.type": "model", "general.file_type": FILE_TYPES[kind], "general.quantization_version": 2}
    facts = {"general.architecture": architecture, **kinds, **general, **model_metadata(config, architecture)}
    extra_shapes = {name: tuple(divisors.shape) for name, divisors in extra.items() if divisors is not None}
    return write_gguf(path, {**facts, **metadata}, {**extra_shapes, **shapes}, tensors(), kind)


def architecture_of(config: DecoderConfig) -> str:
    """Return llama.cpp's name of a configuration's architecture. InputError if it has none."""
    plain = without_window(config)
    architecture = next((name for name in ARCHITECTURES if describes(name, plain)), None)
    if architecture is None:
        problem = f"llama.cpp's architecture of {model_type_of(config)} is not written"
        raise InputError(problem, how="these can be exported: " + ", ".join(ARCHITECTURES))
    if config.activation == "relu":
        raise InputError("llama.cpp's gpt2 has no relu", how="train a model with gelu, as the preset gpt2 has")
    scaling = config.rope_scaling
    if scaling is not None and scaling.rope_type == "yarn" and yarn(scaling) != scaling:
        raise InputError("llama.cpp has no such yarn scaling of positions", how="export it as a folder, without --gguf")
    return architecture


def without_window(config: DecoderConfig) -> DecoderConfig:
    """Return a configuration without a window of attention, which llama.cpp does not have in these architectures: its
    context is at most the window, within which both are the same."""
    return replace(
        config,
        window=None,
        local_layers=None,
        context_length=min(config.context_length, config.window or config.context_length),
    )


def gguf_names(config: DecoderConfig, architecture: str) -> dict[ParameterMap, tuple[str, ...]]:
    """Map each of our parameters to llama.cpp's names of its published tensors."""
    package = gguf_package()
    by_name = {name: arch for arch, name in package.MODEL_ARCH_NAMES.items()}
    names = package.get_tensor_name_map(by_name[architecture], config.num_layers)
    translate: Callable[[str], str] = lambda name: names.get_name(name, try_suffixes=(".weight", ".bias"))  # noqa: E731
    return {entry: tuple(map(translate, entry.theirs)) for entry in parameter_map(config, architecture)}


def heads_of(name: str, config: DecoderConfig, architecture: str) -> int:
    """Return the number of heads whose rows llama.cpp has in pairs; 0 for a tensor that it leaves as it is."""
    if architecture != "llama":
        return 0
    kind = name.split(".")[-2]
    return {"attn_q": config.num_heads, "attn_k": config.kv_head_count}.get(kind, 0)


def split_halves(tensor: Tensor, heads: int) -> Tensor:
    """Return rows that are in pairs as two halves a head."""
    if not heads:
        return tensor
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def join_pairs(tensor: Tensor, heads: int) -> Tensor:
    """Return rows that are two halves a head in pairs."""
    if not heads:
        return tensor
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def model_metadata(config: DecoderConfig, architecture: str) -> dict[str, Any]:
    """Return the metadata of an architecture's sizes, by key."""
    values: dict[str, Any] = {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.mlp_size,
        "attention.head_count": config.num_heads,
        "vocab_size": config.vocab_size,
    }
    if architecture == "gpt2":
        values["attention.layer_norm_epsilon"] = float(config.norm_eps)
    else:
        values |= {
            "attention.head_count_kv": config.kv_head_count,
            "attention.key_length": config.head_size,
            "attention.value_length": config.head_size,
            "attention.layer_norm_rms_epsilon": float(config.norm_eps),
            "rope.dimension_count": config.head_size,
            "rope.freq_base": float(config.rope_theta),
        }
        scaling = config.rope_scaling
        if scaling is not None and scaling.rope_type in ("linear", "yarn"):
            values |= {"rope.scaling.type": scaling.rope_type, "rope.scaling.factor": float(scaling.factor)}
            if scaling.rope_type == "yarn":
                values["rope.scaling.original_context_length"] = scaling.original_max_position_embeddings
    return {f"{architecture}.{name}": value for name, value in values.items()}


def published_fields(file: GGUFFile) -> dict[str, Any]:
    """Return the fields of config.json that a GGUF file's metadata and tensors say. InputError for what is not read."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"its architecture is '{architecture}'", file.path, "these are read: " + ", ".join(ARCHITECTURES)
        )

    def value(name: str, default: Any = None) -> Any:
        key = f"{architecture}.{name}"
        stored = file.metadata.get(key, default)
        if stored is None:
            raise InputError(f"lacks {key}", file.path)
        if isinstance(stored, bool) or not isinstance(stored, (int, float, str)):
            raise InputError(f"{key} is not a number", file.path, "such models are not read")
        return short_float(stored) if isinstance(stored, float) else stored

    if "token_embd.weight" not in file.tensors:
        raise InputError("lacks token_embd.weight", file.path, "name the first file of a model, with all its weights")
    tied = "output.weight" not in file.tensors or file.same_bytes("output.weight", "token_embd.weight")
    if value("block_count") > len(file.tensors):
        raise InputError(f"has {len(file.tensors)} tensors for {value('block_count')} layers", file.path, COPY_IT)
    heads, width = value("attention.head_count"), value("embedding_length")
    fields: dict[str, Any] = {
        "model_type": architecture,
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": tied,
    }
    if architecture == "gpt2":
        return fields | {
            "n_positions": value("context_length"),
            "n_embd": width,
            "n_layer": value("block_count"),
            "n_head": heads,
            "n_inner": value("feed_forward_length", 4 * width),
            "layer_norm_epsilon": value("attention.layer_norm_epsilon"),
        }
    biased = architecture == "llama" and "blk.0.attn_q.bias" in file.tensors
    return fields | {
        "max_position_embeddings": value("context_length"),
        "hidden_size": width,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", width // max(heads, 1)),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "attention_bias": biased,
        "mlp_bias": biased,
        "rope_parameters": {"rope_theta": value("rope.freq_base", 10000.0), **rope_parameters(file, value)},
    }


def rope_parameters(file: GGUFFile, value: Callable[..., Any]) -> dict[str, Any]:
    """Return the scaling of rotary positions that a file says, with transformers' names."""
    width = value("attention.key_length", value("embedding_length") // max(value("attention.head_count"), 1))
    if value("rope.dimension_count", width) != width:
        raise InputError("rotates a part of each head", file.path, "such models are not read")
    if ROPE_FREQS in file.tensors:
        return llama3_parameters(file, value("rope.freq_base", 10000.0))
    kind = value("rope.scaling.type", "none")
    if kind == "none":
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn"):
        raise InputError(f"its positions are scaled by {kind}", file.path, "linear, yarn and Llama 3's are read")
    fields = {"rope_type": kind, "factor": value("rope.scaling.factor")}
    if kind == "yarn":
        fields["original_max_position_embeddings"] = value("rope.scaling.original_context_length")
    return fields


def llama3_parameters(file: GGUFFile, theta: float) -> dict[str, Any]:
    """Return the published scaling of rope_type llama3 whose divisors a file holds."""
    divisors = file.tensor(ROPE_FREQS)
    for factor in LLAMA3_FACTORS:
        scaling = RopeScaling("llama3", factor, **LLAMA3)  # type: ignore[arg-type]
        if torch.allclose(divisors_of(scaling, 2 * len(divisors), theta), divisors, rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3}
    raise InputError("scales its positions as no Llama 3 does", file.path, "such models are not read")


def rope_divisors(config: DecoderConfig) -> Tensor | None:
    """Return the divisors [W / 2] of the rotary frequencies of rope_type llama3, else None."""
    if config.rope_scaling is None or config.rope_scaling.rope_type != "llama3":
        return None
    return divisors_of(config.rope_scaling, config.head_size, config.rope_theta)


def divisors_of(scaling: RopeScaling, width: int, theta: float) -> Tensor:
    """Return the unscaled over the scaled frequencies, [W / 2]."""
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    return frequencies / scaling.scale(frequencies, theta)


def yarn(scaling: RopeScaling) -> RopeScaling:
    """Return the yarn scaling that llama.cpp computes from a factor and an original context."""
    return RopeScaling("yarn", scaling.factor, scaling.original_max_position_embeddings)


def short_float(value: float) -> float:
    """Return the shortest decimal number that is the same in fp32."""
    return float(str(np.float32(value)))
