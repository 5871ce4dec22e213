"""Mistral (Jiang et al., 2023); rows are as long as its attention window, which they never leave."""

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
    context = fields["max_position_embeddings"]
    return read_llama(fields, where, context_length=min(context, fields.get("sliding_window", 4096) or context))


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"head_dim": config.head_size, "sliding_window": None}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return llama_parameters(config)
