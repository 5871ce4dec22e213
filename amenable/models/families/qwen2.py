"""Qwen 2 and 2.5 (Yang et al., 2024): biases of queries, keys and values alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap
from amenable.models.llama_like import llama_parameters, read_llama, read_window, write_llama, write_window

LANGUAGE_MODEL = "Qwen2ForCausalLM"
CLASSIFIER = "Qwen2ForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    return read_llama(fields, where, qkv_bias=True, **read_qwen_window(fields))


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | write_qwen_window(config)


def read_qwen_window(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read the window of the layers from max_window_layers on, if it is used."""
    if not fields.get("use_sliding_window"):
        return {}
    first, layers = fields.get("max_window_layers", 28), range(fields["num_hidden_layers"])
    kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in layers]
    return read_window({"sliding_window": 4096, **fields}, kinds)


def write_qwen_window(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields that `read_qwen_window` reads."""
    if config.window is None:
        return {"use_sliding_window": False}
    first = min(config.local_layers or (0,))
    return {"use_sliding_window": True, "max_window_layers": first, **write_window(config)}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
