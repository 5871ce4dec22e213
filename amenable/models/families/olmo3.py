"""OLMo 3 (OLMo Team, 2025): OLMo 2 with a window in three layers of four, whose positions are never scaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.families import olmo2
from amenable.models.llama_like import read_local_rope, read_window, write_local_rope, write_window

LANGUAGE_MODEL = "Olmo3ForCausalLM"
CLASSIFIER = "Olmo3ForSequenceClassification"
parameters = olmo2.parameters


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    fields, local = read_local_rope({"sliding_window": 4096, **fields}, 5e5, 5e5)
    layers = range(fields["num_hidden_layers"])
    kinds = ["sliding_attention" if (layer + 1) % 4 else "full_attention" for layer in layers]
    return replace(olmo2.read(fields, where), local_rope_theta=local, **read_window(fields, kinds))


def write(config: DecoderConfig) -> dict[str, Any]:
    fields = olmo2.write(config)
    return fields | write_local_rope(config, fields) | write_window(config)
