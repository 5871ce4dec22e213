"""GPT-2, and GPT-3 by the same architecture (Radford et al., 2019; Brown et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known, unembedding

LANGUAGE_MODEL = "GPT2LMHeadModel"
CLASSIFIER = "GPT2ForSequenceClassification"
ACTIVATIONS = {"gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    activation = fields.get("activation_function", "gelu_new")
    require_known(where, "activation", activation, tuple(ACTIVATIONS))
    require_known(where, "scale_attn_weights", fields.get("scale_attn_weights", True), (True,))
    by_layer = fields.get("scale_attn_by_inverse_layer_idx", False)
    require_known(where, "scale_attn_by_inverse_layer_idx", by_layer, (False,))
    return DecoderConfig(**sizes(fields), mlp_width=fields.get("n_inner"), activation=ACTIVATIONS[activation])  # type: ignore[arg-type]


def write(config: DecoderConfig) -> dict[str, Any]:
    activation = "gelu_new" if config.activation == "gelu" else config.activation
    return {**size_fields(config), "activation_function": activation, "n_inner": config.mlp_size}


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    final = [ParameterMap(f"final_norm.{kind}", (f"transformer.ln_f.{kind}",)) for kind in ("weight", "bias")]
    return layer_parameters(config, "wte", "wpe") + final


def sizes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that GPT-1 and GPT-2 have in common."""
    return {
        "vocab_size": fields["vocab_size"],
        "context_length": fields["n_positions"],
        "num_layers": fields["n_layer"],
        "hidden_size": fields["n_embd"],
        "num_heads": fields["n_head"],
        "tie_embeddings": fields.get("tie_word_embeddings", True),
        "norm_eps": fields.get("layer_norm_epsilon", 1e-5),
    }


def size_fields(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields of `sizes`, and of dropout."""
    return {
        "n_positions": config.context_length,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "resid_pdrop": config.dropout,
    }


def layer_parameters(config: DecoderConfig, tokens: str, positions: str) -> list[ParameterMap]:
    """Map embeddings and layers. Published linear layers store weights as [in, out]."""
    entries = [
        *unembedding(config),
        ParameterMap("token_embedding.weight", (f"transformer.{tokens}.weight",)),
        ParameterMap("position_embedding.weight", (f"transformer.{positions}.weight",)),
    ]
    linears = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc"}
    linears["mlp.down"] = "mlp.c_proj"
    norms = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
    for i in range(config.num_layers):
        for ours, theirs in (linears | norms).items():
            name = f"transformer.h.{i}.{theirs}"
            entries.append(ParameterMap(f"layers.{i}.{ours}.weight", (f"{name}.weight",), transposed=ours in linears))
            entries.append(ParameterMap(f"layers.{i}.{ours}.bias", (f"{name}.bias",)))
    return entries
