"""An array in several files, one after another, read through memory maps of the files that are in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from amenable.data.batches import Indices
from amenable.data.lazy import Array

MAX_MAPS = 512
"""files that are mapped at once: an operating system has a limit, often 65,530"""


class ShardedArray:
    """An array [n] of whole files; slices and arrays of positions are read from it as from one array."""

    def __init__(self, files: Sequence[Path], kind: str):
        """kind: type of the entries, as numpy names it."""
        self.files, self.dtype = list(files), np.dtype(kind)
        self.bounds = np.cumsum([0, *(file.stat().st_size // self.dtype.itemsize for file in files)])
        self.part = lru_cache(MAX_MAPS)(self.map_part)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def map_part(self, number: int) -> Array:
        """Return the memory map of a file, which has entries."""
        return np.memmap(self.files[number], self.dtype, "r")

    def __getitem__(self, index: slice | Indices) -> Array:
        """Return the entries of a slice without a step, or at some positions from 0."""
        if isinstance(index, slice):
            start, end, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"a slice with a step of {step}")
            return self.read(start, max(start, end))
        entries, owners = np.empty(len(index), self.dtype), np.searchsorted(self.bounds, index, "right") - 1
        for number in np.unique(owners).tolist():
            chosen = owners == number
            entries[chosen] = self.part(number)[index[chosen] - self.bounds[number]]
        return entries

    def read(self, start: int, end: int) -> Array:
        """Return the entries from `start` to before `end`: a view of a map where they are in one file."""
        if start == end:
            return np.empty(0, self.dtype)
        first, last = (np.searchsorted(self.bounds, [start, end - 1], "right") - 1).tolist()
        parts = []
        for number in range(first, last + 1):
            before, after = self.bounds[number : number + 2].tolist()
            if before < after:
                parts.append(self.part(number)[max(start, before) - before : min(end, after) - before])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
