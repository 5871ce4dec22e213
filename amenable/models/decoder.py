"""The transformer decoder of GPT, Llama, Qwen, Gemma and others, by configuration, over flat batches without padding.

    pre (GPT-2, Llama)      x = x + attention(norm(x));         x = x + mlp(norm(x));         a norm at the end
    branch (OLMo 2)         x = x + norm(attention(x));         x = x + norm(mlp(x));         a norm at the end
    sandwich (Gemma 3)      x = x + norm(attention(norm(x)));   x = x + norm(mlp(norm(x)));   a norm at the end
    post (GPT-1)            x = norm(x + attention(x));         x = norm(x + mlp(x))
    parallel (GPT-NeoX)     x = x + attention(norm(x)) + mlp(norm(x));                        a norm at the end

Linear layers get [N, D], the tokens of all rows one after another. Attention is computed inside each row
(models/attention.py): a packed batch gives what its rows give alone.

Shapes: N tokens in B rows, D hidden_size, H heads, K heads of keys and values, W head width, V rows of the vocabulary,
of which T are tokens, R cache rows.
Radford et al., 2018 and 2019; Su et al., 2021 (RoPE); Shazeer, 2020 (SwiGLU); Ainslie et al., 2023 (grouped queries).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from amenable.errors import InputError
from amenable.functional.logprobs import linear_logprobs
from amenable.models.attention import (
    Attend,
    Rotation,
    attend_rows,
    prefill_rows,
    prefix_rows,
    rotate,
    rounded,
    select_rows,
    step_rows,
)
from amenable.models.cache import Cache
from amenable.models.cast_weight import CastWeight
from amenable.models.config import DecoderConfig
from amenable.models.dropout import dropout
from amenable.models.language_model import LanguageModel
from amenable.models.layout import Layout
from amenable.models.norms import RmsNorm, norm, norm_heads
from amenable.models.packed_linear import PackedLinear
from amenable.models.rope import rotary
from amenable.models.swiglu import swiglu

__all__ = ["Decoder", "DecoderConfig", "count_parameters"]

GELU_FORMS = {"gelu": "tanh", "exact_gelu": "none"}


class Decoder(LanguageModel):
    """Transformer decoder: ids to hidden states, hidden states to logits. Weights are `init_weights` with seed 0."""

    def __init__(self, config: DecoderConfig, device: torch.device | str = "cpu"):
        super().__init__()
        self.config: DecoderConfig = config
        self.origin: Mapping[str, Any] | None = None
        """config.json of the folder that the weights were loaded from"""
        self.num_tokens = config.vocab_size
        """number of the tokenizer's tokens; later rows of the vocabulary are padding, never sampled or trained"""
        self.checkpoint_activations = False
        """True to compute each layer's activations again in the backward pass instead of keeping them"""
        self.cast_weight = CastWeight()
        self.adapter_base = ""
        """name of the model that adapters are on, where there are any"""
        self.prompt_embeddings: nn.Parameter | None = None
        """of virtual tokens before every row [P, D] (prompt tuning); set by `set_virtual_tokens`"""
        self.prefix_keys_values: nn.Parameter | None = None
        """of virtual tokens before every row, in every layer [P, layers * 2 * K * W] (prefix tuning); set as those"""
        self.new_embeddings: nn.Parameter | None = None
        """of the last tokens, which train beside a frozen matrix (models/new_tokens.py)"""
        learned = config.positions == "learned"
        with torch.device("meta"):
            self.token_embedding = embedding(config.vocab_size, config.hidden_size)
            self.position_embedding = embedding(config.context_length, config.hidden_size) if learned else None
            self.layers = nn.ModuleList([Block(config, index) for index in range(config.num_layers)])
            self.final_norm = norm(config) if config.norm_placement != "post" else None
            self.output = (
                None if config.tie_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            )
        if torch.device(device).type != "meta":
            self.to_empty(device=device)
            self.init_weights(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw weights N(0, 0.02), positions N(0, 0.01), biases 0, gains 1; projections into the residual stream
        N(0, 0.02 / sqrt(2 num_layers)) (GPT-2). Post-norm (GPT-1): N(0, 0.02) throughout.

        Drawn on the generator's device: equal weights on every device of the model.
        """
        pre = self.config.norm_placement != "post"
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 0.02
            if pre and name.startswith("position_embedding"):
                std = 0.01
            if pre and name.endswith(("attention.out.weight", "mlp.down.weight")):
                std = 0.02 / math.sqrt(2 * self.config.num_layers)
            parameter.copy_(normal(parameter.shape, std, generator))

    def forward(
        self,
        ids: Tensor,
        layout: Layout,
        cache: Cache | None = None,
        rows: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states after the final norm, ids [N] -> [N, D], or [M, D] at the flat indices `at` [M].

        With `at` the last layer's MLP is computed for M tokens instead of N.

        With a cache this is a prefill: row b of the batch overwrites cache row rows[b] (None: row b) from slot 0 on.
        Virtual tokens are computed once, before the ids, or are keys and values as they are; they have no hidden state
        here. Raises InputError for a row longer than the context or the cache.
        """
        if ids.numel() != layout.tokens:
            raise ValueError(f"{ids.numel()} ids for a layout of {layout.tokens} tokens")
        virtual = self.num_virtual_tokens
        room = self.config.context_length if cache is None else cache.length - virtual
        if layout.longest > room:
            row, limit = layout.lengths.index(layout.longest), "context" if cache is None else "cache"
            raise InputError(f"row {row} has {layout.longest} tokens; the {limit} holds {room}", how="shorten it")
        x, layout = self.embed(ids), layout.after(virtual) if virtual else layout
        positions, attend = layout.positions, cast(Attend, partial(attend_rows, layout))
        if cache is not None:
            rows = torch.arange(len(layout.lengths), device=ids.device) if rows is None else rows
            attend = prefill_rows(cache, rows, layout, attend)
            cache.lengths[rows] = torch.tensor(layout.lengths, device=ids.device)
        if self.prompt_embeddings is not None:
            x = torch.cat([self.prompt_embeddings, x])
            hidden = self.apply_layers(x, positions, attend, None if at is None else at + virtual)
            return hidden[virtual:] if at is None else hidden
        if self.prefix_keys_values is not None:
            positions, attend = positions[virtual:], prefix_rows(self.prefix(self.prefix_keys_values), attend)
        return self.apply_layers(x, positions, attend, at)

    def step(self, ids: Tensor, cache: Cache, rows: Tensor | None = None) -> Tensor:
        """Append one token to each of R cache rows, ids [R] -> hidden states [R, D]; advances cache.lengths.

        Token ids[i] belongs to cache row rows[i]; None is rows 0..R-1 and reads the cache without a copy. Raises
        InputError for a row without a free slot.
        """
        lengths = cache.lengths[: ids.numel()] if rows is None else cache.lengths.index_select(0, rows)
        if int(lengths.max()) >= cache.length:
            full = int(lengths.argmax()) if rows is None else int(rows[lengths.argmax()])
            raise InputError(f"cache row {full} is full: it holds {cache.length} tokens", how="make the cache longer")
        hidden = self.apply_layers(self.embed(ids), lengths, step_rows(cache, rows, lengths))
        cache.lengths[slice(ids.numel()) if rows is None else rows] = lengths + 1
        return hidden

    @property
    def num_virtual_tokens(self) -> int:
        """Virtual tokens before every row; the context is what they leave."""
        return 0 if self.virtual_tokens is None else len(self.virtual_tokens)

    @property
    def virtual_tokens(self) -> nn.Parameter | None:
        """The trained numbers of virtual tokens before every row, of prompt or of prefix tuning; None without."""
        return self.prefix_keys_values if self.prompt_embeddings is None else self.prompt_embeddings

    def set_virtual_tokens(self, tokens: nn.Parameter | None, every_layer: bool = False) -> None:
        """Put virtual tokens before every row, in place of others, or none: embeddings [P, D], or with `every_layer`
        keys and values [P, layers * 2 * K * W]. InputError where they leave no context."""
        context = self.config.context_length + self.num_virtual_tokens
        count = 0 if tokens is None else len(tokens)
        if count >= context:
            raise InputError(f"{count} virtual tokens leave nothing of a context of {context}", how="take fewer")
        self.config = replace(self.config, context_length=context - count)
        self.prompt_embeddings, self.prefix_keys_values = (None, tokens) if every_layer else (tokens, None)

    def prefix(self, keys_values: Tensor) -> Tensor:
        """Return keys and values of prefix tuning by layer [layers, 2, P, K, W], rounded as a cache rounds them."""
        shape = self.config.num_layers, 2, self.config.kv_head_count, self.config.head_size
        return rounded(keys_values, self.product_dtype).unflatten(1, shape).permute(1, 2, 0, 3, 4)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of ids, [N] -> [N, D]."""
        x = self.token_embedding(ids)
        if (new := self.new_embeddings) is not None:
            number = ids - (self.num_tokens - len(new))
            x = torch.where((number >= 0)[:, None], F.embedding(number.clamp(min=0), new), x)
        return x * math.sqrt(self.config.hidden_size) if self.config.scale_embeddings else x

    def apply_layers(self, x: Tensor, positions: Tensor, attend: Attend, at: Tensor | None = None) -> Tensor:
        """Apply the layers to embeddings [N, D] at positions [N], `attend` as attention; `at` [M] as in `forward`."""
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        x = dropout(x, self.config.dropout, self.training)
        rotations = self.rotations(positions)
        layers: list[Any] = list(self.layers)
        if self.checkpoint_activations and torch.is_grad_enabled():
            layers = [partial(checkpoint, layer, use_reentrant=False) for layer in layers]
        for layer, rotation in zip(layers[:-1], rotations):
            x = layer(x, rotation, attend)
        x = layers[-1](x, rotations[-1], attend, at)
        return x if self.final_norm is None else self.final_norm(x)

    def rotations(self, positions: Tensor) -> list[Rotation | None]:
        """Return the rotation of positions [N] in each layer, None where there is none."""
        config = self.config
        if config.positions == "learned":
            return [None] * config.num_layers
        everywhere = rotary(positions, config.rotary_size, config.rope_theta, config.rope_scaling)
        local = everywhere
        if config.local_rope_theta is not None:
            local = rotary(positions, config.rotary_size, config.local_rope_theta)
        kinds = [everywhere if config.window_of(layer) is None else local for layer in range(config.num_layers)]
        return [None if layer in config.nope_layers else kind for layer, kind in enumerate(kinds)]

    @property
    def unembedding(self) -> Tensor:
        """The unembedding matrix [T, D] of the tokenizer's T tokens."""
        weight = self.padded_unembedding
        return weight if len(weight) == self.num_tokens else weight[: self.num_tokens]

    @property
    def product_unembedding(self) -> Tensor:
        """The unembedding matrix [T, D] for autocast's products: a frozen one is cast once, not in every pass."""
        return self.cast_weight.of(self.padded_unembedding)[: self.num_tokens]

    @property
    def padded_unembedding(self) -> Tensor:
        """The unembedding matrix with its padding rows [V, D], as saved."""
        matrix = self.token_embedding if self.output is None else self.output
        if type(matrix) not in (nn.Embedding, nn.Linear):
            raise TypeError(f"losses read the unembedding's weight alone: {type(matrix).__name__} has no effect")
        return matrix.weight

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.unembedding.device

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits of the tokenizer's tokens, [..., D] -> [..., T]."""
        return F.linear(hidden, self.unembedding)

    def logprobs(
        self, hidden: Tensor, tokens: Tensor, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities [M] of tokens [M] after hidden states [M, D]; see `linear_logprobs`."""
        return linear_logprobs(hidden, self.product_unembedding, tokens, temperature=temperature, entropy=entropy)

    def new_cache(self, rows: int, length: int) -> Cache:
        """Return an empty cache in the dtype in which keys and values are computed."""
        return Cache(self.config, rows, length, self.device, self.product_dtype, self.num_virtual_tokens)

    @property
    def product_dtype(self) -> torch.dtype:
        """The dtype of matrix products: autocast's, or that of the weights."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.unembedding.dtype

    def padded_logits(self, hidden: Tensor) -> Tensor:
        """Return logits with those of the padding rows, as transformers does, [..., D] -> [..., V]."""
        return F.linear(hidden, self.padded_unembedding)


class Block(nn.Module):
    """Transformer block: attention and MLP, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, index: int):
        super().__init__()
        self.config = config
        before = config.norm_placement != "branch"
        after = config.norm_placement in ("branch", "sandwich")
        self.attention_norm = norm(config) if before else nn.Identity()
        self.attention = Attention(config, index)
        self.attention_out_norm = norm(config) if after else nn.Identity()
        self.mlp_norm = norm(config) if before else nn.Identity()
        self.mlp = Mlp(config)
        self.mlp_out_norm = norm(config) if after else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None, attend: Attend, at: Tensor | None = None) -> Tensor:
        """Apply the block, [N, D] -> [N, D], or [M, D] at the flat indices `at` [M]."""
        if self.config.norm_placement == "post":
            x = self.attention_norm(select_rows(x, at) + self.drop(self.attention(x, rotation, attend, at)))
            return self.mlp_norm(x + self.drop(self.mlp(x)))
        mixed = self.attention_out_norm(self.attention(self.attention_norm(x), rotation, attend, at))
        x = select_rows(x, at)
        if self.config.parallel_residual:
            return x + self.drop(mixed) + self.drop(self.mlp(self.mlp_norm(x)))
        x = x + self.drop(mixed)
        return x + self.drop(self.mlp_out_norm(self.mlp(self.mlp_norm(x))))

    def drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)


class Attention(nn.Module):
    """Multi-head attention: queries, keys and values in one product, attention inside each row, output projection."""

    def __init__(self, config: DecoderConfig, index: int):
        super().__init__()
        self.index, self.head_size, self.window = index, config.head_size, config.window_of(index)
        self.sizes = [config.num_heads, config.kv_head_count, config.kv_head_count]
        self.interleaved = config.interleave_qkv
        self.qkv = nn.Linear(config.hidden_size, sum(self.sizes) * self.head_size, bias=config.has_qkv_bias)
        self.out = nn.Linear(config.num_heads * self.head_size, config.hidden_size, bias=config.bias)
        widths = [self.head_size * (1 if config.qk_norm_over == "head" else heads) for heads in self.sizes]
        self.query_norm = RmsNorm(widths[0], config.norm_eps) if config.qk_norm else None
        self.key_norm = RmsNorm(widths[1], config.norm_eps) if config.qk_norm else None
        self.query_scale = math.sqrt(self.head_size / (config.query_pre_attn_scalar or self.head_size))

    def forward(self, x: Tensor, rotation: Rotation | None, attend: Attend, at: Tensor | None = None) -> Tensor:
        """Attend, [N, D] -> [N, D], or [M, D] at the flat indices `at` [M]."""
        heads = self.qkv(x).unflatten(-1, (sum(self.sizes), self.head_size))
        dtype = heads.dtype
        if heads.device.type == "cpu":  # fp32 attention is faster than bf16 attention even where bf16 products are fast
            heads = heads.float()
        q, k, v = heads.unflatten(1, (-1, 3)).unbind(2) if self.interleaved else heads.split(self.sizes, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = norm_heads(q, self.query_norm), norm_heads(k, self.key_norm)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if self.query_scale != 1:
            q = q * self.query_scale
        changed = rotation is not None or self.key_norm is not None
        if changed and k.dtype != dtype:  # as the cache stores keys: training sees what sampling sees
            k = rounded(k, dtype)
        return self.out(select_rows(attend(self.index, q, k, v, self.window), at).to(dtype))


class Mlp(nn.Module):
    """MLP: down(gelu(up(x))) (GPT), or down(silu(gate(x)) * up(x)) with gate and up in one product (SwiGLU)."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.activation, self.has_gate = config.activation, config.has_gate
        self.up = nn.Linear(config.hidden_size, (2 if self.has_gate else 1) * config.mlp_size, bias=config.bias)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP, [N, D] -> [N, D]."""
        if self.activation in ("gelu", "exact_gelu") and can_fuse_gelu(self.up):
            return self.down(linear_gelu(x, self.up, GELU_FORMS[self.activation]))
        x = self.up(x)
        if self.has_gate:
            if self.activation == "swiglu":
                return self.down(swiglu(x))
            gate, up = x.chunk(2, dim=-1)
            return self.down(F.gelu(gate, approximate="tanh") * up)
        if self.activation == "relu":
            return self.down(F.relu(x))
        return self.down(F.gelu(x, approximate=GELU_FORMS[self.activation]))


def is_plain(linear: nn.Module) -> bool:
    """Return True for a linear layer that is its weight and bias alone, without adapter, parametrization or hook: only
    such a layer may be computed or stored in another way than by calling it."""
    return type(linear) is nn.Linear and not has_hooks(linear)


def has_hooks(module: nn.Module) -> bool:
    """Return True if calling the module does more than its forward."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks)


def can_fuse_gelu(linear: nn.Module) -> bool:
    """Return True if oneDNN can fuse GELU into this layer's product: bf16 on CPU without gradients."""
    if isinstance(linear, PackedLinear):
        return not has_hooks(linear)
    if torch.is_grad_enabled() or not is_plain(linear):
        return False
    weight = linear.weight
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()


def linear_gelu(x: Tensor, linear: nn.Linear | PackedLinear, form: str = "tanh") -> Tensor:
    """Compute gelu(linear(x)) fused: on CPU an unfused GELU takes as long as the product."""
    product = torch.ops.mkldnn._linear_pointwise
    return product(x.to(linear.weight.dtype), linear.weight, linear.bias, "gelu", [], form)


def normal(shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    """Draw N(0, std^2) on the generator's device."""
    return torch.empty(shape, device=generator.device).normal_(0, std, generator=generator)


def embedding(rows: int, width: int) -> nn.Embedding:
    """Build an embedding without drawn weights: drawing on the meta device loads torch's compiler, a second."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def count_parameters(config: DecoderConfig) -> int:
    """Count the parameters of a configuration without allocating any."""
    return sum(parameter.numel() for parameter in Decoder(config, device="meta").parameters())
