"""Conversion between DecoderConfig and transformers' config.json.

Dropout belongs to a training run, not to a model: config.json has it, `decoder_config` reads it as 0, and
`training_dropout` returns it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.rope import RopeScaling

CONFIG = "config.json"
LANGUAGE_MODELS = {
    "openai-gpt": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mistral": "MistralForCausalLM",
}
CLASSIFIERS = {
    model_type: name.replace("LMHeadModel", "").replace("ForCausalLM", "") + "ForSequenceClassification"
    for model_type, name in LANGUAGE_MODELS.items()
}
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")


def model_type_of(config: DecoderConfig) -> str:
    """Return transformers' model_type of a configuration. InputError if no published architecture has it."""
    plain = config.kv_head_count == config.num_heads and config.head_size * config.num_heads == config.hidden_size
    gpt = plain and (config.positions, config.norm, config.qk_norm) == ("learned", "layer", False)
    if gpt and config.bias and config.has_qkv_bias and config.activation in ("gelu", "relu"):
        if config.norm_placement == "pre":
            return "gpt2"
        if config.mlp_size == 4 * config.hidden_size:
            return "openai-gpt"
    style = (config.positions, config.norm, config.norm_placement, config.activation)
    if style == ("rope", "rms", "pre", "swiglu"):
        if config.qk_norm and not config.bias and not config.has_qkv_bias:
            return "qwen3"
        if not config.qk_norm and config.bias == config.has_qkv_bias and config.hidden_size % config.num_heads == 0:
            return "llama"
        if not config.qk_norm and config.has_qkv_bias and config.head_size * config.num_heads == config.hidden_size:
            return "qwen2"
    names = "positions norm norm_placement activation bias qkv_bias qk_norm num_kv_heads mlp_width"
    mixture = ", ".join(f"{name}={getattr(config, name)}" for name in names.split())
    raise InputError(f"no published architecture is {mixture}", how="start from a preset, such as nano or gpt2")


def published_config(config: DecoderConfig, model_type: str) -> dict[str, Any]:
    """Return the fields of a language model's config.json, except special tokens and dtype."""
    fields: dict[str, Any] = {
        "architectures": [LANGUAGE_MODELS[model_type]],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": 0.02,
    }
    if model_type in ("gpt2", "openai-gpt"):
        fields |= {
            "n_positions": config.context_length,
            "n_embd": config.hidden_size,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "layer_norm_epsilon": config.norm_eps,
            "embd_pdrop": config.dropout,
            "attn_pdrop": 0.0,
            "resid_pdrop": config.dropout,
        }
        if model_type == "gpt2":
            fields["activation_function"] = "gelu_new" if config.activation == "gelu" else "relu"
            fields["n_inner"] = config.mlp_size
        else:
            fields["afn"] = config.activation
        return fields
    fields |= {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_head_count,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **rope_fields(config)},
        "attention_dropout": 0.0,
    }
    if model_type != "qwen2":
        fields |= {"head_dim": config.head_size, "attention_bias": config.bias}
    if model_type == "llama":
        fields["mlp_bias"] = config.bias
    else:
        fields["use_sliding_window"] = False
    return fields


def decoder_config(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    """Read config.json's fields. Raises InputError for an unsupported architecture or setting, naming `where`."""
    model_type = fields.get("model_type")
    if model_type not in LANGUAGE_MODELS:
        raise InputError(f"model_type is '{model_type}'", where, "supported are " + ", ".join(LANGUAGE_MODELS))
    try:
        return gpt_config(fields, where) if model_type in ("gpt2", "openai-gpt") else llama_config(fields, where)
    except KeyError as missing:
        raise InputError(f"lacks {missing}", where) from None
    except TypeError as error:
        raise InputError(f"has a value of the wrong type: {error}", where) from None


def gpt_config(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    is_gpt1 = fields["model_type"] == "openai-gpt"
    activation = fields.get("afn", "gelu") if is_gpt1 else fields.get("activation_function", "gelu_new")
    # GPT-1's "gelu" is the tanh form
    require_known(where, "activation", activation, ("relu", "gelu") if is_gpt1 else ("relu", *TANH_GELUS))
    require_known(where, "scale_attn_weights", fields.get("scale_attn_weights", True), (True,))
    require_known(
        where, "scale_attn_by_inverse_layer_idx", fields.get("scale_attn_by_inverse_layer_idx", False), (False,)
    )
    return DecoderConfig(
        vocab_size=fields["vocab_size"],
        context_length=fields["n_positions"],
        num_layers=fields["n_layer"],
        hidden_size=fields["n_embd"],
        num_heads=fields["n_head"],
        mlp_width=fields.get("n_inner"),
        norm_placement="post" if is_gpt1 else "pre",
        activation="relu" if activation == "relu" else "gelu",
        tie_embeddings=fields.get("tie_word_embeddings", True),
        norm_eps=fields.get("layer_norm_epsilon", 1e-5),
    )


def llama_config(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    model_type = fields["model_type"]
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    require_known(where, "hidden_act", fields.get("hidden_act", "silu"), ("silu",))
    require_known(where, "partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), (1.0,))
    require_known(where, "use_sliding_window", fields.get("use_sliding_window", False), (False,))
    try:
        scaling = RopeScaling.read(rope, fields["max_position_embeddings"])
    except ValueError as error:
        raise InputError(str(error), where) from None
    bias = fields.get("attention_bias", False) and model_type != "qwen2"
    require_known(where, "attention_bias", bias, (fields.get("mlp_bias", False) if model_type == "llama" else False,))
    return DecoderConfig(
        vocab_size=fields["vocab_size"],
        context_length=context_of(fields),
        num_layers=fields["num_hidden_layers"],
        hidden_size=fields["hidden_size"],
        num_heads=fields["num_attention_heads"],
        num_kv_heads=fields.get("num_key_value_heads"),
        head_width=fields.get("head_dim", 128 if model_type == "qwen3" else None),
        mlp_width=fields["intermediate_size"],
        positions="rope",
        norm="rms",
        activation="swiglu",
        bias=bias,
        qkv_bias=True if model_type == "qwen2" else bias,
        qk_norm=model_type == "qwen3",
        tie_embeddings=fields.get("tie_word_embeddings", False),
        rope_theta=rope.get("rope_theta", fields.get("rope_theta", 10000.0)),
        rope_scaling=scaling,
        norm_eps=fields.get("rms_norm_eps", 1e-6),
    )


def context_of(fields: Mapping[str, Any]) -> int:
    """Return the longest row. Mistral's attention window is never left: rows are at most as long as the window."""
    window = fields.get("sliding_window", 4096) if fields["model_type"] == "mistral" else None
    return min(fields["max_position_embeddings"], window or fields["max_position_embeddings"])


def rope_fields(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields of rope_parameters that a scaling of positions adds."""
    return config.rope_scaling.published() if config.rope_scaling is not None else {}


def training_dropout(fields: Mapping[str, Any], where: Path) -> float:
    """Return the dropout of residual branches in config.json, or transformers' default: 0.1 for GPTs, else 0."""
    default = 0.1 if fields.get("model_type") in ("gpt2", "openai-gpt") else 0.0
    value = fields.get("resid_pdrop", default)
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"resid_pdrop is {value!r}", where, "it must lie in [0, 1)")
    return float(value)


def require_known(where: Path, name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}", where, "supported: " + " and ".join(map(repr, known)))


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
