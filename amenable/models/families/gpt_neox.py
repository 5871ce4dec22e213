"""GPT-NeoX and Pythia (Black et al., 2022; Biderman et al., 2023): attention and MLP side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known, unembedding
from amenable.models.llama_like import read_llama, write_llama

LANGUAGE_MODEL = "GPTNeoXForCausalLM"
CLASSIFIER = "GPTNeoXForSequenceClassification"
ACTIVATIONS = {
    "gelu": "exact_gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
}
OTHERS = ("num_key_value_heads", "rms_norm_eps", "rope_theta")
"""fields of Llama's that GPT-NeoX has not"""
MODULES = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention.qkv": "attention.query_key_value",
    "attention.out": "attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}


def read(fields: Mapping[str, Any], where: Path) -> DecoderConfig:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    share = rope.get("partial_rotary_factor", fields.get("rotary_pct", 0.25))
    activation = fields.get("hidden_act", "gelu")
    require_known(where, "hidden_act", activation, tuple(ACTIVATIONS))
    require_known(where, "attention_bias", fields.get("attention_bias", True), (True,))
    return read_llama(
        {"rope_theta": fields.get("rotary_emb_base", 10000.0), **fields},
        where,
        norm="layer",
        bias=True,
        parallel_residual=fields.get("use_parallel_residual", True),
        activation=ACTIVATIONS[activation],
        interleave_qkv=True,
        rotary_width=int(share * (fields["hidden_size"] // fields["num_attention_heads"])),
        norm_eps=fields.get("layer_norm_eps", 1e-5),
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    fields, share = write_llama(config), config.rotary_size / config.head_size
    fields["rope_parameters"]["partial_rotary_factor"] = share
    own = {
        "hidden_act": {"exact_gelu": "gelu", "gelu": "gelu_new"}.get(config.activation, config.activation),
        "use_parallel_residual": config.parallel_residual,
        "layer_norm_eps": config.norm_eps,
        "rotary_emb_base": config.rope_theta,
        "rotary_pct": share,
        "hidden_dropout": config.dropout,
    }
    return {name: value for name, value in fields.items() if name not in OTHERS} | own


def parameters(config: DecoderConfig) -> list[ParameterMap]:
    modules = {
        f"layers.{i}.{ours}": f"layers.{i}.{name}" for i in range(config.num_layers) for ours, name in MODULES.items()
    }
    modules["final_norm"] = "final_layer_norm"
    return [
        *unembedding(config, "embed_out.weight"),
        ParameterMap("token_embedding.weight", ("gpt_neox.embed_in.weight",)),
        *(
            ParameterMap(f"{ours}.{kind}", (f"gpt_neox.{name}.{kind}",))
            for ours, name in modules.items()
            for kind in ("weight", "bias")
        ),
    ]
