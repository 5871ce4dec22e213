"""Attention inside the rows of a flat batch, over the rows of a cache, and rotary positions.

On CPU the tokens of each row are gathered to right-padded buckets and attended causally without a mask: padding comes
after every real token of its row, so no real query sees it. Rows of one length are a view and cost nothing. A shared
prefix is gathered to each of its rows. A window limits a token to itself and the window - 1 tokens before it; rows that
are no longer than the window are attended as without one.

Second derivatives (a Hessian-vector product) need `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` around the forward
pass: torch's fused attention has none. Everything else here is differentiable twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.models.cache import Cache
from amenable.models.layout import Layout, Padding
from amenable.models.rope import Rotation

Attend = Callable[[int, Tensor, Tensor, Tensor, int | None], Tensor]
"""layer, queries [N, H, W], keys and values [N, K, W], window or None -> [N, H W]"""

QUERY_BLOCK = (
    512  # queries under a window attended together: smaller ones are more calls, larger ones see more masked keys
)
TILE_BYTES = 3 << 20  # of keys and values for each thread: larger ones leave its cache, smaller ones are more calls


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (x_i, x_{i + W/2}) by its angle, [N, H, W] -> [N, H, W]: the "rotate_half" pairing of Llama. Of
    fewer angles W is their double, and the rest of a head stays as it is."""
    width = 2 * rotation[0].shape[-1]
    if width < x.shape[-1]:
        return torch.cat([rotate(x[..., :width], rotation), x[..., width:]], -1)
    if not torch.is_grad_enabled():
        return turn(x, *(part.to(x.dtype) for part in rotation))
    return Rotate.apply(x, *rotation)


class Rotate(torch.autograd.Function):
    """Rotation of pairs; the gradient is the inverse rotation and needs no activations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos.to(x.dtype), sin.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return Rotate.apply(grads[0], cos, -sin), None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return turned


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round x to the values of another dtype but keep its own; straight-through gradient."""
    return Rounded.apply(x, dtype) if torch.is_grad_enabled() else x.to(dtype).to(x.dtype)


class Rounded(torch.autograd.Function):
    """Rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def attend_rows(layout: Layout, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Causal attention inside each row of the batch, to the last `window` tokens."""
    if has_ragged_kernel(q):
        return varlen(layout, q, k, v, window)
    if layout.is_even:
        return causal(q, k, v, len(layout.lengths), layout.longest, window)
    padding = layout.padding
    q, k, v = padded(padding, q, k, v)
    parts = zip(padding.buckets, *(x.split(padding.sizes) for x in (q, k, v)))
    outs = [causal(q, k, v, rows, length, window) for (rows, length), q, k, v in parts]
    return Unpad.apply(torch.cat(outs) if len(outs) > 1 else outs[0], padding.slots)


def causal(q: Tensor, k: Tensor, v: Tensor, rows: int, length: int, window: int | None = None) -> Tensor:
    """Rows of one length, one after another: [rows * length, H, W] -> [rows * length, H W]."""
    q, k, v = (x.unflatten(0, (rows, length)).transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    attend = partial(F.scaled_dot_product_attention, enable_gqa=grouped)
    with torch.autocast(q.device.type, enabled=False):
        if window is None or length <= window:
            out = attend(q, k, v, is_causal=True)
        else:
            outs = [attend(q[:, :, :window], k[:, :, :window], v[:, :, :window], is_causal=True)]
            mask = band(QUERY_BLOCK, window, q.dtype, q.device)
            for start in range(window, length, QUERY_BLOCK):
                queries, keys = slice(start, start + QUERY_BLOCK), slice(start - window + 1, start + QUERY_BLOCK)
                count = min(QUERY_BLOCK, length - start)
                outs.append(attend(q[:, :, queries], k[:, :, keys], v[:, :, keys], mask[:count, : window - 1 + count]))
            out = torch.cat([out.transpose(1, 2) for out in outs], 1).transpose(1, 2)
    return out.transpose(1, 2).reshape(rows * length, -1)


@functools.lru_cache(maxsize=4)
@torch.inference_mode(False)
def band(queries: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a mask [queries, window - 1 + queries]: 0 where query i sees a key (i to i + window - 1), else -inf."""
    visible = torch.ones(queries, window - 1 + queries, dtype=torch.bool, device=device).tril_(window - 1).triu_()
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, float("-inf"))


def has_ragged_kernel(q: Tensor) -> bool:
    """Return True if torch's variable-length flash attention runs here: half precision on CUDA from Ampere on."""
    return (
        q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and torch.cuda.get_device_capability(q.device)[0] >= 8
    )


def padded(padding: Padding, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gather queries, keys and values [N, ...] to their slots. Only the first row's query of a shared token is read."""
    tokens, slots, extra = padding.tokens, padding.slots, padding.extra_slots
    return Pad.apply(q, tokens, slots, None), Pad.apply(k, tokens, slots, extra), Pad.apply(v, tokens, slots, extra)


def varlen(layout: Layout, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
    """Flash attention over ragged rows, on CUDA."""
    from torch.nn.attention.varlen import varlen_attn  # imports torch's compiler, which takes a second

    if layout.shares_tokens:
        q, k, v = padded(layout.expanded, q, k, v)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    bounds, longest = layout.offsets, layout.longest
    before = -1 if window is None or longest <= window else window - 1
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=(before, 0))
    flat = out.flatten(1)  # type: ignore[union-attr]
    return Unpad.apply(flat, layout.expanded.slots) if layout.shares_tokens else flat


class Pad(torch.autograd.Function):
    """Gather tokens to padded slots: x [N, ...], tokens [P] -> [P, ...]. Padded slots are never read: gradient 0.

    A token's gradient is that of its slot plus those of its `extra_slots`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens: Tensor, slots: Tensor, extra_slots: Tensor | None) -> Tensor:
        ctx.save_for_backward(tokens, slots, extra_slots)
        return x.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        tokens, slots, extra_slots = ctx.saved_tensors
        gradient = grads[0].index_select(0, slots)
        if extra_slots is not None:
            gradient.index_add_(0, tokens.index_select(0, extra_slots), grads[0].index_select(0, extra_slots))
        return gradient, None, None, None


class Unpad(torch.autograd.Function):
    """Gather padded slots back to tokens: x [P, ...], slots [N] -> [N, ...]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.shape = x.shape
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (slots,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.shape).index_copy_(0, slots, grads[0]), None


def prefill_rows(cache: Cache, rows: Tensor, layout: Layout, inside: Attend) -> Attend:
    """Return attention `inside` the batch that also writes the cache; rows [B]: cache row of each row of the batch. A
    shared token is written to each of its rows."""
    tokens = layout.expanded.tokens if layout.shares_tokens else None
    lengths = torch.tensor(layout.lengths, device=rows.device)
    slots = cache.slots(rows.repeat_interleave(lengths), select_rows(layout.positions, tokens))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        cache.write(layer, slots, select_rows(k, tokens), select_rows(v, tokens))
        return inside(layer, q, k, v, window)

    return attend


def prefix_rows(prefix: Tensor, inside: Attend) -> Attend:
    """Return attention `inside` a batch whose rows begin with virtual tokens, given as keys and values
    [layers, 2, P, K, W], which have no query: the other tokens' outputs [N, H W]."""
    pairs, count = prefix.unbind(), prefix.shape[2]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        keys, values = pairs[layer].to(k.dtype).unbind()
        unread = q.new_zeros(count, *q.shape[1:])
        out = inside(layer, torch.cat([unread, q]), torch.cat([keys, k]), torch.cat([values, v]), window)
        return out[count:]

    return attend


def select_rows(x: Tensor, at: Tensor | None) -> Tensor:
    """Return the rows of x with index `at` [M], or all rows."""
    return x if at is None else x.index_select(0, at)


def step_rows(cache: Cache, rows: Tensor | None, lengths: Tensor) -> Attend:
    """Return attention of one new token per row over the row's cached tokens and itself; lengths [R] before the token.

    Grouped queries are several queries of one key head, so keys are not copied. On CPU each block of rows is copied to
    an fp32 tile right before its attention: reading a tile from the processor's cache is faster than reading scattered
    heads from memory, and torch's bf16 attention is slower than both.
    """
    slots = cache.slots(torch.arange(lengths.numel(), device=lengths.device) if rows is None else rows, lengths)
    longest = functools.cache(lambda: int(lengths.max()) + 1)  # of a layer with a window alone: it waits for the device
    blocks = functools.cache(functools.partial(row_blocks, cache, rows, lengths))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        cache.write(layer, slots, k, v)
        queries = q.unflatten(1, (k.shape[1], -1))
        limit = None if window is None or longest() <= window else window
        with torch.autocast(q.device.type, enabled=False):  # else the whole cache is cast at every step
            outs = [block.attend(cache, layer, queries) for block in blocks(limit)]
        return torch.cat(outs).flatten(1).to(q.dtype)

    return attend


@dataclass(frozen=True)
class RowBlock:
    """Neighbouring rows of a step whose attention is computed together, over the cache's slots `first` to `longest`."""

    steps: slice
    """the rows' range in the step"""
    rows: Tensor | slice
    """their rows in the cache"""
    first: int
    """0, or where the first row's window begins"""
    longest: int
    mask: Tensor | None
    """[rows, 1, 1, slots]: -inf beyond a row's length and before its window; None if all lengths are equal"""
    tile: Tensor | None
    """[rows, slots, 2, K, W]: buffer that keys and values are copied to; None to read the cache itself"""

    def attend(self, cache: Cache, layer: int, queries: Tensor) -> Tensor:
        """Attend from queries [R, K, H / K, W] of all rows of the step -> [rows, K, H / K, W]."""
        cached = cache.read(layer, self.rows, self.longest, self.first)
        if self.tile is not None:
            cached = self.tile.copy_(cached)
        keys, values = (cached[:, :, i].transpose(1, 2) for i in (0, 1))
        return F.scaled_dot_product_attention(queries[self.steps].to(keys.dtype), keys, values, self.mask)


def row_blocks(cache: Cache, rows: Tensor | None, lengths: Tensor, window: int | None = None) -> list[RowBlock]:
    """Divide the rows of a step [R] into blocks that fit a tile on CPU; one block elsewhere."""
    counts = (lengths + 1).tolist()
    tiled = lengths.device.type == "cpu"
    dtype = torch.float32 if tiled else cache.keys[0].dtype
    padding = torch.zeros(len(counts), max(counts), dtype=dtype, device=lengths.device)
    slots = torch.arange(max(counts), device=lengths.device)
    padding.masked_fill_(slots > lengths[:, None], float("-inf"))
    if window is not None:
        padding.masked_fill_(slots <= lengths[:, None] - window, float("-inf"))
    token = cache.pairs[0].shape[2:]
    room = TILE_BYTES * torch.get_num_threads() // (dtype.itemsize * token.numel())
    parts = list(block_slices(counts, room)) if tiled else [slice(0, len(counts))]
    spans = [(0 if window is None else max(min(counts[part]) - window, 0), max(counts[part])) for part in parts]
    sizes = [(part.stop - part.start) * (longest - first) for part, (first, longest) in zip(parts, spans)]
    tile = torch.empty(max(sizes), *token, dtype=dtype) if tiled else None
    blocks = []
    for part, (first, longest), size in zip(parts, spans, sizes):
        mask = None if min(counts[part]) == longest else padding[part, None, None, first:longest]
        own = None if tile is None else tile[:size].unflatten(0, (-1, longest - first))
        blocks.append(RowBlock(part, part if rows is None else rows[part], first, longest, mask, own))
    return blocks


def block_slices(counts: Sequence[int], room: int) -> Iterator[slice]:
    """Slice rows of `counts` tokens into blocks with rows times longest at most `room`, or of a single row."""
    start, longest = 0, 0
    for row, count in enumerate(counts):
        longest = max(longest, count)
        if row > start and (row + 1 - start) * longest > room:
            yield slice(start, row)
            start, longest = row, count
    yield slice(start, len(counts))
