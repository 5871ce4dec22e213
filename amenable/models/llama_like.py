"""Names of config.json's fields and of tensors that Llama and the families like it share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.models.config import DecoderConfig
from amenable.models.family import ParameterMap, require_known, unembedding
from amenable.models.rope import RopeScaling

NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
HEAD_NORMS = {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}


def read_llama(fields: Mapping[str, Any], where: Path, **differences: Any) -> DecoderConfig:
    """Read config.json's fields; `differences` are fields of DecoderConfig that a family has otherwise than Llama."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if "activation" not in differences:
        require_known(where, "hidden_act", fields.get("hidden_act", "silu"), ("silu",))
    if "rotary_width" not in differences:
        require_known(where, "partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), (1.0,))
    try:
        scaling = RopeScaling.read(rope, fields["max_position_embeddings"])
    except ValueError as error:
        raise InputError(str(error), where) from None
    llama = {
        "vocab_size": fields["vocab_size"],
        "context_length": fields["max_position_embeddings"],
        "num_layers": fields["num_hidden_layers"],
        "hidden_size": fields["hidden_size"],
        "num_heads": fields["num_attention_heads"],
        "num_kv_heads": fields.get("num_key_value_heads"),
        "head_width": fields.get("head_dim"),
        "mlp_width": fields["intermediate_size"],
        "positions": "rope",
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "tie_embeddings": fields.get("tie_word_embeddings", False),
        "rope_theta": rope.get("rope_theta", fields.get("rope_theta", 10000.0)),
        "rope_scaling": scaling,
        "norm_eps": fields.get("rms_norm_eps", 1e-6),
    }
    return DecoderConfig(**llama | differences)


def write_llama(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields that `read_llama` reads."""
    scaling = config.rope_scaling.published() if config.rope_scaling is not None else {}
    return {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_head_count,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **scaling},
        "attention_dropout": 0.0,
    }


def read_window(fields: Mapping[str, Any], layer_types: Sequence[str]) -> dict[str, Any]:
    """Read sliding_window and layer_types, or these `layer_types` where the fields have none."""
    layer_types = fields.get("layer_types") or layer_types
    local = tuple(layer for layer, kind in enumerate(layer_types) if kind == "sliding_attention")
    window = fields.get("sliding_window") if local else None
    return {"window": window, "local_layers": None if window is None or len(local) == len(layer_types) else local}


def read_local_rope(fields: Mapping[str, Any], theta: float, local_theta: float) -> tuple[dict[str, Any], float]:
    """Return the fields with the rotary positions of layers without a window as those of Llama, and the base of layers
    with one; `theta` and `local_theta` where the fields have none."""
    rope = fields.get("rope_parameters") or {}
    local = rope.get("sliding_attention") or {}
    full = rope.get("full_attention") or fields.get("rope_scaling") or {}
    own = {"rope_theta": theta, **fields, "rope_parameters": full}
    return own, local.get("rope_theta", fields.get("rope_local_base_freq", local_theta))


def write_local_rope(config: DecoderConfig, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return rope_parameters of both kinds of layers, from the `fields` of `write_llama`."""
    local = {"rope_type": "default", "rope_theta": config.local_rope_theta}
    return {"rope_parameters": {"full_attention": fields["rope_parameters"], "sliding_attention": local}}


def write_window(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields that `read_window` reads."""
    windows = [config.window_of(layer) for layer in range(config.num_layers)]
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    return {"sliding_window": config.window, "layer_types": kinds}


def llama_parameters(
    config: DecoderConfig, norms: Mapping[str, str] = NORMS, fused: Mapping[str, str] | None = None
) -> list[ParameterMap]:
    """Map our parameter names to Llama's; `norms` of a layer by our names, and the names of products that are `fused`
    as ours are."""
    entries = [
        *unembedding(config),
        ParameterMap("token_embedding.weight", ("model.embed_tokens.weight",)),
        ParameterMap("final_norm.weight", ("model.norm.weight",)),
    ]
    queries, keys = config.num_heads * config.head_size, config.kv_head_count * config.head_size
    linears: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
        "attention.qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), (queries, keys, keys)),
        "attention.out": (("self_attn.o_proj",), ()),
        "mlp.up": (("mlp.gate_proj", "mlp.up_proj"), (config.mlp_size, config.mlp_size)),
        "mlp.down": (("mlp.down_proj",), ()),
    }
    linears |= {ours: ((name,), ()) for ours, name in (fused or {}).items()}
    for i in range(config.num_layers):
        for ours, (theirs, sizes) in linears.items():
            biased = config.has_qkv_bias if ours == "attention.qkv" else config.bias
            for kind in ("weight", "bias") if biased else ("weight",):
                names = tuple(f"model.layers.{i}.{name}.{kind}" for name in theirs)
                entries.append(ParameterMap(f"layers.{i}.{ours}.{kind}", names, sizes))
        for ours, name in norms.items():
            entries.append(ParameterMap(f"layers.{i}.{ours}.weight", (f"model.layers.{i}.{name}.weight",)))
    return entries
