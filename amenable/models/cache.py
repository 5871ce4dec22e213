"""Keys and values of the tokens already read, so that decoding computes each token once.

Every row starts at slot 0, whatever the length of its prompt: rows of different lengths need no padding on the left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amenable.models.config import DecoderConfig


class Cache:
    """A static cache for R rows of up to `length` tokens.

    keys, values: a tensor [R, length, kv_heads, head_width] for each layer, so that what a row holds lies together.
    Of a layer both are views of one tensor, read at once. lengths [R]: tokens held by each row.
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        if rows < 1:
            raise ValueError(f"a cache of {rows} rows")
        if not 1 <= length <= config.context:
            raise ValueError(f"a cache of length {length} for a decoder with context {config.context}")
        shape = (rows, length, 2, config.kv_head_count, config.head_size)
        # zeros, not empty: slots beyond a row's length are read under a mask, where a stray nan would survive
        self.pairs = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.keys, self.values = [pair[:, :, 0] for pair in self.pairs], [pair[:, :, 1] for pair in self.pairs]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.rows, self.length = rows, length

    def slots(self, rows: Tensor, places: Tensor) -> Tensor:
        """Where `write` puts the token at places[i] of row rows[i], [N]: the same in every layer."""
        return rows * self.length + places

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [N, kv_heads, head_width] at these slots."""
        for tensor, new in ((self.keys[layer], keys), (self.values[layer], values)):
            tensor.flatten(0, 1).index_copy_(0, slots, new.to(tensor.dtype))

    def read(self, layer: int, rows: Tensor | slice, longest: int) -> Tensor:
        """The first `longest` keys and values of these rows [R, longest, 2, kv_heads, head_width]: a view where the
        rows are a slice, else a copy."""
        return self.pairs[layer][rows, :longest]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Row source[i] also becomes row target[i]; both [n]. No row may be a target twice."""
        if source.numel() == 0:
            return
        held = int(self.lengths[source].max())
        for pair in self.pairs:
            pair[target, :held] = pair[source, :held]
        self.lengths[target] = self.lengths[source]

    def keep(self, index: Tensor) -> None:
        """Row index[i] becomes row i; the rows after those are empty and free for new prompts."""
        places = torch.arange(index.numel(), device=index.device)
        moved = (index != places).nonzero().flatten()
        self.copy(index[moved], places[moved])
        self.lengths[index.numel() :] = 0
