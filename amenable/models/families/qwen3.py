"""Qwen 3 (Yang et al., 2025): an RMS norm on every query and key head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.families.qwen2 import read_qwen_window, write_qwen_window
from amenable.models.family import ParameterMap, require_known
from amenable.models.llama_like import HEAD_NORMS, NORMS, llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "Qwen3ForCausalLM"
CLASSIFIER = "Qwen3ForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    require_known(where, "attention_bias", fields.get("attention_bias", False), (False,))
    return read_llama(fields, where, head_width=fields.get("head_dim", 128), qk_norm=True, **read_qwen_window(fields))


def write(config: DecoderConfig) -> dict[str, Any]:
    own = {"head_dim": config.head_size, "attention_bias": False}
    return write_llama(config) | own | write_qwen_window(config)


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config, NORMS | HEAD_NORMS)
