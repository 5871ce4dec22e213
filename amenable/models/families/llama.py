"""Llama 1 to 3 (Touvron et al., 2023; Grattafiori et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "LlamaForCausalLM"
CLASSIFIER = "LlamaForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    bias = fields.get("attention_bias", False)
    require_known(where, "attention_bias", bias, (fields.get("mlp_bias", False),))
    config = read_llama(fields, where, bias=bias, qkv_bias=bias)
    require_known(where, "hidden_size % num_attention_heads", config.hidden_size % config.num_heads, (0,))
    return config


def write(config: DecoderConfig) -> dict[str, Any]:
    own = {"head_dim": config.head_size, "attention_bias": config.bias, "mlp_bias": config.bias}
    return write_llama(config) | own


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
