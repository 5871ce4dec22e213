"""Gemma (Gemma Team, 2024): scaled embeddings, a gate of GELU, gains of norms stored as 1 less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import NORMS, llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "GemmaForCausalLM"
CLASSIFIER = "GemmaForSequenceClassification"
GELUS = ("gelu", "gelu_pytorch_tanh", None)  # all of them the tanh form


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    for name in ("hidden_act", "hidden_activation"):
        require_known(where, name, fields.get(name), GELUS)
    return read_gemma(fields, where)


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"head_dim": config.head_size, "hidden_act": "gelu_pytorch_tanh"}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return gemma_parameters(config, NORMS)


def read_gemma(fields: Mapping[str, Any], where: Path, **differences: Any) -> DecoderConfig:
    """Read the fields that Gemmas have in common."""
    require_known(where, "attention_bias", fields.get("attention_bias", False), (False,))
    bidirectional = fields.get("use_bidirectional_attention") or False
    require_known(where, "use_bidirectional_attention", bidirectional, (False,))
    defaults = {"head_dim": 256, "tie_word_embeddings": True}
    return read_llama({**defaults, **fields}, where, activation="geglu", scale_embeddings=True, **differences)


def gemma_parameters(config: DecoderConfig, norms: Mapping[str, str]) -> list[ParameterMap]:
    """Map our parameter names to Gemma's."""
    entries = llama_parameters(config, norms)
    return [replace(entry, offset=1.0) if "norm" in entry.ours else entry for entry in entries]
