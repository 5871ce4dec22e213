"""DecoderConfig: one configuration of sizes and architecture for every family of decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from amenable.errors import InputError
from amenable.models.rope import RopeScaling


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and architecture of a decoder. Properties give the values of fields that are None."""

    vocab_size: int
    context_length: int = 1024
    """longest row, in tokens"""
    num_layers: int = 12
    hidden_size: int = 768
    num_heads: int = 12
    num_kv_heads: int | None = None
    """heads of keys and values; fewer than `num_heads` is grouped-query attention; None is `num_heads`"""
    head_width: int | None = None
    """None is hidden_size / num_heads"""
    mlp_width: int | None = None
    """None is 4 hidden_size; with a gate 8/3 hidden_size rounded up to a multiple of 64 (about as many parameters)"""
    positions: Literal["learned", "rope"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    norm_placement: Literal["pre", "post", "branch", "sandwich"] = "pre"
    """pre: x + f(norm(x)); branch: x + norm(f(x)) (OLMo 2); sandwich: x + norm(f(norm(x))) (Gemma 3); each with a norm
    at the end; post: norm(x + f(x)) and none (GPT-1)"""
    parallel_residual: bool = False
    """x + attention(norm(x)) + mlp(norm(x)), each with its own norm (GPT-NeoX); with pre alone"""
    activation: Literal["gelu", "exact_gelu", "relu", "swiglu", "geglu"] = "gelu"
    """gelu, and the gate of geglu, are the tanh approximation"""
    bias: bool = True
    qkv_bias: bool | None = None
    """None is `bias`"""
    interleave_qkv: bool = False
    """the rows of the qkv product are query, key and value of head after head (GPT-NeoX), not all queries first"""
    qk_norm: bool = False
    """an RMS norm on every query and key head (Qwen3)"""
    qk_norm_over: Literal["head", "heads"] = "head"
    """head: each head by itself; heads: all heads of a token as one vector (OLMo 2)"""
    query_pre_attn_scalar: float | None = None
    """attention scores are divided by its root; None is the head's width"""
    scale_embeddings: bool = False
    """embeddings of tokens are multiplied by the root of hidden_size (Gemma)"""
    tie_embeddings: bool = True
    """the unembedding is the token embedding"""
    rope_theta: float = 10000.0
    local_rope_theta: float | None = None
    """of layers that a window limits, whose positions are not scaled (Gemma 3); None is as in the others"""
    rope_scaling: RopeScaling | None = None
    rotary_width: int | None = None
    """numbers at the beginning of each head that are rotated; None is all"""
    nope_layers: tuple[int, ...] = ()
    """layers without rotary positions (SmolLM3)"""
    window: int | None = None
    """a token attends to itself and the window - 1 tokens before it; None is to all before it"""
    local_layers: tuple[int, ...] | None = None
    """layers that the window limits; None is all of them"""
    norm_eps: float = 1e-5
    dropout: float = 0.0
    """of embeddings and residual branches in training; attention has none, for speed, as in current models"""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "num_layers", "hidden_size", "num_heads"):
            self._require_positive(name)
        for name in ("num_kv_heads", "head_width", "mlp_width", "window", "rotary_width", "query_pre_attn_scalar"):
            if getattr(self, name) is not None:
                self._require_positive(name)
        if self.head_width is None and self.hidden_size % self.num_heads:
            problem = f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads"
            raise InputError(problem, how="change either, or give head_width")
        if self.num_heads % self.kv_head_count:
            raise InputError(f"{self.num_heads} heads do not divide into groups for num_kv_heads {self.kv_head_count}")
        if self.positions == "rope" and (self.rotary_size % 2 or self.rotary_size > self.head_size):
            raise InputError(f"rotary positions need an even width up to the head's, not {self.rotary_size}")
        scaling = self.rope_scaling
        if (
            scaling
            and scaling.rope_type == "longrope"
            and self.context_length > scaling.original_max_position_embeddings
        ):
            original = scaling.original_max_position_embeddings
            raise InputError(f"rows of {self.context_length} leave the original context of {original} of a longrope")
        if self.interleave_qkv and self.kv_head_count != self.num_heads:
            raise InputError("interleave_qkv needs as many heads of keys and values as of queries")
        if self.parallel_residual and self.norm_placement != "pre":
            raise InputError(f"parallel_residual goes with norm_placement pre, not {self.norm_placement}")
        self._require_layers("local_layers", self.local_layers or ())
        self._require_layers("nope_layers", self.nope_layers)
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}", how="it must lie in [0, 1)")

    def _require_positive(self, name: str) -> None:
        if getattr(self, name) < 1:
            raise InputError(f"{name} is {getattr(self, name)}", how="it must be at least 1")

    def _require_layers(self, name: str, layers: tuple[int, ...]) -> None:
        if strange := [layer for layer in layers if not 0 <= layer < self.num_layers]:
            raise InputError(f"{name} has {strange[0]}", how=f"there are layers 0 to {self.num_layers - 1}")

    def window_of(self, layer: int) -> int | None:
        """Return the window of a layer, None for attention to all tokens before."""
        return self.window if self.local_layers is None or layer in self.local_layers else None

    @property
    def limits_attention(self) -> bool:
        """True if a row may be longer than the window."""
        return self.window is not None and self.window < self.context_length

    @property
    def rotary_size(self) -> int:
        return self.head_size if self.rotary_width is None else self.rotary_width

    @property
    def has_gate(self) -> bool:
        return self.activation in ("swiglu", "geglu")

    @property
    def kv_head_count(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads if self.head_width is None else self.head_width

    @property
    def mlp_size(self) -> int:
        if self.mlp_width is not None:
            return self.mlp_width
        return 64 * -(-8 * self.hidden_size // (3 * 64)) if self.has_gate else 4 * self.hidden_size

    @property
    def has_qkv_bias(self) -> bool:
        return self.bias if self.qkv_bias is None else self.qkv_bias
