"""SmolLM3 (Bakouch et al., 2025): every fourth layer without rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import llama_parameters, read_llama, read_window, write_llama, write_window

LANGUAGE_MODEL = "SmolLM3ForCausalLM"
CLASSIFIER = "SmolLM3ForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    bias, count = fields.get("attention_bias", False), fields["num_hidden_layers"]
    require_known(where, "mlp_bias", fields.get("mlp_bias", False), (bias,))
    interval = fields.get("no_rope_layer_interval", 4)
    rotates = fields.get("no_rope_layers") or [(layer + 1) % interval for layer in range(count)]
    nope = tuple(layer for layer in range(count) if not rotates[layer])
    kinds = ["full_attention" if rotates[layer] else "sliding_attention" for layer in range(count)]
    return read_llama(
        {"rope_theta": 2e6, "tie_word_embeddings": True, **fields},
        where,
        bias=bias,
        qkv_bias=bias,
        nope_layers=nope,
        **(read_window(fields, kinds) if fields.get("use_sliding_window") else {}),
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    rotates = [int(layer not in config.nope_layers) for layer in range(config.num_layers)]
    own = {"no_rope_layers": rotates, "attention_bias": config.bias, "mlp_bias": config.bias}
    window = {"use_sliding_window": config.window is not None, **write_window(config)}
    return write_llama(config) | own | window


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
