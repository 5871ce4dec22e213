"""Conversion between DecoderConfig and transformers' config.json.

Dropout belongs to a training run, not to a model: config.json has it, `decoder_config` reads it as 0, and
`training_dropout` returns it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.family import family, model_types, stem

CONFIG = "config.json"
SPECIAL = {
    "a mixture of experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "soft caps on logits": ("attn_logit_softcapping", "final_logit_softcapping"),
    "an encoder and a decoder": ("is_encoder_decoder",),
    "code of its own, which is never run": ("auto_map",),
}
"""what a family that is not supported has, by the fields of config.json that show it"""


def model_type_of(config: DecoderConfig, origin: Mapping[str, Any] | None = None) -> str:
    """Return the model_type of a configuration: that of `origin`, the config.json it was loaded from, or else the first
    of the families that describes it. InputError if none does."""
    if origin is not None and describes(origin["model_type"], config):
        return stem(origin["model_type"])
    for model_type in model_types():
        if describes(model_type, config):
            return model_type
    names = "positions norm norm_placement activation bias qkv_bias qk_norm num_kv_heads mlp_width"
    mixture = ", ".join(f"{name}={getattr(config, name)}" for name in names.split())
    raise InputError(f"no published architecture is {mixture}", how="start from a preset, such as nano or gpt2")


def published_config(config: DecoderConfig, model_type: str) -> dict[str, Any]:
    """Return the fields of a language model's config.json, except special tokens and dtype."""
    return {
        "architectures": [family(model_type).LANGUAGE_MODEL],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": 0.02,
        **family(model_type).write(config),
    }


def describes(model_type: str, config: DecoderConfig) -> bool:
    """Return True if a family's config.json can say all of a configuration but its dropout."""
    try:
        return explicit(family(model_type).read(published_config(config, model_type), Path())) == explicit(config)
    except (InputError, KeyError):  # a field that this family alone needs
        return False


def explicit(config: DecoderConfig) -> DecoderConfig:
    """Return a configuration without dropout, and with values for fields that are None where others decide them."""
    local = tuple(layer for layer in range(config.num_layers) if config.window_of(layer) is not None)
    return replace(
        config,
        window=config.window if local else None,
        local_layers=local,
        nope_layers=tuple(sorted(set(config.nope_layers))),
        num_kv_heads=config.kv_head_count,
        head_width=config.head_size,
        mlp_width=config.mlp_size,
        qkv_bias=config.has_qkv_bias,
        rotary_width=config.rotary_size,
        query_pre_attn_scalar=config.query_pre_attn_scalar or config.head_size,
        dropout=0.0,
    )


def decoder_config(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    """Read config.json's fields. Raises InputError for an unsupported architecture or setting, naming `where`."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or stem(model_type) not in model_types():
        raise unknown_family(fields, where)
    try:
        return family(model_type).read(fields, where)
    except KeyError as missing:
        raise InputError(f"lacks {missing}", where) from None
    except TypeError as error:
        raise InputError(f"has a value of the wrong type: {error}", where) from None


def unknown_family(fields: Mapping[str, Any], where: Path) -> InputError:
    """Return the error for a model_type that no family has, with what is special in its config.json."""
    model_type, inner = str(fields.get("model_type")), fields.get("text_config")
    inside = str(inner.get("model_type", "text")) if isinstance(inner, Mapping) else ""
    signs = [sign for sign, names in SPECIAL.items() if any(fields.get(name) for name in names)]
    signs += [f"more than text around a {inside} model"] if inside else []
    near = difflib.get_close_matches(stem(inside or model_type), model_types(), n=1)
    special = f" ({'; '.join(signs)})" if signs else ""
    nearest = f"the nearest is {near[0]}; " if near else ""
    known = f"{nearest}supported are {', '.join(model_types())}"
    return InputError(f"model_type is '{model_type}'{special}", where, known)


def training_dropout(fields: Mapping[str, Any], where: Path) -> float:
    """Return the dropout of residual branches in config.json, or transformers' default: 0.1 for GPTs, else 0."""
    default = 0.1 if stem(str(fields.get("model_type"))) in ("gpt2", "openai_gpt") else 0.0
    value = fields.get("resid_pdrop", fields.get("hidden_dropout", default))
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"resid_pdrop is {value!r}", where, "it must lie in [0, 1)")
    return float(value)


def is_classifier(fields: Mapping[str, Any]) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in fields.get("architectures") or [])


def read_json_object(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", path, "name a folder that holds a model") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path) from None
    if not isinstance(fields, dict):
        raise InputError("is not a JSON object", path)
    return fields
