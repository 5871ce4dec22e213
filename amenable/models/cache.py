"""Static key/value cache for decoding.

Every row starts at slot 0, whatever the length of its prompt: rows of different lengths need no left padding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amenable.models.config import DecoderConfig


class Cache:
    """A static cache for R rows of up to `length` tokens, after `virtual_tokens` of the decoder's.

    keys, values: a tensor [R, slots, kv_heads, head_width] for each layer, contiguous per row; the two of a layer are
    views of one tensor, read at once. lengths [R]: slots that are filled in each row; length: slots of a row, those of
    virtual tokens among them.
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        virtual_tokens: int = 0,
    ):
        if rows < 1:
            raise ValueError(f"a cache of {rows} rows")
        if not 1 <= length <= config.context_length:
            raise ValueError(f"a cache of length {length} for a decoder with context {config.context_length}")
        length += virtual_tokens
        shape = (rows, length, 2, config.kv_head_count, config.head_size)
        # zeros, not empty: slots beyond a row's length are read under a mask, where a stray nan would survive
        self.pairs = [zeros(shape, torch.device(device), dtype) for _ in range(config.num_layers)]
        self.keys, self.values = [pair[:, :, 0] for pair in self.pairs], [pair[:, :, 1] for pair in self.pairs]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.rows, self.length = rows, length

    def slots(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return the slots [N], equal in every layer, of the tokens at positions[i] of rows[i]."""
        return rows * self.length + positions

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write keys and values [N, kv_heads, head_width] to these slots."""
        for tensor, new in ((self.keys[layer], keys), (self.values[layer], values)):
            tensor.flatten(0, 1).index_copy_(0, slots, new.to(tensor.dtype))

    def read(self, layer: int, rows: Tensor | slice, longest: int, first: int = 0) -> Tensor:
        """Return keys and values in the slots `first` to `longest` of rows [R, slots, 2, kv_heads, head_width]; a slice
        gives a view."""
        return self.pairs[layer][rows, first:longest]

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy row source[i] to row target[i]; both [n]. No row may be a target twice."""
        if source.numel() == 0:
            return
        longest = int(self.lengths[source].max())
        for pair in self.pairs:
            pair[target, :longest] = pair[source, :longest]
        self.lengths[target] = self.lengths[source]


def zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return zeros. On a processor they take memory only once they are written: a server's rows are as long as the
    context, which few conversations fill."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    return torch.from_numpy(np.zeros(shape, f"i{dtype.itemsize}")).view(dtype)
