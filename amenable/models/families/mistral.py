"""Mistral (Jiang et al., 2023): attention to a window of the last tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap
from amenable.models.llama_like import llama_parameters, read_llama, write_llama

LANGUAGE_MODEL = "MistralForCausalLM"
CLASSIFIER = "MistralForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    return read_llama(fields, where, window=fields.get("sliding_window", 4096))


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"head_dim": config.head_size, "sliding_window": config.window}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
