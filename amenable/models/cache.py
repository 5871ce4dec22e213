"""Keys and values of the tokens already read, so that decoding computes each token once.

Every row starts at slot 0, whatever the length of its prompt: rows of different lengths need no padding on the left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amenable.models.config import DecoderConfig


class Cache:
    """A static cache for R rows of up to `length` tokens.

    keys, values: a tensor [R, kv_heads, length, head_width] for each layer. lengths [R]: tokens held by each row.
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
        shape = (rows, config.kv_head_count, length, config.head_size)
        # zeros, not empty: slots beyond a row's length are read under a mask, where a stray nan would survive
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.rows, self.length = rows, length

    def write(self, layer: int, rows: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [N, kv_heads, head_width] at slot places[i] of row rows[i]."""
        self.keys[layer][rows, :, places] = keys.to(self.keys[layer].dtype)
        self.values[layer][rows, :, places] = values.to(self.values[layer].dtype)

    def read(self, layer: int, rows: Tensor | int, longest: int) -> tuple[Tensor, Tensor]:
        """Keys and values [R, kv_heads, longest, head_width]: a view of the first `rows`, or a copy of rows [R]."""
        keys, values = self.keys[layer], self.values[layer]
        if isinstance(rows, int):
            return keys[:rows, :, :longest], values[:rows, :, :longest]
        return keys[rows, :, :longest], values[rows, :, :longest]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Row source[i] also becomes row target[i]; both [n]. No row may be a target twice."""
        if source.numel() == 0:
            return
        held = int(self.lengths[source].max())
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :held] = tensor[source, :, :held]
        self.lengths[target] = self.lengths[source]

    def keep(self, index: Tensor) -> None:
        """Row index[i] becomes row i; the rows after those are empty and free for new prompts."""
        places = torch.arange(index.numel(), device=index.device)
        moved = (index != places).nonzero().flatten()
        self.copy(index[moved], places[moved])
        self.lengths[index.numel() :] = 0
