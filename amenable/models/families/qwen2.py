"""Qwen 2 and 2.5 (Yang et al., 2024): biases of queries, keys and values alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "Qwen2ForCausalLM"
CLASSIFIER = "Qwen2ForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    require_known(where, "use_sliding_window", fields.get("use_sliding_window", False), (False,))
    return read_llama(fields, where, qkv_bias=True)


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"use_sliding_window": False}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
