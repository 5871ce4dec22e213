"""Published decoders and small ones for laptops, by name."""

from __future__ import annotations

import difflib
from dataclasses import replace

from amenable.errors import InputError
from amenable.models.config import DecoderConfig

GPT2_VOCAB = 50257

MODERN = DecoderConfig(
    4096, positions="rope", norm="rms", activation="swiglu", bias=False, qk_norm=True, norm_eps=1e-6, layers=4
)
"""the style of Qwen3, with tied embeddings"""

PRESETS = {
    # Radford et al., 2018: norm after each sublayer, no norm at the end
    "gpt1": DecoderConfig(40478, context=512, norm_placement="post"),
    # Radford et al., 2019
    "gpt2": DecoderConfig(GPT2_VOCAB),
    "gpt2-medium": DecoderConfig(GPT2_VOCAB, layers=24, width=1024, heads=16),
    "gpt2-large": DecoderConfig(GPT2_VOCAB, layers=36, width=1280, heads=20),
    "gpt2-xl": DecoderConfig(GPT2_VOCAB, layers=48, width=1600, heads=25),
    # Brown et al., 2020, table 2.1, with dense attention in every layer. Printed there: 24 heads of 128 for 1.3b, which
    # do not make 2048, and width 5140 for 13b, which 40 heads of 128 do not make; here 16 heads and 5120, as in
    # Stiennon et al., 2020.
    "gpt3-125m": DecoderConfig(GPT2_VOCAB, context=2048),
    "gpt3-350m": DecoderConfig(GPT2_VOCAB, context=2048, layers=24, width=1024, heads=16),
    "gpt3-760m": DecoderConfig(GPT2_VOCAB, context=2048, layers=24, width=1536, heads=16),
    "gpt3-1.3b": DecoderConfig(GPT2_VOCAB, context=2048, layers=24, width=2048, heads=16),
    "gpt3-2.7b": DecoderConfig(GPT2_VOCAB, context=2048, layers=32, width=2560, heads=32),
    "gpt3-6.7b": DecoderConfig(GPT2_VOCAB, context=2048, layers=32, width=4096, heads=32),
    "gpt3-13b": DecoderConfig(GPT2_VOCAB, context=2048, layers=40, width=5120, heads=40),
    "gpt3-175b": DecoderConfig(GPT2_VOCAB, context=2048, layers=96, width=12288, heads=96),
    # for laptops
    "tiny-gpt2": DecoderConfig(8192, context=512, layers=4, width=256, heads=4),
    "nano": replace(MODERN, context=256, width=192, heads=3),
    "micro": replace(MODERN, context=256, layers=5, width=384, heads=6),
    "tiny": replace(MODERN, vocab_size=8192, context=512, width=256, heads=4),
    "mini": replace(MODERN, vocab_size=8192, context=512, layers=6, width=384, heads=6),
}


def preset(name: str, vocab_size: int | None = None) -> DecoderConfig:
    """The configuration of this name, for a vocabulary of another size where one is given."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        how = f"did you mean '{near[0]}'?" if near else "choose from " + ", ".join(PRESETS)
        raise InputError(f"no preset is called '{name}'", how=how)
    return PRESETS[name] if vocab_size is None else replace(PRESETS[name], vocab_size=vocab_size)
