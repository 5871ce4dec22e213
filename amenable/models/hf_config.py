"""config.json of the published architectures, from our configuration and to it.

    GPT-1 OpenAIGPTLMHeadModel, GPT-2/3 GPT2LMHeadModel, Llama LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
    reward models and critics: the same names with ...ForSequenceClassification

Dropout belongs to a training run, not to a model: it is written, and read as 0; `training_dropout` tells what was
written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.models.config import DecoderConfig

CONFIG = "config.json"
LANGUAGE_MODELS = {
    "openai-gpt": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
CLASSIFIERS = {
    "openai-gpt": "OpenAIGPTForSequenceClassification",
    "gpt2": "GPT2ForSequenceClassification",
    "llama": "LlamaForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
}
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")


def family_of(config: DecoderConfig) -> str:
    """transformers' model_type for a configuration."""
    plain = config.kv_head_count == config.heads and config.head_size * config.heads == config.width
    gpt = plain and (config.positions, config.norm, config.qk_norm) == ("learned", "layer", False)
    if gpt and config.bias and config.has_qkv_bias and config.activation in ("gelu", "relu"):
        if config.norm_placement == "pre":
            return "gpt2"
        if config.mlp_size == 4 * config.width:
            return "openai-gpt"
    style = (config.positions, config.norm, config.norm_placement, config.activation)
    if style == ("rope", "rms", "pre", "swiglu"):
        if config.qk_norm and not config.bias and not config.has_qkv_bias:
            return "qwen3"
        if not config.qk_norm and config.bias == config.has_qkv_bias and config.width % config.heads == 0:
            return "llama"
        if not config.qk_norm and config.has_qkv_bias and config.head_size * config.heads == config.width:
            return "qwen2"
    names = (
        "positions",
        "norm",
        "norm_placement",
        "activation",
        "bias",
        "qkv_bias",
        "qk_norm",
        "kv_heads",
        "mlp_width",
    )
    mixture = ", ".join(f"{name}={getattr(config, name)}" for name in names)
    raise InputError(f"no published architecture is {mixture}", how="start from a preset, such as nano or gpt2")


def published_config(config: DecoderConfig, family: str) -> dict[str, Any]:
    """config.json of a language model, but for its special tokens and dtype."""
    facts: dict[str, Any] = {
        "architectures": [LANGUAGE_MODELS[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "initializer_range": 0.02,
    }
    if family in ("gpt2", "openai-gpt"):
        facts |= {
            "n_positions": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "layer_norm_epsilon": config.norm_eps,
            "embd_pdrop": config.dropout,
            "attn_pdrop": 0.0,
            "resid_pdrop": config.dropout,
        }
        if family == "gpt2":
            facts["activation_function"] = "gelu_new" if config.activation == "gelu" else "relu"
            facts["n_inner"] = config.mlp_size
        else:
            facts["afn"] = config.activation
        return facts
    facts |= {
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_head_count,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_dropout": 0.0,
    }
    if family != "qwen2":
        facts |= {"head_dim": config.head_size, "attention_bias": config.bias}
    if family == "llama":
        facts["mlp_bias"] = config.bias
    else:
        facts["use_sliding_window"] = False
    return facts


def decoder_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    """Our configuration from theirs. Raises InputError for an architecture or a setting that we do not have."""
    family = facts.get("model_type")
    if family not in LANGUAGE_MODELS:
        raise InputError(f"model_type is '{family}'", where, "we read " + ", ".join(LANGUAGE_MODELS))
    try:
        return gpt_config(facts, where) if family in ("gpt2", "openai-gpt") else llama_config(facts, where)
    except KeyError as missing:
        raise InputError(f"lacks {missing}", where) from None
    except TypeError as error:
        raise InputError(f"has a value of the wrong type: {error}", where) from None


def gpt_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    first = facts["model_type"] == "openai-gpt"
    activation = facts.get("afn", "gelu") if first else facts.get("activation_function", "gelu_new")
    # GPT-1's files say "gelu" for the tanh form
    known = {"relu": "relu"} | dict.fromkeys(("gelu",) if first else TANH_GELUS, "gelu")
    refuse(where, "activation", activation, tuple(known))
    refuse(where, "scale_attn_weights", facts.get("scale_attn_weights", True), (True,))
    refuse(where, "scale_attn_by_inverse_layer_idx", facts.get("scale_attn_by_inverse_layer_idx", False), (False,))
    return DecoderConfig(
        vocab_size=facts["vocab_size"],
        context=facts["n_positions"],
        layers=facts["n_layer"],
        width=facts["n_embd"],
        heads=facts["n_head"],
        mlp_width=facts.get("n_inner"),
        norm_placement="post" if first else "pre",
        activation="relu" if known[activation] == "relu" else "gelu",
        tied=facts.get("tie_word_embeddings", True),
        norm_eps=facts.get("layer_norm_epsilon", 1e-5),
    )


def llama_config(facts: Mapping[str, Any], where: Path) -> DecoderConfig:
    family = facts["model_type"]
    rope = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    refuse(where, "hidden_act", facts.get("hidden_act", "silu"), ("silu",))
    refuse(where, "rope type", rope.get("rope_type", rope.get("type", "default")), ("default",))
    refuse(where, "partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), (1.0,))
    refuse(where, "use_sliding_window", facts.get("use_sliding_window", False), (False,))
    bias = facts.get("attention_bias", False) and family != "qwen2"
    refuse(where, "attention_bias", bias, (facts.get("mlp_bias", False) if family == "llama" else False,))
    return DecoderConfig(
        vocab_size=facts["vocab_size"],
        context=facts["max_position_embeddings"],
        layers=facts["num_hidden_layers"],
        width=facts["hidden_size"],
        heads=facts["num_attention_heads"],
        kv_heads=facts.get("num_key_value_heads"),
        head_width=facts.get("head_dim", 128 if family == "qwen3" else None),
        mlp_width=facts["intermediate_size"],
        positions="rope",
        norm="rms",
        activation="swiglu",
        bias=bias,
        qkv_bias=True if family == "qwen2" else bias,
        qk_norm=family == "qwen3",
        tied=facts.get("tie_word_embeddings", False),
        rope_theta=rope.get("rope_theta", facts.get("rope_theta", 10000.0)),
        norm_eps=facts.get("rms_norm_eps", 1e-6),
    )


def training_dropout(facts: Mapping[str, Any], where: Path) -> float:
    """The dropout of residual branches that a config.json states for training: transformers' default for GPTs where it
    states none, and 0 for families that have no such dropout."""
    usual = 0.1 if facts.get("model_type") in ("gpt2", "openai-gpt") else 0.0
    value = facts.get("resid_pdrop", usual)
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise InputError(f"resid_pdrop is {value!r}", where, "it must lie in [0, 1)")
    return float(value)


def refuse(where: Path, name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}", where, "we have only " + " and ".join(repr(k) for k in known))


def is_classifier(facts: Mapping[str, Any]) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in facts.get("architectures") or [])


def read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", path, "name a folder that holds a model") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path) from None
    if not isinstance(facts, dict):
        raise InputError("is not a JSON object", path)
    return facts
