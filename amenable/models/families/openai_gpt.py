"""GPT-1 (Radford et al., 2018): a norm after each sublayer, none at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.families.gpt2 import layer_parameters, size_fields, sizes
from amenable.models.family import ParameterMap, require_known

LANGUAGE_MODEL = "OpenAIGPTLMHeadModel"
CLASSIFIER = "OpenAIGPTForSequenceClassification"


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    activation = fields.get("afn", "gelu")  # its "gelu" is the tanh form
    require_known(where, "activation", activation, ("relu", "gelu"))
    return DecoderConfig(**sizes(fields), norm_placement="post", activation=activation)


def write(config: DecoderConfig) -> dict[str, Any]:
    return {"model_type": "openai-gpt", **size_fields(config), "afn": config.activation}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    return layer_parameters(config, "tokens_embed", "positions_embed")
