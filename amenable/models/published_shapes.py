"""Shapes of published models by name, from their config.json: sizes for plans, where no folder of the model is needed.

name  vocabulary, width, layers, heads, heads of keys and values, width of the MLP, context, then what differs
"""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path

from amenable.errors import InputError
from amenable.models import hf_config
from amenable.models.config import DecoderConfig
from amenable.models.presets import PRESETS


def llama(
    vocab: int, width: int, layers: int, heads: int, kv_heads: int, mlp: int, context: int, **differences: object
) -> DecoderConfig:
    """Return a shape of Llama's architecture (Touvron et al., 2023), with `differences` in fields of DecoderConfig."""
    fields: dict[str, object] = {
        "context_length": context,
        "num_layers": layers,
        "hidden_size": width,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "mlp_width": mlp,
        "positions": "rope",
        "norm": "rms",
        "activation": "swiglu",
        "bias": False,
        "tie_embeddings": False,
    }
    return DecoderConfig(vocab, **fields | differences)  # type: ignore[arg-type]


qwen2 = partial(llama, qkv_bias=True)
qwen3 = partial(llama, 151936, context=40960, head_width=128, qk_norm=True)
gemma = partial(llama, 256000, context=8192, head_width=256, activation="geglu", tie_embeddings=True)
gemma3 = partial(
    llama,
    262144,
    context=32768,
    head_width=256,
    activation="geglu",
    tie_embeddings=True,
    qk_norm=True,
    norm_placement="sandwich",
)
pythia = partial(
    DecoderConfig,
    context_length=2048,
    positions="rope",
    parallel_residual=True,
    activation="exact_gelu",
    tie_embeddings=False,
)

PUBLISHED = {
    "Qwen2.5-0.5B": qwen2(151936, 896, 24, 14, 2, 4864, 32768, tie_embeddings=True),
    "Qwen2.5-1.5B": qwen2(151936, 1536, 28, 12, 2, 8960, 32768, tie_embeddings=True),
    "Qwen2.5-3B": qwen2(151936, 2048, 36, 16, 2, 11008, 32768, tie_embeddings=True),
    "Qwen2.5-7B": qwen2(152064, 3584, 28, 28, 4, 18944, 32768),
    "Qwen2.5-14B": qwen2(152064, 5120, 48, 40, 8, 13824, 32768),
    "Qwen2.5-32B": qwen2(152064, 5120, 64, 40, 8, 27648, 32768),
    "Qwen2.5-72B": qwen2(152064, 8192, 80, 64, 8, 29568, 32768),
    "Qwen3-0.6B": qwen3(1024, 28, 16, 8, 3072, tie_embeddings=True),
    "Qwen3-1.7B": qwen3(2048, 28, 16, 8, 6144, tie_embeddings=True),
    "Qwen3-4B": qwen3(2560, 36, 32, 8, 9728, tie_embeddings=True),
    "Qwen3-8B": qwen3(4096, 36, 32, 8, 12288),
    "Qwen3-14B": qwen3(5120, 40, 40, 8, 17408),
    "Qwen3-32B": qwen3(5120, 64, 64, 8, 25600),
    "Llama-2-7B": llama(32000, 4096, 32, 32, 32, 11008, 4096),
    "Llama-2-13B": llama(32000, 5120, 40, 40, 40, 13824, 4096),
    "Llama-2-70B": llama(32000, 8192, 80, 64, 8, 28672, 4096),
    "Llama-3-8B": llama(128256, 4096, 32, 32, 8, 14336, 8192),
    "Llama-3-70B": llama(128256, 8192, 80, 64, 8, 28672, 8192),
    "Llama-3.1-8B": llama(128256, 4096, 32, 32, 8, 14336, 131072),
    "Llama-3.1-70B": llama(128256, 8192, 80, 64, 8, 28672, 131072),
    "Llama-3.1-405B": llama(128256, 16384, 126, 128, 8, 53248, 131072),
    "Llama-3.2-1B": llama(128256, 2048, 16, 32, 8, 8192, 131072, tie_embeddings=True),
    "Llama-3.2-3B": llama(128256, 3072, 28, 24, 8, 8192, 131072, tie_embeddings=True),
    "Mistral-7B-v0.1": llama(32000, 4096, 32, 32, 8, 14336, 32768),
    "Mistral-7B-v0.3": llama(32768, 4096, 32, 32, 8, 14336, 32768),
    "Mistral-Nemo": llama(131072, 5120, 40, 32, 8, 14336, 131072, head_width=128),
    "Mistral-Small-24B": llama(131072, 5120, 40, 32, 8, 32768, 32768, head_width=128),
    "SmolLM2-135M": llama(49152, 576, 30, 9, 3, 1536, 8192, tie_embeddings=True),
    "SmolLM2-360M": llama(49152, 960, 32, 15, 5, 2560, 8192, tie_embeddings=True),
    "SmolLM2-1.7B": llama(49152, 2048, 24, 32, 32, 8192, 8192, tie_embeddings=True),
    "SmolLM3-3B": llama(128256, 2048, 36, 16, 4, 11008, 65536, tie_embeddings=True),
    "OLMo-2-1124-7B": llama(
        100352, 4096, 32, 32, 32, 11008, 4096, norm_placement="branch", qk_norm=True, qk_norm_over="heads"
    ),
    "Phi-3-mini": llama(32064, 3072, 32, 32, 32, 8192, 4096),
    "gemma-2b": gemma(2048, 18, 8, 1, 16384),
    "gemma-7b": gemma(3072, 28, 16, 16, 24576),
    "gemma-3-270m": gemma3(640, 18, 4, 1, 2048, window=512),
    "gemma-3-1b": gemma3(1152, 26, 4, 1, 6912, window=512),
    "pythia-160m": pythia(50304, num_layers=12, hidden_size=768, num_heads=12, rotary_width=16),
    "pythia-1b": pythia(50304, num_layers=16, hidden_size=2048, num_heads=8, rotary_width=64),
    "pythia-2.8b": pythia(50304, num_layers=32, hidden_size=2560, num_heads=32, rotary_width=20),
    "pythia-6.9b": pythia(50432, num_layers=32, hidden_size=4096, num_heads=32, rotary_width=32),
}


VARIANTS = {"instruct", "chat", "base", "it", "hf"}
"""parts of names that say how a shape was trained, or stored"""


def shape_of(name: str) -> DecoderConfig:
    """Return the shape of a model: of a folder, by its config.json; of a published model or a preset, by its name, with
    or without its owner, VARIANTS, and what follows its size (mistralai/Mistral-7B-Instruct-v0.3). InputError for
    another, with the nearest."""
    if Path(name).is_dir():
        file = Path(name) / hf_config.CONFIG
        return hf_config.decoder_config(hf_config.read_json_object(file), file)
    if name in PRESETS:
        return PRESETS[name]
    parts = name.rpartition("/")[2].lower().removeprefix("meta-").split("-")
    key = "-".join(part for part in parts if part not in VARIANTS)
    shapes = {known.lower(): shape for known, shape in PUBLISHED.items()}
    matching = [known for known in shapes if key == known or key.startswith(f"{known}-")]
    if matching:
        return shapes[max(matching, key=len)]
    near = difflib.get_close_matches(key, shapes, n=3)
    names = [known for known in PUBLISHED if known.lower() in near] or list(PUBLISHED)
    hint = f"did you mean {' or '.join(names)}?" if near else f"known are {', '.join(names)}"
    raise InputError(f"no folder, published shape or preset is called '{name}'", how=hint)
