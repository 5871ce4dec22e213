"""OLMo 2 (Walsh et al., 2025): norms after attention and MLP, and on all queries and keys of a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import HEAD_NORMS, llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "Olmo2ForCausalLM"
CLASSIFIER = "Olmo2ForSequenceClassification"
NORMS = {"attention_out_norm": "post_attention_layernorm", "mlp_out_norm": "post_feedforward_layernorm"}


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    require_known(where, "attention_bias", fields.get("attention_bias", False), (False,))
    eps = fields.get("rms_norm_eps", 1e-5)
    return read_llama(fields, where, norm_placement="branch", qk_norm=True, qk_norm_over="heads", norm_eps=eps)


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"attention_bias": False}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config, NORMS | HEAD_NORMS)
