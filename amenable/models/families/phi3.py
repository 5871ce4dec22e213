"""Phi-3 and Phi-4 (Abdin et al., 2024): queries, keys and values in one product, gate and up in another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap
from amenable.models.llama_like import llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "Phi3ForCausalLM"
CLASSIFIER = "Phi3ForSequenceClassification"
FUSED = {"attention.qkv": "self_attn.qkv_proj", "mlp.up": "mlp.gate_up_proj"}


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    share = rope.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
    head = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    window, eps = fields.get("sliding_window"), fields.get("rms_norm_eps", 1e-5)
    return read_llama(fields, where, rotary_width=int(share * head), window=window, norm_eps=eps)


def write(config: DecoderConfig) -> dict[str, Any]:
    fields, share = write_llama(config), config.rotary_size / config.head_size
    fields["rope_parameters"]["partial_rotary_factor"] = share
    own = {"partial_rotary_factor": share, "sliding_window": config.window, "head_dim": config.head_size}
    return fields | own | {"embd_pdrop": config.dropout, "resid_pdrop": config.dropout}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config, fused=FUSED)
