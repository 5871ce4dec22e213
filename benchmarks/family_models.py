"""Random models of transformers in odd shapes of every family: grouped queries, heads of another size than width by
number, windows shorter than a row, tied and untied, layers without rotary positions, partial rotation.

For the tests of models/families/ and the table of benchmarks/family_table.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from amenable.models.decoder import Decoder
from amenable.models.layout import Layout

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 7}
NEOX = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
PARTIAL = {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
FACTORS = {"short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 9.0]}
LONG = {
    "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS},
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
SLIDING, FULL = "sliding_attention", "full_attention"
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "gpt2": [GPT | {"n_inner": 80}, GPT | {"activation_function": "relu", "tie_word_embeddings": False}],
    "openai_gpt": [GPT],
    "llama": [LLAMA | {"head_dim": 12}, LLAMA | {"attention_bias": True, "mlp_bias": True}],
    "mistral": [LLAMA | {"head_dim": 12, "sliding_window": None}, LLAMA | {"sliding_window": 7}],
    "qwen2": [LLAMA | {"tie_word_embeddings": True}, LLAMA | WINDOW | {"max_window_layers": 1}],
    "qwen3": [
        LLAMA | {"head_dim": 12},
        LLAMA | WINDOW | {"head_dim": 16, "tie_word_embeddings": True, "layer_types": [SLIDING, FULL, SLIDING]},
    ],
    "gpt_neox": [
        NEOX | {"rotary_pct": 0.5, "hidden_act": "gelu"},
        NEOX
        | {"use_parallel_residual": False, "hidden_act": "gelu_new", "rotary_pct": 1.0, "tie_word_embeddings": True},
    ],
    "olmo2": [LLAMA, LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True}],
    "olmo3": [LLAMA | {"sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING], "rope_scaling": YARN}],
    "smollm3": [
        LLAMA | {"no_rope_layer_interval": 2},
        LLAMA | WINDOW | {"no_rope_layers": [1, 0, 1], "attention_bias": True, "mlp_bias": True},
    ],
    "phi3": [LLAMA | {"sliding_window": 7, "rope_parameters": PARTIAL}, LLAMA | LONG],
    "gemma": [LLAMA | {"head_dim": 12}],
    "gemma3_text": [
        LLAMA
        | {"head_dim": 12, "query_pre_attn_scalar": 20, "sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING]},
        LLAMA | {"head_dim": 8, "sliding_window": 64, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ],
}
"""shapes of each family, as its config.json has them; vocabulary and ids are those of `theirs`"""
LENGTHS = [5, 1, 40, 23]


def random_model(folder: Path, model_type: str, index: int, classifier: bool = False) -> Any:
    """Save a random model of transformers to a folder and return it; every parameter is away from its first value."""
    ids = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    labels = {"num_labels": 1} if classifier else {}
    published = model_type.replace("openai_gpt", "openai-gpt")
    config = transformers.AutoConfig.for_model(published, **ids, **SHAPES[model_type][index], **labels)
    torch.manual_seed(3)
    kind = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModelForCausalLM
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    model.save_pretrained(folder)
    return model


def tokens() -> torch.Tensor:
    """Return the ids of rows of LENGTHS, never 0, which is padding."""
    return torch.randint(1, 61, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))


def padded() -> torch.Tensor:
    """Return the rows as transformers takes them [B, T]."""
    return torch.nn.utils.rnn.pad_sequence(tokens().split(LENGTHS), batch_first=True)


def flat(rows: torch.Tensor) -> torch.Tensor:
    """Return the numbers [N, ...] of padded rows without their padding."""
    return torch.cat([rows[row, :length] for row, length in enumerate(LENGTHS)])


@torch.inference_mode()
def our_logits(decoder: Decoder) -> torch.Tensor:
    """Return logits [N, V] of the rows."""
    return decoder.logits(decoder(tokens(), Layout.of(LENGTHS)))


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers of a transformers model by name, without the unembedding."""
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    outputs = ("lm_head", "embed_out")
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds) and name not in outputs}


@torch.no_grad()
def merge_published(model: Any, folder: Path) -> None:
    """Add the products in an adapter's files to the weights of the layers of these names, as peft merges them."""
    fields = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = fields["lora_alpha"] / fields["r"]
    for name, module in linear_layers(model).items():
        a, b = (tensors[f"base_model.model.{name}.lora_{kind}.weight"] for kind in "AB")
        module.weight += scale * (b @ a).T if fields["fan_in_fan_out"] else scale * b @ a


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """Return transformers' greedy continuation of a prompt."""
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count, "eos_token_id": None}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return out[0, len(prompt) :].tolist()
