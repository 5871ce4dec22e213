"""Decoder configurations by name: published models, and small ones for laptops."""

from __future__ import annotations

import difflib
from dataclasses import replace

from amenable.errors import InputError
from amenable.models.config import DecoderConfig

GPT2_VOCAB = 50257

MODERN = DecoderConfig(
    4096, positions="rope", norm="rms", activation="swiglu", bias=False, qk_norm=True, norm_eps=1e-6, num_layers=4
)
"""Qwen3's architecture with tied embeddings"""

PRESETS = {
    # Radford et al., 2018: norm after each sublayer, no norm at the end
    "gpt1": DecoderConfig(40478, context_length=512, norm_placement="post"),
    # Radford et al., 2019
    "gpt2": DecoderConfig(GPT2_VOCAB),
    "gpt2-medium": DecoderConfig(GPT2_VOCAB, num_layers=24, hidden_size=1024, num_heads=16),
    "gpt2-large": DecoderConfig(GPT2_VOCAB, num_layers=36, hidden_size=1280, num_heads=20),
    "gpt2-xl": DecoderConfig(GPT2_VOCAB, num_layers=48, hidden_size=1600, num_heads=25),
    # Brown et al., 2020, table 2.1, with dense attention in every layer. Printed there: 24 heads of 128 for 1.3b, which
    # do not make 2048, and width 5140 for 13b, which 40 heads of 128 do not make; here 16 heads and 5120, as in
    # Stiennon et al., 2020.
    "gpt3-125m": DecoderConfig(GPT2_VOCAB, context_length=2048),
    "gpt3-350m": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=24, hidden_size=1024, num_heads=16),
    "gpt3-760m": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=24, hidden_size=1536, num_heads=16),
    "gpt3-1.3b": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=24, hidden_size=2048, num_heads=16),
    "gpt3-2.7b": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=32, hidden_size=2560, num_heads=32),
    "gpt3-6.7b": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=32, hidden_size=4096, num_heads=32),
    "gpt3-13b": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=40, hidden_size=5120, num_heads=40),
    "gpt3-175b": DecoderConfig(GPT2_VOCAB, context_length=2048, num_layers=96, hidden_size=12288, num_heads=96),
    # for laptops
    "tiny-gpt2": DecoderConfig(8192, context_length=512, num_layers=4, hidden_size=256, num_heads=4),
    "pico": replace(MODERN, context_length=256, num_layers=2, hidden_size=96, num_heads=3),
    "nano": replace(MODERN, context_length=256, hidden_size=192, num_heads=3),
    "micro": replace(MODERN, context_length=256, num_layers=5, hidden_size=384, num_heads=6),
    "tiny": replace(MODERN, vocab_size=8192, context_length=512, hidden_size=256, num_heads=4),
    "mini": replace(MODERN, vocab_size=8192, context_length=512, num_layers=6, hidden_size=384, num_heads=6),
}


def preset(name: str, vocab_size: int | None = None) -> DecoderConfig:
    """Return the configuration called `name`, with another `vocab_size` if given."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "choose from " + ", ".join(PRESETS)
        raise InputError(f"no preset is called '{name}'", how=hint)
    return PRESETS[name] if vocab_size is None else replace(PRESETS[name], vocab_size=vocab_size)
