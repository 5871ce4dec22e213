"""What a decoder is made of: one configuration for the GPT and the Llama/Qwen families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from amenable.errors import InputError


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and choices of a decoder. `None` is derived from the rest; the properties give what was derived."""

    vocab_size: int
    context: int = 1024
    """longest row, in tokens"""
    layers: int = 12
    width: int = 768
    heads: int = 12
    kv_heads: int | None = None
    """heads of keys and values; fewer than `heads` is grouped-query attention; None is `heads`"""
    head_width: int | None = None
    """None is width / heads"""
    mlp_width: int | None = None
    """None is 4 width, or with swiglu 8/3 width rounded up to a multiple of 64 (about as many parameters)"""
    positions: Literal["learned", "rope"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    norm_placement: Literal["pre", "post"] = "pre"
    """pre: x + f(norm(x)) and a norm at the end; post: norm(x + f(x)) and none (GPT-1)"""
    activation: Literal["gelu", "relu", "swiglu"] = "gelu"
    """gelu in its tanh form"""
    bias: bool = True
    qkv_bias: bool | None = None
    """None is `bias`"""
    qk_norm: bool = False
    """an RMS norm on every query and key head (Qwen3)"""
    tied: bool = True
    """whether the unembedding is the token embedding"""
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    dropout: float = 0.0
    """of embeddings and residual branches, while training; attention has none, as in today's models, for its speed"""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "layers", "width", "heads"):
            if getattr(self, name) < 1:
                raise InputError(f"a decoder with {name} {getattr(self, name)}", how="it must be at least 1")
        for name in ("kv_heads", "head_width", "mlp_width"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"a decoder with {name} {getattr(self, name)}", how="it must be at least 1")
        if self.head_width is None and self.width % self.heads:
            raise InputError(f"width {self.width} does not divide into {self.heads} heads", how="or give head_width")
        if self.heads % self.kv_head_count:
            raise InputError(f"{self.heads} heads do not divide into groups for {self.kv_head_count} kv_heads")
        if self.positions == "rope" and self.head_size % 2:
            raise InputError(f"rotary positions need an even head width, not {self.head_size}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}", how="it must lie in [0, 1)")

    @property
    def kv_head_count(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def mlp_size(self) -> int:
        if self.mlp_width is not None:
            return self.mlp_width
        return 64 * -(-8 * self.width // (3 * 64)) if self.activation == "swiglu" else 4 * self.width

    @property
    def has_qkv_bias(self) -> bool:
        return self.bias if self.qkv_bias is None else self.qkv_bias
