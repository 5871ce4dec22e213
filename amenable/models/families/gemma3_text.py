"""Gemma 3 without images (Gemma Team, 2025): windows with a rotary base of their own in most layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.families.gemma import GELUS, gemma_parameters, read_gemma
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import (
    HEAD_NORMS,
    read_local_rope,
    read_window,
    write_llama,
    write_local_rope,
    write_window,
)

LANGUAGE_MODEL = "Gemma3ForCausalLM"
CLASSIFIER = "Gemma3TextForSequenceClassification"
NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    require_known(where, "hidden_activation", fields.get("hidden_activation"), GELUS)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        require_known(where, name, fields.get(name), (None,))
    fields, local = read_local_rope({"sliding_window": 4096, **fields}, 1e6, 1e4)
    period = fields.get("sliding_window_pattern", 6)
    kinds = [
        "sliding_attention" if (layer + 1) % period else "full_attention"
        for layer in range(fields["num_hidden_layers"])
    ]
    return read_gemma(
        fields,
        where,
        norm_placement="sandwich",
        qk_norm=True,
        query_pre_attn_scalar=fields.get("query_pre_attn_scalar", 256),
        local_rope_theta=local,
        **read_window(fields, kinds),
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    fields = write_llama(config)
    return fields | {
        "head_dim": config.head_size,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config.query_pre_attn_scalar or config.head_size,
        "rope_local_base_freq": config.local_rope_theta,
        **write_local_rope(config, fields),
        **write_window(config),
    }


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return gemma_parameters(config, NORMS | HEAD_NORMS)
