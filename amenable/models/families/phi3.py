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
    """Read the fields. A longrope changes all keys beyond its original context, which is the longest row here."""
    rope = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    share = rope.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
    head = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    longest = fields["max_position_embeddings"]
    if rope.get("rope_type", rope.get("type")) in ("longrope", "su", "yarn"):  # all three are longrope here
        original = rope.setdefault("original_max_position_embeddings", fields["original_max_position_embeddings"])
        rope |= {"rope_type": "longrope", "factor": rope.get("factor") or longest / original}
        longest = min(longest, original)
    return read_llama(
        {**fields, "rope_parameters": rope},
        where,
        context_length=longest,
        rotary_width=int(share * head),
        window=fields.get("sliding_window"),
        norm_eps=fields.get("rms_norm_eps", 1e-5),
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    fields, share = write_llama(config), config.rotary_size / config.head_size
    fields["rope_parameters"]["partial_rotary_factor"] = share
    own = {"partial_rotary_factor": share, "sliding_window": config.window, "head_dim": config.head_size}
    if config.rope_scaling is not None and config.rope_scaling.rope_type == "longrope":
        original = config.rope_scaling.original_max_position_embeddings
        own |= {"original_max_position_embeddings": original}
        own |= {"max_position_embeddings": round(config.rope_scaling.factor * original)}
    return fields | own | {"embd_pdrop": config.dropout, "resid_pdrop": config.dropout}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config, fused=FUSED)
